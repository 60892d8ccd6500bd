//! Sessions that serve more than one message, as their servers see it.

use std::path::Path;

use scenarios::{Authority, Builder, Host, Instance, Network, Postfix, Scripted, Smtp, is_root, wait_for};

fn site(server: u16, lines: &[&str]) -> Instance {
    let builder = lines.iter().fold(Builder::new(), |builder, line| builder.main(line));
    builder.main(&format!("relayhost = [127.0.0.1]:{server}")).master("smtp unix - - n - - smtp").start()
}

/// Sends so many messages over one connection; their recipients are `user0@box.example` and so on.
fn send_many(smtp: &mut Smtp, count: usize) {
    smtp.expect("EHLO client.example", 250);
    for number in 0..count {
        let recipient = format!("user{number}@box.example");
        assert_eq!(smtp.message("joe@example.com", &[&recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
    }
}

/// One message, and its line in the log.
fn send(site: &Instance, recipient: &str) -> String {
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    assert_eq!(smtp.message("joe@example.com", &[recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
    site.wait_for_log(&[&format!("to=<{recipient}>"), "status="])
}

const ALWAYS: &str = "smtp_connection_cache_destinations = [127.0.0.1], 127.0.0.1";

#[test]
fn a_session_is_used_as_often_as_it_may_be() {
    let server = Scripted::start(&[]);
    let site = site(server.address.port(), &[ALWAYS, "smtp_connection_reuse_count_limit = 2"]);
    let lines: Vec<String> = (0..5).map(|number| send(&site, &format!("user{number}@box.example"))).collect();
    let uses: Vec<Option<&str>> =
        lines.iter().map(|line| line.split(", ").find_map(|field| field.strip_prefix("conn_use="))).collect();
    // A session that was made for one message serves two more.
    assert_eq!(uses, [None, Some("2"), Some("3"), None, Some("2")], "{lines:#?}");
    assert_eq!(server.sessions().len(), 2);
    assert!(lines.iter().all(|line| line.contains("status=sent")));
}

#[test]
fn a_session_is_used_no_longer_than_it_may_be() {
    let server = Scripted::start(&[]);
    let site = site(server.address.port(), &[ALWAYS, "smtp_connection_reuse_time_limit = 10s"]);
    let mut lines = Vec::new();
    wait_for("a second session", || {
        lines.push(send(&site, &format!("user{}@box.example", lines.len())));
        (server.sessions().len() > 1).then_some(())
    });
    assert!(lines.iter().all(|line| line.contains("status=sent")), "{lines:#?}");
    // What a session was kept for is told; the last message came over one of its own.
    assert!(lines.last().is_some_and(|line| !line.contains("conn_use=")), "{lines:#?}");
    assert!(lines.len() > 2 && lines[1].contains("conn_use=2"), "{lines:#?}");
}

#[test]
fn a_session_that_died_meanwhile_costs_nothing_but_a_connection() {
    let pipelining = ("EHLO", "250-s.example\n250 PIPELINING");
    for dying in [
        // It closes whenever it has taken a message.
        &[(".", "250 2.0.0 taken!")][..],
        &[("RSET", "421 4.4.2 too late!")],
        &[("RSET", "!")],
        // The next message is on its way by then.
        &[pipelining, (".", "250 2.0.0 taken!")],
        &[pipelining, ("RSET", "421 4.4.2 too late!")],
        &[pipelining, ("RSET", "!")],
        &[pipelining, ("RSET", "502 5.5.1 what?")],
    ] {
        let server = Scripted::start(dying);
        let site = site(server.address.port(), &[ALWAYS]);
        for number in 0..3 {
            let line = send(&site, &format!("user{number}@box.example"));
            assert!(line.contains("status=sent") && !line.contains("conn_use"), "{line}");
        }
        assert!(!site.log().contains("deferred"), "{}", site.log());
        assert_eq!(server.sessions().len(), 3);
        assert_eq!(server.count("Subject: x"), 3, "{:?}", server.sessions());
    }
}

#[test]
fn a_session_that_goes_wrong_in_its_second_message_loses_no_mail() {
    for reply in ["421 4.3.0 going down!", "!", "garbage!"] {
        let server = Scripted::start(&[("RCPT TO:<user1@", reply)]);
        let lines = [ALWAYS, "minimal_backoff_time = 1s", "queue_run_delay = 1s"];
        let site = site(server.address.port(), &lines);
        send(&site, "user0@box.example");
        send(&site, "user1@box.example");
        server.say(&[]);
        site.try_all();
        site.wait_for_log(&["to=<user1@box.example>", "status=sent"]);
        assert!(!site.log().contains("status=bounced"), "{reply}: {}", site.log());
    }
}

#[test]
fn a_thousand_messages_use_few_connections() {
    let server = Scripted::start(&[("EHLO", "250-s.example\n250 PIPELINING")]);
    let site = site(server.address.port(), &[]);
    send_many(&mut site.smtp(), 1000);
    site.wait_for_empty_queue();
    assert_eq!(server.count("RCPT TO:"), 1000);
    site.wait_for_lines(&["status=sent"], 1000);
    let connections = server.sessions().len();
    // Twenty deliveries may be under way, and sessions are used a hundred times as they come and go.
    assert!(connections <= 100, "{connections} connections");
    println!("1000 messages over {connections} connections");
}

/// A server and a client with TLS between them.
fn with_tls(network: &mut Network, authority: &Authority, lines: &[&str]) -> (Postfix, Instance, Host) {
    authority.issue("mx", &["mx.example.com"]);
    let (server, client) = (network.host("mx.example.com"), network.host("client.example.org"));
    network.zone("example.com", "@ MX 10 mx");
    network.zone("example.org", "");
    let chain = format!("smtpd_tls_chain_files = {}", authority.path("mx.chain").display());
    let postfix = Postfix::start_on(
        &server,
        &[
            "mydestination =",
            "mynetworks = 192.0.2.0/24",
            "default_transport = discard:",
            "smtpd_tls_security_level = may",
            &chain,
        ],
    );
    let builder = lines.iter().fold(Builder::new().on(&client), |builder, line| builder.main(line));
    let anchors = format!("smtp_tls_CAfile = {}", Path::new(&authority.path("ca.pem")).display());
    let site = builder
        .main("mynetworks = 192.0.2.0/24")
        .main("mydestination =")
        .main(&anchors)
        .main("smtp_tls_loglevel = 1")
        .master("smtp unix - - n - - smtp")
        .start();
    (postfix, site, client)
}

#[test]
fn sessions_over_tls_are_used_again_with_their_trust() {
    if !is_root("hosts with TLS") {
        return;
    }
    let mut network = Network::new();
    let authority = Authority::new();
    let (postfix, site, host) = with_tls(
        &mut network,
        &authority,
        &[
            "smtp_tls_security_level = secure",
            "smtp_tls_secure_cert_match = hostname",
            "smtp_destination_concurrency_limit = 2",
        ],
    );
    let mut smtp = host.smtp(host.ip);
    smtp.expect("EHLO client.example", 250);
    for number in 0..60 {
        let recipient = format!("user{number}@example.com");
        assert_eq!(smtp.message("joe@example.org", &[&recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
    }
    site.wait_for_empty_queue();
    site.wait_for_lines(&["relay=mx.example.com[192.0.2.10]:25", "status=sent"], 60);
    site.wait_for_log(&["conn_use=9", "status=sent"]);
    let established = site.log().matches("Verified TLS connection established").count();
    let connects = wait_for("Postfix's log", || {
        let log = postfix.log();
        (log.matches("status=sent").count() >= 60).then(|| {
            log.matches("connect from client.example.org").count() - log.matches("disconnect from").count()
        })
    });
    assert!(established < 30, "{established} handshakes, {connects} connections open");
    println!("60 messages over {established} encrypted connections");
}
