//! Peers that die at each stage, by closing, by a reset, in silence: what was not acknowledged is where it was, nothing is
//! seen in part, and only what died between the end of the content and its reply may come twice. Clients that fall silent
//! are in `hostile`, what the log says of servers that go in `relay_stages`.

use std::collections::BTreeMap;

use scenarios::{Scripted, Smtp, messages, wait_for};

use crate::site::{greeted, send, usual};

const ANN: &str = "ann@box.example.com";

/// The mark that a message is known by, and its last line.
const MARK: &str = "X-Mark: ";
const END: &str = "The end.";

/// What a client has said when it dies, the last of it without an answer, and what the log says it was at.
const CLIENT_STAGES: [(&[&str], &str, &str); 9] = [
    (&[], "", "CONNECT"),
    (&[], "MAIL FROM:<>", "EHLO"),
    (&["MAIL FROM:<>"], "RC", "MAIL"),
    (&["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>"], "", "RCPT"),
    (&["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>", "DATA"], "", "DATA"),
    (&["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>", "DATA"], "Subject: half\r\n\r\nhal", "DATA"),
    (&["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>", "DATA"], "Subject: half\r\n\r\nhalf\r\n.", "DATA"),
    (&["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>"], "BDAT 1000\r\nhalf", "BDAT"),
    (&["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>", "BDAT 6\r\nhalf"], "", "BDAT"),
];

fn die(client: Smtp, by_reset: bool) {
    if by_reset { client.reset() } else { drop(client) }
}

#[test]
fn of_clients_that_die_before_the_end_nothing_is_left() {
    let site = usual().start();
    for by_reset in [false, true] {
        for (lines, more, at) in CLIENT_STAGES {
            let mut client = if at == "CONNECT" { site.smtp() } else { greeted(&site) };
            for line in lines {
                let reply = client.command(line);
                assert!(reply.code < 400, "{line}: {reply:?}");
            }
            client.send_raw(more.as_bytes());
            die(client, by_reset);
        }
    }
    for (at, count) in CLIENT_STAGES.iter().fold(BTreeMap::new(), |mut counts, (_, _, at)| {
        *counts.entry(*at).or_insert(0) += 2;
        counts
    }) {
        site.wait_for_lines(&[&format!("lost connection after {at}")], count);
    }
    site.wait_for_empty_queue();
    assert!(messages(&site.maildir("ann")).is_empty());
    assert!(!site.log().contains("panicked"), "{}", site.log());
}

#[test]
fn a_message_whose_client_dies_before_the_reply_comes_whole_or_not_at_all() {
    let site = usual().start();
    let text = "0123456789 0123456789\r\n".repeat(2000);
    let content = |mark: usize| format!("{MARK}{mark}\r\n\r\n{text}{END}\r\n");
    for mark in 0..20 {
        let mut client = greeted(&site);
        client.expect("MAIL FROM:<>", 250);
        client.expect(&format!("RCPT TO:<{ANN}>"), 250);
        let content = content(mark);
        if mark % 4 < 2 {
            client.expect("DATA", 354);
            client.send_raw(format!("{content}.\r\n").as_bytes());
        } else {
            client.send_raw(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
        }
        die(client, mark % 2 == 1);
    }
    // What was closed in order has come whole; of what was reset the server may have seen anything.
    site.wait_for_mail("ann", 10);
    wait_for("all sessions to end", || (site.log().matches("disconnect from").count() == 20).then_some(()));
    site.wait_for_empty_queue();
    let mut found = BTreeMap::new();
    for mail in messages(&site.maildir("ann")) {
        let mail = String::from_utf8_lossy(&mail).into_owned();
        let mark =
            mail.lines().find_map(|line| line.strip_prefix(MARK)).map(str::to_owned).unwrap_or_default();
        assert!(mail.ends_with(&format!("{END}\n")) && mail.len() > 2000 * 20, "{mark} came in part");
        *found.entry(mark).or_insert(0) += 1;
    }
    let closed = (0..20).filter(|mark| mark % 2 == 0).map(|mark| mark.to_string());
    let missing: Vec<String> = closed.filter(|mark| !found.contains_key(mark)).collect();
    assert!(
        missing.is_empty() && found.values().all(|times| *times == 1),
        "{missing:?} {found:?}\n{}",
        site.log()
    );
}

/// Where servers die, and how.
const SERVER_STAGES: [&str; 8] = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT", ".", "BDAT"];
const DEATHS: [&str; 3] = ["!", "!!", "..."];

/// The middle of content comes before its end only where it does not fit into buffers on the way.
const LARGE: usize = 200_000;

#[test]
fn mail_waits_for_servers_that_die_and_comes_once() {
    const CHUNKING: (&str, &str) = ("EHLO", "250-s.example\n250-8BITMIME\n250 CHUNKING");
    let cases: Vec<(&str, &str, bool)> = [false, true]
        .into_iter()
        .flat_map(|chunks| SERVER_STAGES.map(|stage| (stage, chunks)))
        .filter(|(stage, chunks)| match *stage {
            "CONTENT" => true,
            "BDAT" => *chunks,
            _ => !*chunks,
        })
        .flat_map(|(stage, chunks)| DEATHS.map(|death| (stage, death, chunks)))
        .collect();
    let usually = |chunks: bool| if chunks { vec![CHUNKING] } else { Vec::new() };
    let servers: Vec<Scripted> = cases
        .iter()
        .map(|(stage, death, chunks)| Scripted::start(&[usually(*chunks), vec![(*stage, *death)]].concat()))
        .collect();
    let routes: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(n, server)| format!("{{ d{n}.example = smtp:[127.0.0.1]:{} }}", server.address.port()))
        .collect();
    let limits = ["helo", "mail", "rcpt", "data_init", "data_xfer", "data_done"]
        .map(|of| format!("smtp_{of}_timeout = 15s"));
    let site = usual()
        .main(&format!("transport_maps = inline:{{ {} }}", routes.join(", ")))
        .main(&limits.join("\n"))
        .main("smtp_connection_cache_on_demand = no")
        .master("smtp unix - - n - - smtp")
        .start();
    let sender = format!("{}@example.com", site.user());
    for (n, (stage, _, _)) in cases.iter().enumerate() {
        let lines = if *stage == "CONTENT" { LARGE } else { 10 };
        let content = format!("{MARK}{n}\r\n\r\n{}{END}\r\n", "0123456789 0123456789\r\n".repeat(lines));
        send(&site, &sender, &[&format!("joe@d{n}.example")], &content);
    }
    for (n, (stage, death, chunks)) in cases.iter().enumerate() {
        let line = site.wait_for_log(&[&format!("to=<joe@d{n}.example>"), "status=deferred"]);
        let why = if *death == "..." { " timed out while " } else { "(lost connection with " };
        let at_end = if [".", "BDAT"].contains(stage) { "may be sent more than once" } else { "while" };
        assert!(line.contains(why) && line.contains(at_end), "{stage} {death} {chunks}: {line}");
    }
    for (server, (_, _, chunks)) in servers.iter().zip(&cases) {
        server.say(&usually(*chunks));
    }
    site.try_all();
    for n in 0..cases.len() {
        site.wait_for_log(&[&format!("to=<joe@d{n}.example>"), "status=sent"]);
    }
    site.wait_for_empty_queue();
    for (n, (server, case)) in servers.iter().zip(&cases).enumerate() {
        let whole = server.count(&format!("{END}\r\n"));
        let log = site.log();
        let may_be = log.lines().filter(|line| {
            line.contains(&format!("to=<joe@d{n}.example>"))
                && (line.contains("status=sent") || line.contains("may be sent more than once"))
        });
        assert!((1..=may_be.count()).contains(&whole), "{case:?} got it {whole} times:\n{log}");
    }
}
