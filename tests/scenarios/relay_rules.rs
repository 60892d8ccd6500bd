//! What the SMTP client passes on, shows and finds out: XFORWARD beside real Postfix, a renewed certificate of its own, a
//! token that was withdrawn, address probes that end at DATA.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use scenarios::{Authority, Builder, Postfix, Scripted, Smtp, is_root, wait_for};

/// What a content filter says of a message before it brings it back, each with the sender's name.
const FORWARDED: &[(&str, &[&str])] = &[
    (
        "all",
        &[
            "XFORWARD NAME=first.example ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=mx.first.example IDENT=ABC",
            "XFORWARD SOURCE=REMOTE",
        ],
    ),
    ("local", &["XFORWARD NAME=first.example ADDR=192.0.2.7 SOURCE=LOCAL"]),
    ("name", &["XFORWARD NAME=first.example"]),
    ("unknown", &["XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 HELO=[UNAVAILABLE]"]),
    ("coded", &["XFORWARD ADDR=192.0.2.8 PORT=1 HELO=a+2Bb PROTO=SMTP IDENT=a+40b"]),
    ("ident", &["XFORWARD IDENT=4711"]),
    ("nothing", &[]),
];

const FORWARDING: [&str; 8] = [
    "myhostname = mail.example.com",
    "myorigin = example.com",
    "mydestination =",
    "inet_interfaces = 127.0.0.1",
    "mynetworks = 127.0.0.0/8",
    "smtpd_authorized_xforward_hosts = 127.0.0.0/8",
    "smtp_send_xforward_command = yes",
    "smtp_connection_cache_on_demand = no",
];

fn next_hop() -> Scripted {
    Scripted::start(&[("EHLO", "250-s.example\n250 XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT")])
}

fn bring_back(port: u16) {
    let mut smtp = Smtp::connect(port);
    smtp.expect("EHLO filter.example", 250);
    for (name, commands) in FORWARDED {
        for command in *commands {
            smtp.expect(command, 250);
        }
        let reply =
            smtp.message(&format!("{name}@example.com"), &["x@far.example"], "Subject: x\r\n\r\nx\r\n");
        assert_eq!(reply.code, 250, "{name}");
    }
}

/// What the next host was told of each message; queue ids and ports that nobody passed on differ from run to run.
fn told(server: &Scripted) -> Vec<String> {
    let mut found = Vec::new();
    for session in server.sessions() {
        let Some((_, name)) = session.split_once("MAIL FROM:<") else { continue };
        let Some((name, _)) = name.split_once('@') else { continue };
        let mut words: Vec<&str> = session
            .lines()
            .filter_map(|line| line.strip_prefix("XFORWARD "))
            .flat_map(|l| l.split(' '))
            .collect();
        let passed_on =
            |word: &str| matches!(word, "IDENT=ABC" | "IDENT=a+40b" | "IDENT=4711" | "PORT=4711" | "PORT=1");
        for word in &mut words {
            match word.split_once('=') {
                Some(("IDENT" | "PORT", value)) if !passed_on(word) && value != "[UNAVAILABLE]" => {
                    *word = &word[..word.len() - value.len()];
                }
                _ => {}
            }
        }
        words.sort_unstable();
        found.push(format!("{name}: {}", words.join(" ")));
    }
    found.sort();
    found
}

/// What the log says of the first clients.
fn first_clients(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains("smtpd[") && line.contains("client="));
    let mut found: Vec<String> = lines
        .map(|line| line.split_once("client=").map_or_else(String::new, |(_, rest)| rest.to_owned()))
        .collect();
    found.sort();
    found
}

#[test]
fn the_first_client_is_told_of_all_the_way_as_by_postfix() {
    if !is_root("real Postfix") {
        return;
    }
    let (ours_to, theirs_to) = (next_hop(), next_hop());
    let relay = |server: &Scripted| format!("relayhost = [127.0.0.1]:{}", server.address.port());
    let builder = FORWARDING.iter().fold(Builder::new().as_root(), |builder, line| builder.main(line));
    let ours = builder.main(&relay(&ours_to)).master("smtp unix - - n - - smtp").start();
    let theirs = Postfix::start(&[&FORWARDING[..], &[&relay(&theirs_to)]].concat());
    bring_back(ours.port);
    bring_back(theirs.port);
    for server in [&ours_to, &theirs_to] {
        wait_for("all messages", || (told(server).len() == FORWARDED.len()).then_some(()));
    }
    assert_eq!(told(&ours_to).join("\n"), told(&theirs_to).join("\n"));
    assert_eq!(first_clients(&ours.log()), first_clients(&theirs.log()));
}

/// Sends a message and gives what the server says of the client's certificate.
fn certificate_shown(
    client: &scenarios::Instance,
    server: &scenarios::Instance,
    count: &mut usize,
) -> String {
    let mut smtp = client.smtp();
    smtp.expect("EHLO client.example", 250);
    let recipient = format!("{}@example.com", server.user());
    assert_eq!(smtp.message("joe@example.org", &[&recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
    *count += 1;
    let mail = server.wait_for_mail(server.user(), *count);
    String::from_utf8_lossy(mail.last().map_or(&[][..], Vec::as_slice)).into_owned()
}

#[test]
fn a_renewed_certificate_is_shown_whose_key_only_root_can_read() {
    if !is_root("a key of root's") {
        return;
    }
    let authority = Authority::new();
    for name in ["server", "before", "after"] {
        authority.issue(name, &[&format!("{name}.example.org")]);
    }
    let server = Builder::new()
        .main("smtpd_tls_security_level = may\nsmtpd_tls_ask_ccert = yes\nsmtpd_tls_received_header = yes")
        .main(&format!("smtpd_tls_CAfile = {}", authority.path("ca.pem").display()))
        .main(&format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display()))
        .start();
    let client = Builder::new()
        .as_root()
        .main("mydestination =\nmynetworks = 127.0.0.0/8\nsmtp_tls_security_level = encrypt")
        .main("smtp_connection_cache_on_demand = no\nsmtp_tls_chain_files = $root/etc/own.chain")
        .main(&format!("relayhost = [127.0.0.1]:{}", server.port))
        .master("smtp unix - - n - - smtp")
        .prepare();
    let place = |name: &str| {
        let new = client.path("etc/new.chain");
        fs::copy(authority.path(&format!("{name}.chain")), &new).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, client.path("etc/own.chain")).unwrap();
    };
    place("before");
    client.start();
    let mut count = 0;
    let shown = certificate_shown(&client, &server, &mut count);
    assert!(shown.contains("before.example.org"), "{shown}\n{}", client.log());
    place("after");
    wait_for("the renewed certificate", || {
        certificate_shown(&client, &server, &mut count).contains("after.example.org").then_some(())
    });
    client.wait_for_log(&["smtp[", "certificates were renewed"]);
}

#[test]
fn a_probe_that_ends_at_data_finds_out_what_is_refused_there() {
    let refusing = Scripted::start(&[("DATA", "554 5.7.1 nobody of that name")]);
    let taking = Scripted::start(&[]);
    let routes = format!(
        "transport_maps = inline:{{ {{ refusing.test = smtp:[127.0.0.1]:{} }}, {{ taking.test = smtp:[127.0.0.1]:{} }} }}",
        refusing.address.port(),
        taking.address.port()
    );
    let site = Builder::new()
        .main(&routes)
        .main("smtp_address_verify_target = data")
        .master("smtp unix - - n - - smtp")
        .start();
    site.run("sendmail", &["-bv", "one@refusing.test", "two@taking.test"], "").ok();
    site.wait_for_log(&[
        "to=<one@refusing.test>",
        "status=undeliverable (host 127.0.0.1[127.0.0.1] said: 554",
    ]);
    site.wait_for_log(&["to=<two@taking.test>", "status=deliverable (354 go on)"]);
    for server in [&refusing, &taking] {
        let said = server.sessions().concat();
        assert!(said.ends_with("DATA\r\n") || said.ends_with("DATA\r\nQUIT\r\n"), "{said}");
    }
    assert!(!taking.sessions().concat().contains("QUIT"));
}
