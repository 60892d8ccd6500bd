//! The restrictions that ask the DNS, as a table of data; real Postfix answers it too, in front of the same zones.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use scenarios::{Builder, Host, Network, Postfix, Smtp, is_root};

/// With the usual parameters, and with those of a stricter site.
const TABLE: &str = include_str!("dns_restrictions.txt");
const STRICT_TABLE: &str = include_str!("dns_restrictions_strict.txt");
const STRICT: [&str; 8] = [
    "unknown_client_reject_code = 550",
    "unknown_hostname_reject_code = 550",
    "unknown_address_reject_code = 550",
    "reject_tempfail_action = defer",
    "maps_rbl_reject_code = 550",
    "default_rbl_reply = $rbl_code $rbl_what: ${rbl_reason?{because}:{without reason}}$$",
    "permit_mx_backup_networks = 192.0.2.92/32",
    "smtpd_expansion_filter = \\40.:abcdefghijklmnopqrstuvwxyz0123456789",
];

/// What `$table`, `$names` and `$addresses` stand for.
const SERVERS: &str = "inline:{ { mail.example.org = REJECT no such exchanger } { 192.0.2.90 = REJECT no such address } \
                       { ns.invalid = REJECT no such server } { okay-mail.example.org = OK } }";
const NAMES: &str = "inline:{ { good.example.org = REJECT no such host } }";
const ADDRESSES: &str = "inline:{ { 192.0.2.11 = REJECT not from there } }";

/// The hosts that connect, beside the servers; the numbers of their addresses follow 12.
const CLIENTS: [&str; 4] = ["nameless", "forged", "broken", "badname"];

/// A line of the table.
struct Case {
    restrictions: &'static str,
    client: &'static str,
    helo: &'static str,
    sender: &'static str,
    recipient: String,
    reply: &'static str,
}

fn cases(table: &'static str) -> Vec<Case> {
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let or = |text: &'static str, usual: &'static str| if text == "-" { usual } else { text };
    let read = |(number, line): (usize, &'static str)| {
        let fields: Vec<&'static str> = line.split('|').map(str::trim).collect();
        let &[restrictions, client, helo, sender, domain, reply] = fields.as_slice() else {
            panic!("a case has six fields: {line}")
        };
        Case {
            restrictions,
            client: or(client, "good"),
            helo: or(helo, "good.example.org"),
            sender: or(sender, "ann@good.example.org"),
            recipient: format!("case{number}@{}", or(domain, "relay.example")),
            reply,
        }
    };
    lines.enumerate().map(read).collect()
}

/// Each case is a class of restrictions that its recipient's local part chooses.
fn configuration(cases: &[Case]) -> Vec<String> {
    let (mut classes, mut choice) = (String::new(), String::new());
    let mut lines = vec![
        "inet_interfaces = all".to_owned(),
        "inet_protocols = all".to_owned(),
        "mydestination = mx.example.com, localhost".to_owned(),
        "relay_domains = relay.example".to_owned(),
        "smtpd_relay_restrictions =".to_owned(),
        "maps_rbl_domains = dnsbl.example".to_owned(),
        "rbl_reply_maps = inline:{ { own.example = 450 5.7.77 $$recipient: $$client $$client_name $$helo_name $$sender \
         $$sender_domain $$rbl_class $$rbl_domain${rbl_txt?no}${rbl_txt:.} } }"
            .replace("${rbl", "$${rbl"),
    ];
    for (number, case) in cases.iter().enumerate() {
        let restrictions = case
            .restrictions
            .replace("$table", SERVERS)
            .replace("$names", NAMES)
            .replace("$addresses", ADDRESSES);
        lines.push(format!("case{number} = {restrictions}, permit"));
        let _ = write!(classes, " case{number}");
        let _ = write!(choice, " {{ case{number}@ = case{number} }}");
    }
    lines.push(format!("smtpd_restriction_classes ={classes}"));
    lines.push(format!(
        "smtpd_recipient_restrictions = check_recipient_access inline:{{{choice} }}, reject_unauth_destination"
    ));
    lines
}

/// The zones, and the clients by name.
fn clients(network: &mut Network) -> HashMap<&'static str, Host> {
    network.zone(
        "example.org",
        "onlymx MX 10 mail\nmail A 192.0.2.91\nonlyv6 AAAA 2001:db8::77\ntext TXT \"nothing else\"\nnull MX 0 .\n\
         byip MX 5 host90\nhost90 A 192.0.2.90\nokay MX 1 okay-mail\nokay-mail A 192.0.2.92\n\
         backup MX 10 mail\nbackup MX 20 mx.example.com.\nbackup MX 20 px.example.com.\n\
         primary MX 10 mx.example.com.\nprimary MX 10 px.example.com.\nprimary MX 20 mail\n\
         thrice MX 10 okay-mail\nthrice MX 20 px.example.com.\nthrice MX 20 mx.example.com.\n\
         elsewhere MX 10 okay-mail\nelsewhere MX 20 mail\n\
         @ NS ns.invalid.\nbadname A 192.0.2.16",
    );
    network.zone("example.com", "");
    network.zone("relay.example", "@ A 192.0.2.93");
    network.zone(
        "2.0.192.in-addr.arpa",
        "11 PTR good.example.org.\n14 PTR good.example.org.\n15 PTR www.bogus.example.\n16 PTR bad\\032name.example.org.",
    );
    network.zone(
        "dnsbl.example",
        "13.2.0.192 A 127.0.0.2\n13.2.0.192 TXT \"listed, see https://dnsbl.example/\"\n14.2.0.192 A 127.0.0.2\n\
         1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2 A 127.0.0.2",
    );
    network.zone("rhsbl.example", "good.example.org A 127.0.0.2\ngood.example.org TXT \"a bad name\"");
    network.zone("own.example", "13.2.0.192 A 127.0.0.2");
    network.bogus_zone("bogus.example", "www A 192.0.2.94");
    CLIENTS.into_iter().map(|name| (name, network.host(&format!("{name}.example.org")))).collect()
}

/// The reply to RCPT.
fn ask(case: &Case, from: &Host, to: &Host) -> String {
    let server = if case.client.ends_with('6') { to.ipv6 } else { to.ip };
    let stream = from.connect(SocketAddr::new(server, 25)).unwrap();
    let mut smtp = Smtp::over(stream);
    assert_eq!(smtp.read_reply().code, 220);
    smtp.expect(&format!("EHLO {}", case.helo), 250);
    smtp.expect(&format!("MAIL FROM:<{}>", case.sender), 250);
    let reply = smtp.command(&format!("RCPT TO:<{}>", case.recipient));
    format!("{} {}", reply.code, reply.text())
}

/// What the case expects, and whether the reply is that.
fn judge(case: &Case, ip: IpAddr, reply: &str) -> Result<(), String> {
    let expected = case.reply.replace("$ip", &ip.to_string()).replace("$to", &case.recipient);
    let as_expected = if expected == "250" { reply.starts_with("250 ") } else { reply == expected };
    if as_expected { Ok(()) } else { Err(format!("expected: {expected}\n     got: {reply}")) }
}

#[test]
fn restrictions_that_ask_the_dns_say_what_postfix_says() {
    compare(TABLE, &[]);
}

#[test]
fn a_site_may_refuse_for_good_what_has_no_name() {
    compare(STRICT_TABLE, &STRICT);
}

/// Asks both servers, with these parameters, what the table has the answers to.
#[test]
fn answers_that_a_filter_passes_over_are_none() {
    let filter = "smtpd_dns_reply_filter = regexp:{{/^onlymx[.]example[.]org[.] [0-9]+ IN MX / IGNORE}, \
         {/ IN TXT .*dnsbl/ IGNORE}, {/^14[.]2[.]0[.]192[.]dnsbl[.]example[.] [0-9]+ IN A / IGNORE}}";
    compare(include_str!("dns_restrictions_filtered.txt"), &[filter]);
}

fn compare(table: &'static str, parameters: &[&str]) {
    if !is_root("restrictions that ask the DNS") {
        return;
    }
    let mut network = Network::new();
    let mx = network.host("mx.example.com");
    let good = network.host("good.example.org");
    let px = network.host("px.example.com");
    let mut clients = clients(&mut network);
    clients.extend([("good", good.clone()), ("good6", good)]);
    let cases = cases(table);
    let mut lines = configuration(&cases);
    lines.extend(parameters.iter().map(|&line| line.to_owned()));
    let postroad = lines.iter().fold(Builder::new().on(&mx), |builder, line| builder.main(line)).start();
    let references: Vec<&str> = lines.iter().map(String::as_str).collect();
    let _postfix = Postfix::start_on(&px, &references);
    let mut wrong = String::new();
    for case in &cases {
        let client = &clients[case.client];
        let ip = if case.client.ends_with('6') { client.ipv6 } else { client.ip };
        for (name, server) in [("Postroad", &mx), ("Postfix", &px)] {
            if let Err(difference) = judge(case, ip, &ask(case, client, server)) {
                let _ = writeln!(wrong, "{name}: {} ({})\n{difference}", case.restrictions, case.client);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{}", postroad.log());
}
