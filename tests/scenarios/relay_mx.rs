//! Which servers mail is offered to, in which order, and what is said of it: hosts with a DNS of their own, beside real Postfix.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use scenarios::{Builder, Host, Instance, Network, Says, Scripted, is_root, wait_for};

use crate::tls::Senders;

/// Hosts of example.com: the last number of the address and what is said there; nothing says that nobody listens.
const HOSTS: &[(&str, u8, Option<&Says>)] = &[
    ("good1", 100, Some(&[])),
    ("good2", 101, Some(&[])),
    ("refused", 110, None),
    ("refused2", 111, None),
    ("refused3", 112, None),
    ("refused4", 113, None),
    ("refused5", 114, None),
    ("soft1", 120, Some(&[("RCPT", "450 4.2.0 first is full")])),
    ("soft2", 121, Some(&[("RCPT", "450 4.2.0 second is full")])),
    ("hard", 122, Some(&[("RCPT", "550 5.1.1 nobody")])),
    (
        "namesake",
        130,
        Some(&[("CONNECT", "220 relay.sender.example ESMTP"), ("EHLO", "250 relay.sender.example")]),
    ),
    ("busy", 140, Some(&[("CONNECT", "421 4.3.2 busy!")])),
    ("closed", 141, Some(&[("CONNECT", "554 5.3.2 closed")])),
    ("quiet", 142, Some(&[("CONNECT", "...")])),
    // Nobody has this address, and what is sent there is lost.
    ("hole", HOLE, None),
];

const HOLE: u8 = 200;

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

/// The host that all servers of [`HOSTS`] are on, and those that say something.
struct Servers {
    host: Host,
    running: Vec<(&'static str, Scripted)>,
}

impl Servers {
    /// Starts them in a network; `records` go into the zone example.com beside their addresses.
    fn start(network: &mut Network, records: &str) -> Self {
        let host = network.host("servers.example.com");
        let mut zone = format!("{records}\n");
        let mut running = Vec::new();
        for (name, number, says) in HOSTS {
            zone += &format!("{name} A {}\n", address(*number));
            if *number != HOLE {
                host.add_address(address(*number));
            }
            if let Some(says) = says {
                let at = SocketAddr::new(address(*number), 25);
                running.push((*name, Scripted::start_on(&host, at, says)));
            }
        }
        zone += &format!("v6only AAAA {}\n", host.ipv6);
        running.push(("v6only", Scripted::start_on(&host, SocketAddr::new(host.ipv6, 25), &[])));
        network.zone("example.com", &zone);
        Self { host, running }
    }

    fn named(&self, name: &str) -> &Scripted {
        self.running.iter().find(|(known, _)| *known == name).map(|(_, server)| server).expect("a server")
    }
}

/// Loses all that this host sends to [`HOLE`].
fn dig_hole(host: &Host) {
    let hole = address(HOLE).to_string();
    let mut ip = host.command("ip");
    ip.args(["neighbour", "add", &hole, "lladdr", "02:00:00:00:00:01", "dev", "eth0"]);
    assert!(ip.status().expect("run ip").success());
}

/// A domain of example.com: its records, and what must be said of mail for it.
const DOMAINS: &[(&str, &[&str], &str)] = &[
    ("preference", &["MX 20 good2", "MX 10 good1"], "relay=good1.example.com[192.0.2.100]:25"),
    ("refused-first", &["MX 10 refused", "MX 20 good1"], "relay=good1.example.com[192.0.2.100]:25"),
    ("hole-first", &["MX 10 hole", "MX 20 good1"], "relay=good1.example.com[192.0.2.100]:25"),
    (
        "all-refused",
        &["MX 10 refused", "MX 20 refused2"],
        "refused2.example.com[192.0.2.111]:25: Connection refused",
    ),
    ("only-hole", &["MX 10 hole"], "hole.example.com[192.0.2.200]:25: Connection timed out"),
    ("best-self", &["MX 10 self", "MX 20 good1"], "loops back to myself"),
    ("second-self", &["MX 10 good1", "MX 20 self", "MX 30 good2"], "status=sent"),
    ("second-self-down", &["MX 10 refused", "MX 20 self", "MX 30 good1"], "Connection refused"),
    ("best-unknown", &["MX 10 nowhere", "MX 20 self"], "unable to find primary relay for"),
    ("namesake-best", &["MX 10 namesake"], "loops back to myself"),
    ("namesake-second", &["MX 10 refused", "MX 20 namesake"], "status=deferred"),
    ("null", &["MX 0 ."], "does not accept mail (nullMX)"),
    ("null-and-more", &["MX 0 .", "MX 10 good1"], "dsn="),
    ("address-only", &["A 192.0.2.100"], "relay=address-only.example.com[192.0.2.100]:25"),
    ("alias", &["CNAME preference"], "relay=good1.example.com[192.0.2.100]:25"),
    ("mx-alias", &["MX 10 alias-of-good1"], "status=sent"),
    ("no-address", &["MX 10 nowhere"], "status=bounced"),
    ("nothing", &["TXT nothing"], "status=bounced"),
    ("mx-number", &["MX 10 192.0.2.100."], "dsn="),
    (
        "many",
        &["MX 1 refused", "MX 2 refused2", "MX 3 refused3", "MX 4 refused4", "MX 5 refused5", "MX 6 good1"],
        "refused5.example.com[192.0.2.114]:25: Connection refused",
    ),
    ("sessions", &["MX 10 soft1", "MX 20 soft2", "MX 30 good1"], "second is full"),
    ("soft-first", &["MX 10 soft1", "MX 20 good1"], "status=sent"),
    ("hard-first", &["MX 10 hard", "MX 20 good1"], "status=bounced"),
    ("busy-first", &["MX 10 busy", "MX 20 good1"], "status=sent"),
    ("closed-first", &["MX 10 closed", "MX 20 good1"], "status=sent"),
    ("closed-only", &["MX 10 closed"], "refused to talk to me"),
    ("quiet-first", &["MX 10 quiet", "MX 20 good1"], "status=sent"),
    ("v6", &["MX 10 v6only"], "relay=v6only.example.com[2001:db8::"),
    ("unknown-first", &["MX 10 nowhere", "MX 20 good1"], "status=sent"),
];

/// Domains elsewhere.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("absent", "absent.example", "Host or domain name not found"),
    ("bogus", "bogus.example", "status=deferred"),
    ("mx-bogus", "mx-bogus.example", "status=deferred"),
];

fn records() -> String {
    let mut zone = String::from("alias-of-good1 CNAME good1\n");
    for (name, records, _) in DOMAINS {
        records.iter().for_each(|record| zone += &format!("{name} {record}\n"));
    }
    zone
}

/// The servers of all domains, whose zone names the senders as well.
fn servers(network: &mut Network) -> Servers {
    let own: String = [11, 12].iter().map(|number| format!("self A {}\n", address(*number))).collect();
    Servers::start(network, &(records() + &own))
}

/// Postroad's host and Postfix's are the third and the fourth.
fn senders(network: &mut Network, more: &[&str]) -> Senders {
    network.zone("sender.example", "");
    let lines = [
        &[
            "myhostname = relay.sender.example",
            "inet_protocols = all",
            "smtp_address_preference = ipv4",
            "smtp_connect_timeout = 8s",
            "smtp_helo_timeout = 8s",
        ],
        more,
    ]
    .concat();
    let senders = Senders::start(network, &lines);
    senders.hosts.iter().for_each(dig_hole);
    senders
}

#[test]
fn mail_exchangers_are_tried_as_postfix_tries_them() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    network.bogus_zone("bogus.example", "@ MX 10 mx");
    network.zone("mx-bogus.example", "@ MX 10 mx.bogus.example.");
    let _servers = servers(&mut network);
    let senders = senders(&mut network, &[]);
    assert_eq!(senders.hosts.each_ref().map(|host| host.ip), [11, 12].map(address));
    for (name, ..) in DOMAINS {
        senders.send(&format!("user@{name}.example.com"));
    }
    for (_, domain, _) in ELSEWHERE {
        senders.send(&format!("user@{domain}"));
    }
    let cases = DOMAINS.iter().map(|(name, _, says)| (*name, *says));
    let cases: Vec<_> = cases.chain(ELSEWHERE.iter().map(|(name, _, says)| (*name, *says))).collect();
    senders.compare(&cases);
}

/// Where a relay of last resort is told of: the domains, and what must be said.
const WITH_FALLBACK: &[(&str, &str)] = &[
    ("all-refused", "relay=192.0.2.101[192.0.2.101]:25"),
    ("soft-first", "relay=good1.example.com"),
    ("sessions", "dsn="),
    ("hard-first", "status=bounced"),
    ("best-self", "loops back to myself"),
    ("second-self-down", "status=deferred"),
    ("namesake-best", "dsn="),
    ("null", "dsn="),
    ("no-address", "dsn="),
    ("closed-only", "dsn="),
    ("only-hole", "relay=192.0.2.101[192.0.2.101]:25"),
    ("listed", "relay=192.0.2.100[192.0.2.100]:25"),
    ("listed-domain", "relay=good1.example.com[192.0.2.100]:25"),
];

#[test]
fn fallback_relays_and_lists_of_places_serve_as_in_postfix() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let _servers = servers(&mut network);
    let senders = senders(
        &mut network,
        &[
            "smtp_fallback_relay = [192.0.2.110], [192.0.2.101]",
            "transport_maps = inline:{ { listed.test = smtp:[192.0.2.110], [192.0.2.100]:25 }, \
             { listed-domain.test = smtp:absent.example, preference.example.com } }",
        ],
    );
    for (name, _) in WITH_FALLBACK {
        let parent = if name.contains("listed") { "test" } else { "example.com" };
        senders.send(&format!("user@{name}.{parent}"));
    }
    senders.compare(WITH_FALLBACK);
}

/// Where answers of the DNS are passed over, and mail that came to its best host is delivered: the domains, and what must
/// be said.
const RULED: &[(&str, &str)] = &[
    ("preference", "relay=good2.example.com"),
    ("refused-first", "DNS reply filter drops all results"),
    ("address-only", "DNS reply filter drops all results"),
    ("alias", "relay=good2.example.com"),
    ("best-self", "passing <user@best-self.example.com> to transport=discard"),
    ("second-self-down", "status=deferred"),
    ("namesake-best", "dsn="),
    ("hard-first", "status=bounced"),
    ("soft-first", "status=sent"),
];

#[test]
fn dns_reply_filters_and_best_mx_transport_do_as_in_postfix() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let _servers = servers(&mut network);
    let senders = senders(
        &mut network,
        &[
            "smtp_dns_reply_filter = regexp:{{/^preference[.]example[.]com[.] [0-9]+ IN MX 10 / IGNORE}, \
             {/^refused-first[.]example[.]com[.] [0-9]+ in mx / ignore}, \
             {/^address-only[.]example[.]com[.] [0-9]+ IN A 192[.]0[.]2[.]100$$/ IGNORE}}",
            "best_mx_transport = discard:for us",
        ],
    );
    for (name, _) in RULED {
        senders.send(&format!("user@{name}.example.com"));
    }
    senders.compare(RULED);
}

/// Addresses that are written in an unusual way: what the log calls them, the parameters of MAIL, the recipient, and what
/// must be said.
const SPELLINGS: &[(&str, &str, &str, &str)] = &[
    ("bücher", " SMTPUTF8 BODY=8BITMIME", "user@bücher.example.com", "dsn="),
    ("xn--bcher-kva", "", "user@xn--bcher-kva.example.com", "status=sent"),
    ("dömänen", " SMTPUTF8 BODY=8BITMIME", "üser@dömänen.example.com", "dsn="),
    ("preference", " SMTPUTF8", "üser@preference.example.com", "dsn="),
    ("alias", "", "user@alias.example.com.", "dsn="),
    ("Mx-Alias", "", "User@Mx-Alias.Example.COM", "status=sent"),
    ("192.0.2", "", "user@[192.0.2.100]", "relay=192.0.2.100[192.0.2.100]:25"),
];

#[test]
fn unusual_spellings_of_domains_are_understood_as_in_postfix() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let utf8 = "xn--bcher-kva MX 10 good1\nself A 192.0.2.11\n";
    let _servers = Servers::start(&mut network, &(records() + utf8));
    let senders = senders(&mut network, &[]);
    for host in &senders.hosts {
        let mut smtp = host.smtp(host.ip);
        smtp.expect("EHLO client.example", 250);
        for (_, parameters, recipient, _) in SPELLINGS {
            smtp.expect(&format!("MAIL FROM:<sender@sender.example>{parameters}"), 250);
            smtp.expect(&format!("RCPT TO:<{recipient}>"), 250);
            smtp.expect("DATA", 354);
            smtp.expect("Subject: x\r\n\r\nbody\r\n.", 250);
        }
    }
    senders.compare(&SPELLINGS.iter().map(|(name, _, _, says)| (*name, *says)).collect::<Vec<_>>());
}

/// A sender of ours alone.
fn sender(network: &mut Network, lines: &[&str]) -> (Host, Instance) {
    let host = network.host("relay.sender.example");
    let builder = lines.iter().fold(Builder::new().on(&host), |builder, line| builder.main(line));
    let site = builder.main("mynetworks = 192.0.2.0/24").master("smtp unix - - n - - smtp").start();
    (host, site)
}

fn send(host: &Host, sender: &str, recipients: &[&str]) {
    let mut smtp = host.smtp(host.ip);
    smtp.expect("EHLO client.example", 250);
    assert_eq!(smtp.message(sender, recipients, "Subject: x\r\n\r\nbody\r\n").code, 250);
}

#[test]
fn equals_share_the_mail_and_places_are_told_in_every_way() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let servers = Servers::start(
        &mut network,
        "equals MX 10 good1\nequals MX 10 good2\n_submission._tcp.srv SRV 10 0 2525 good1\n\
         _submission._tcp.srv SRV 20 0 2526 good2\n_submission._tcp.nosrv SRV 0 0 0 .",
    );
    let at = |number, port| Scripted::start_on(&servers.host, SocketAddr::new(address(number), port), &[]);
    let (by_service, literal6) = (at(101, 2526), servers.named("v6only"));
    network.zone("sender.example", "");
    let (host, site) = sender(
        &mut network,
        &[
            "smtp_connection_cache_on_demand = no",
            "use_srv_lookup = submission",
            "sender_dependent_relayhost_maps = inline:{ { ann@box.example = [192.0.2.101] }, { @far.example = [192.0.2.100]:25 } }",
            "transport_maps = inline:{ { srv.test = smtp:srv.example.com:submission }, { nosrv.test = smtp:nosrv.example.com:submission } }",
            "smtp_bind_address = 192.0.2.77",
            "smtp_bind_address6 = 2001:db8::77",
        ],
    );
    host.add_address("192.0.2.77".parse().unwrap());
    host.add_address("2001:db8::77".parse().unwrap());
    for _ in 0..24 {
        send(&host, "joe@box.example", &["user@equals.example.com"]);
    }
    site.wait_for_empty_queue();
    let counts = ["good1", "good2"].map(|name| servers.named(name).count("RCPT TO:<user@equals"));
    // One side has all with a chance of one in eight million.
    assert!(counts[0] > 0 && counts[1] > 0 && counts[0] + counts[1] == 24, "{counts:?}");

    send(&host, "joe@box.example", &["user@srv.test", "user@nosrv.test"]);
    site.wait_for_log(&["to=<user@srv.test>, relay=good2.example.com[192.0.2.101]:2526", "status=sent"]);
    site.wait_for_log(&["to=<user@nosrv.test>, relay=none", "status=bounced (Service ", "nullSRV"]);
    assert_eq!(by_service.count("RCPT"), 1);

    send(&host, "ann@box.example", &["user@equals.example.com"]);
    site.wait_for_log(&["to=<user@equals.example.com>, relay=192.0.2.101[192.0.2.101]:25"]);
    send(&host, "who@far.example", &["user@anything.test"]);
    site.wait_for_log(&["to=<user@anything.test>, relay=192.0.2.100[192.0.2.100]:25"]);

    let literal = format!("user@[IPv6:{}]", servers.host.ipv6);
    send(&host, "joe@box.example", &["user@[192.0.2.100]", &literal]);
    site.wait_for_log(&["to=<user@[192.0.2.100]>, relay=192.0.2.100[192.0.2.100]:25", "status=sent"]);
    let relay = format!("relay={0}[{0}]:25", servers.host.ipv6);
    site.wait_for_log(&[&format!("to=<{literal}>"), &relay, "status=sent"]);
    let from = |server: &Scripted| server.clients().into_iter().collect::<BTreeSet<IpAddr>>();
    assert_eq!(from(servers.named("good1")), BTreeSet::from(["192.0.2.77".parse().unwrap()]));
    assert_eq!(from(literal6), BTreeSet::from(["2001:db8::77".parse().unwrap()]));
}

#[test]
fn a_dns_or_a_server_that_does_not_answer_holds_up_nobody_else() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let servers = Servers::start(&mut network, "lost MX 10 hole");
    network.zone("sender.example", "");
    let (host, site) = sender(
        &mut network,
        &["transport_maps = inline:{ { fine.test = smtp:[192.0.2.100] } }", "smtp_connect_timeout = 100s"],
    );
    dig_hole(&host);
    for number in 0..30 {
        send(&host, "joe@box.example", &[&format!("user{number}@lost.example.com")]);
    }
    let deferred = |what: &str| site.log().lines().filter(|line| line.contains(what)).count();
    let fine = |count: usize| {
        let began = Instant::now();
        send(&host, "joe@box.example", &["user@fine.test"]);
        wait_for("mail to a server that answers", || {
            (servers.named("good1").count("RCPT") == count).then_some(())
        });
        began.elapsed()
    };
    let beside_hole = fine(1);
    assert!(
        beside_hole < Duration::from_secs(60) && deferred("lost.example.com>, relay=") == 0,
        "{beside_hole:?}"
    );
    // The name of a client costs its server a question as well; one session asks once.
    let mut open = host.smtp(host.ip);
    open.expect("EHLO client.example", 250);
    network.stop_dns();
    for number in 0..60 {
        let recipient = format!("user@unknown{number}.example");
        assert_eq!(open.message("joe@box.example", &[&recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
    }
    let beside_silence = fine(2);
    assert!(beside_silence < Duration::from_secs(60), "{beside_silence:?}");
    wait_for("all others to be put off", || (deferred("@unknown") >= 60).then_some(()));
    assert_eq!(deferred("status=bounced"), 0, "{}", site.log());
    site.wait_for_log(&["to=<user@unknown0.example>, relay=none", "dsn=4.4.3, status=deferred ("]);
    println!("beside a black hole {beside_hole:?}, beside a silent DNS {beside_silence:?}");
}
