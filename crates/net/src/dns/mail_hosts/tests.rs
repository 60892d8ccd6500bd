//! Places and what is found for them, as a table.

use std::collections::HashSet;
use std::path::Path;

use config::Snapshot;

use super::super::fake::FakeServer;
use super::*;

fn config(parameters: &str) -> Config {
    let main_cf = format!(
        "compatibility_level = 3.6\ninet_interfaces = loopback-only\nproxy_interfaces = 192.0.2.99\n{parameters}"
    );
    let snapshot = Snapshot { main_cf: main_cf.into_bytes(), master_cf: Vec::new() };
    Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).unwrap().0
}

fn finder(server: &FakeServer, parameters: &str) -> HostFinder {
    HostFinder::for_smtp(&config(parameters)).unwrap().asking(server.resolver())
}

fn place(text: &str) -> Place<'_> {
    let (place, service) = text.rsplit_once(':').filter(|_| !text.ends_with(']')).unwrap_or((text, "smtp"));
    let port = match service {
        "smtp" => 25,
        "submission" => 587,
        number => number.parse().unwrap(),
    };
    match place.strip_prefix('[') {
        Some(inner) => Place { name: inner.trim_end_matches(']'), literal: true, service, port },
        None => Place { name: place, literal: false, service, port },
    }
}

fn shown(result: &Result<MailHosts, HostError>) -> String {
    match result {
        Err(error) => format!("{} {error}{}", error.dsn, if error.is_loop { " loop" } else { "" }),
        Ok(found) => {
            let show = |host: &MailHost| {
                let port = if host.port == 25 { String::new() } else { format!(":{}", host.port) };
                format!("{} {} {}{port}", host.preference, host.name, host.address)
            };
            let hosts: Vec<String> = found.hosts.iter().map(show).collect();
            format!("{}{}", hosts.join(", "), if found.includes_self { " self" } else { "" })
        }
    }
}

#[test]
fn places_lead_to_the_hosts_of_the_table() {
    let server = FakeServer::start();
    for line in include_str!("cases.txt").lines().filter(|line| !line.starts_with('#')) {
        let (given, expected) = line.split_once(" -> ").unwrap();
        let mut words = given.split(' ');
        let text = words.next().unwrap();
        let parameters: Vec<String> =
            words.chain(["smtp_randomize_addresses=no"]).map(|word| word.replace('=', " = ")).collect();
        let found = finder(&server, &parameters.join("\n")).find(&place(text));
        assert_eq!(shown(&found), expected, "{given}");
    }
}

#[test]
fn equals_are_shuffled_and_only_equals() {
    let server = FakeServer::start();
    let finder = finder(&server, "");
    let mut orders = HashSet::new();
    for _ in 0..60 {
        let found = finder.find(&place("two.example")).unwrap();
        assert_eq!(found.hosts[3].name, "worse.example");
        orders.insert(shown(&Ok(found)));
    }
    assert!(orders.len() > 2, "{orders:?}");
}

#[test]
fn what_is_secure_is_told() {
    let server = FakeServer::start();
    let dns = Resolver::system(DnsSettings { dnssec: true, ..server.settings() });
    let finder = HostFinder::for_smtp(&config("smtp_dns_support_level = dnssec")).unwrap().asking(dns);
    let secure = |text: &str| {
        let found = finder.find(&place(text)).unwrap();
        (
            found.from_mx,
            found.hosts[0].name_secure,
            found.hosts[0].address_secure,
            found.hosts[0].canonical.clone(),
        )
    };
    assert_eq!(secure("signed.example"), (true, true, true, "mx.signed.example".to_owned()));
    assert_eq!(secure("example.com"), (true, false, false, "mx1.example.com".to_owned()));
    assert_eq!(secure("[mx.signed.example]"), (false, true, true, "mx.signed.example".to_owned()));
    assert_eq!(secure("half.signed.example"), (false, true, false, "bare.example".to_owned()));
}

#[test]
fn lmtp_knows_no_mail_exchangers() {
    let server = FakeServer::start();
    let finder = HostFinder::for_lmtp(&config("")).unwrap().asking(server.resolver());
    assert!(finder.find(&place("example.com")).is_err());
    assert_eq!(shown(&finder.find(&place("bare.example"))), "0 bare.example 192.0.2.10");
}

#[test]
fn weights_share_the_work() {
    let srv = |priority, weight, port| Srv { priority, weight, port, target: "x".to_owned() };
    let mut first = [0; 4];
    for _ in 0..2000 {
        let order = in_order_of_weight(vec![srv(1, 9, 3), srv(0, 0, 0), srv(0, 10, 1), srv(0, 90, 2)]);
        assert_eq!(order.len(), 4);
        assert_eq!(order[3].port, 3);
        first[usize::from(order[0].port)] += 1;
    }
    assert!(first[2] > 1500 && first[1] > 80 && first[0] < 120, "{first:?}");
}
