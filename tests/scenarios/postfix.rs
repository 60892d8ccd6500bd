//! The same conversations with real Postfix: what comes out differs only where `postfix-differences.txt` says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use scenarios::{Builder, Instance, Postfix, Sink, Smtp, is_root, peer, run, wait_for};

/// The differences that are meant to be.
const DIFFERENCES: &str = include_str!("postfix-differences.txt");

/// What both are told.
const SETTINGS: [&str; 18] = [
    "myhostname = mail.example.com",
    "mydomain = example.com",
    "myorigin = $mydomain",
    "mydestination = $myhostname, $mydomain, localhost",
    "mynetworks = 127.0.0.0/8",
    "inet_interfaces = 127.0.0.1",
    "alias_maps = inline:{ { team = games, ann@box.example.com }, { astray = no-such-user } }",
    "alias_database =",
    "mail_spool_directory = $root/mail/",
    "virtual_alias_domains = lists.example.com",
    "virtual_alias_maps = inline:{ { admin@lists.example.com = games } }",
    "virtual_mailbox_domains = box.example.com",
    "virtual_mailbox_base = $root/mail",
    "virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ } }",
    "virtual_uid_maps = static:5",
    "virtual_gid_maps = static:60",
    "virtual_minimum_uid = 1",
    "smtpd_error_sleep_time = 0",
];

fn both() -> (Instance, Postfix) {
    let builder = SETTINGS.iter().fold(Builder::new().as_root(), |builder, line| builder.main(line));
    // Ours are always long, and a Message-Id shows which kind made it.
    (builder.start(), Postfix::start(&[&SETTINGS[..], &["enable_long_queue_ids = yes"]].concat()))
}

/// What differs from run to run is named: queue ids, times, processes; and the name of the mail system.
fn normalized(text: &str) -> String {
    let mut python = peer("python3");
    python.args(["-c", include_str!("normalize.py")]);
    run(python, text.as_bytes()).ok().stdout
}

/// Compares the lines: each side's own must be those of the list, and no entry may be there for nothing.
fn compare(subject: &str, postroad: &str, postfix: &str) {
    let (ours, theirs) = (normalized(postroad), normalized(postfix));
    let only = |sign: &str, a: &str, b: &str| {
        let lines = a.lines().filter(|line| !b.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}")).collect::<BTreeSet<_>>()
    };
    let found = &only("+", &ours, &theirs) | &only("-", &theirs, &ours);
    let known = known(subject);
    assert!(
        found == known,
        "{subject}: found {found:#?}\nknown {known:#?}\nPostroad:\n{ours}\nPostfix:\n{theirs}"
    );
}

/// As [`compare`], and the lines that both have must be in the same order.
fn compare_in_order(subject: &str, postroad: &str, postfix: &str) {
    compare(subject, postroad, postfix);
    let (ours, theirs) = (normalized(postroad), normalized(postfix));
    let common = |a: &str, b: &str| {
        let lines = a.lines().filter(|line| b.lines().any(|other| other == *line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(common(&ours, &theirs), common(&theirs, &ours), "{subject}: the order");
}

/// The entries of a section of the list; comments are reasons.
fn known(subject: &str) -> BTreeSet<String> {
    let section = DIFFERENCES.split("\n[").find_map(|section| section.strip_prefix(&format!("{subject}]\n")));
    let lines = section.unwrap_or_default().lines();
    lines.filter(|line| line.starts_with("+ ") || line.starts_with("- ")).map(str::to_owned).collect()
}

/// Messages that leave a mail system something to do.
const MESSAGES: [(&str, &str); 5] = [
    (
        "a plain message",
        "From: Jane <jane@client.example>\r\nTo: ann@box.example.com\r\nSubject: note\r\n\r\nHello.\r\n",
    ),
    ("nothing but a body", "\r\nHello.\r\n"),
    (
        "incomplete addresses",
        "From: jane\r\nTo: ann, \"B, C\" <carl@host>, @route:x@y\r\nCc: undisclosed: ;\r\n\r\nHello.\r\n",
    ),
    ("headers that are no headers", "Subject: one\r\n two\r\nNo header here\r\n\r\nHello.\r\n"),
    (
        "headers that are given",
        "Return-Path: <x@y.example>\r\nReceived: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <a@b.example>\r\n\
         Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nBcc: carl@example.com\r\nResent-From: dora@example.com\r\n\
         Delivered-To: somebody@else.example\r\nX-Original-To: x\r\nContent-Length: 7\r\n\
         Subject: =?utf-8?q?gr=C3=BC?=\r\n\tfolded\r\n\r\nHello.\r\nFrom here on.\r\n",
    ),
];

fn exchange(mut client: Smtp, recipient: &str, content: &str) {
    client.expect("EHLO client.example", 250);
    assert_eq!(client.message("jane@client.example", &[recipient], content).code, 250);
    client.expect("QUIT", 221);
}

/// Waits for the only message of a Maildir, and takes it out.
fn take(maildir: &Path) -> String {
    wait_for(&format!("a message in {}", maildir.display()), || {
        let path = fs::read_dir(maildir.join("new")).ok()?.next()?.ok()?.path();
        let mail = fs::read(&path).ok()?;
        fs::remove_file(path).ok()?;
        Some(String::from_utf8_lossy(&mail).into_owned())
    })
}

#[test]
fn a_message_becomes_what_it_becomes_in_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    let (site, postfix) = both();
    for (name, content) in MESSAGES {
        for (recipient, mailbox) in
            [("ann@box.example.com", "mail/ann"), ("admin@lists.example.com", "mail/games")]
        {
            exchange(site.smtp(), recipient, content);
            exchange(postfix.smtp(), recipient, content);
            compare_in_order(
                &format!("{name}, to {recipient}"),
                &take(&site.path(mailbox)),
                &take(&postfix.path(mailbox)),
            );
        }
    }
}

#[test]
fn swaks_sees_what_it_sees_in_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    let (site, postfix) = both();
    let talk = |port: u16| {
        let port = port.to_string();
        let mut swaks = peer("swaks");
        swaks.args(["-s", "127.0.0.1", "-p", &port, "--helo", "client.example", "-f", "jane@client.example"]);
        swaks.args([
            "-t",
            "ann@box.example.com,bob@box.example.com",
            "--attach",
            "@/etc/hostname",
            "--hide-informational",
        ]);
        swaks.args(["--header", "Message-Id: <a@b.example>"]);
        let said = run(swaks, b"").stdout;
        let replies = said.lines().filter(|line| line.starts_with("<"));
        replies.fold(String::new(), |all, line| all + line + "\n")
    };
    compare_in_order("swaks: replies", &talk(site.port), &talk(postfix.port));
    compare_in_order("swaks: message", &take(&site.path("mail/ann")), &take(&postfix.path("mail/ann")));
}

#[test]
fn a_message_leaves_the_lines_in_the_log_that_it_leaves_in_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    let (site, postfix) = both();
    let content = MESSAGES[0].1;
    exchange(site.smtp(), "ann@box.example.com", content);
    exchange(postfix.smtp(), "ann@box.example.com", content);
    let refused = |mut client: Smtp| {
        client.expect("EHLO client.example", 250);
        client.expect("MAIL FROM:<jane@client.example>", 250);
        client.expect("RCPT TO:<bob@box.example.com>", 550);
    };
    refused(site.smtp());
    refused(postfix.smtp());
    let whole = |log: String| (log.contains(": removed") && log.contains("lost connection")).then_some(log);
    let (ours, theirs) =
        (wait_for("our log", || whole(site.log())), wait_for("Postfix's log", || whole(postfix.log())));
    // What each says at its start is its own affair; the order of two programs' lines is nobody's.
    let talk = |log: &str| {
        let mut lines: Vec<&str> =
            log.lines().filter(|line| line.contains("/smtpd[") || line.contains(": 4")).collect();
        lines.sort_by_key(|line| line.split("]: ").nth(1).map(str::to_owned));
        lines.join("\n")
    };
    compare_in_order("log", &talk(&ours), &talk(&theirs));
}

/// The report on a message to these recipients, without the prose, which is each one's own.
fn report(mut client: Smtp, recipients: &[&str], maildir: &Path) -> String {
    client.expect("EHLO client.example", 250);
    client.expect("MAIL FROM:<games@example.com> RET=HDRS ENVID=x1", 250);
    for recipient in recipients {
        client.expect(&format!("RCPT TO:{recipient}"), 250);
    }
    client.expect("DATA", 354);
    client.send_raw(MESSAGES[0].1.as_bytes());
    client.expect(".", 250);
    // Mail of another kind may be for the sender, too.
    let report = std::iter::repeat_with(|| take(maildir)).find(|mail| mail.contains("\nAuto-Submitted: "));
    let report = report.expect("a report");
    let (header, parts) = report.split_once("\n--").expect("parts");
    let (_, parts) = parts.split_once("\n--").expect("more than one part");
    format!("{header}\n--{parts}")
}

#[test]
fn a_report_says_what_it_says_in_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    let (site, postfix) = both();
    let cases: [(&str, &[&str]); 2] = [
        ("report", &["<astray@example.com> ORCPT=rfc822;a@b.example"]),
        (
            "success report",
            &[
                "<ann@box.example.com> NOTIFY=SUCCESS",
                "<admin@lists.example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x+2By@b.example",
                "<team@example.com> NOTIFY=SUCCESS",
            ],
        ),
    ];
    for (subject, recipients) in cases {
        let ours = report(site.smtp(), recipients, &site.path("mail/games"));
        let theirs = report(postfix.smtp(), recipients, &postfix.path("mail/games"));
        compare(subject, &ours, &theirs);
    }
}

#[test]
fn a_report_on_what_another_host_said_is_that_of_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    let next = Sink::offering(&[]);
    let route = format!("transport_maps = inline:{{ {{ far.test = smtp:[127.0.0.1]:{} }} }}", next.port);
    let more = [
        route.as_str(),
        "delay_warning_time = 1s",
        "minimal_backoff_time = 1s",
        "maximal_backoff_time = 1s",
        "queue_run_delay = 1s",
    ];
    let settings = [&SETTINGS[..], &more].concat();
    let builder = settings.iter().fold(Builder::new().as_root(), |builder, line| builder.main(line));
    let site = builder.master("smtp unix - - n - - smtp").start();
    let postfix = Postfix::start(&[&settings[..], &["enable_long_queue_ids = yes"]].concat());
    for (subject, recipient) in [
        ("remote failure", "<nobody@far.test> NOTIFY=FAILURE"),
        ("relayed", "<box@far.test> NOTIFY=SUCCESS ORCPT=rfc822;x+2By@b.example"),
        ("remote delay", "<later@far.test> NOTIFY=DELAY"),
    ] {
        let ours = report(site.smtp(), &[recipient], &site.path("mail/games"));
        let theirs = report(postfix.smtp(), &[recipient], &postfix.path("mail/games"));
        compare(subject, &ours, &theirs);
    }
}

#[test]
fn recipients_count_in_the_log_as_in_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    let more = [
        "alias_maps = inline:{ { later = \"|exit 75\" } }",
        "minimal_backoff_time = 1s",
        "maximal_backoff_time = 1s",
        "queue_run_delay = 1s",
    ];
    let settings = [&SETTINGS[..], &more].concat();
    let builder = settings.iter().fold(Builder::new().as_root(), |builder, line| builder.main(line));
    let site = builder.start();
    let postfix = Postfix::start(&[&settings[..], &["enable_long_queue_ids = yes"]].concat());
    let exchange = |mut client: Smtp, recipients: &[&str]| {
        client.expect("EHLO client.example", 250);
        client.expect("MAIL FROM:<counted@client.example>", 250);
        for recipient in recipients {
            client.expect(&format!("RCPT TO:{recipient}"), 250);
        }
        client.expect("DATA", 354);
        client.send_raw(MESSAGES[0].1.as_bytes());
        client.expect(".", 250);
    };
    // What was expanded on arrival is not counted, what is done still is.
    let counts = |log: String, attempts: usize| {
        let lines = log.lines().filter(|line| line.contains("from=<counted@client.example>"));
        let counts: Vec<String> =
            lines.filter_map(|line| Some(line.split_once("nrcpt=")?.1.to_owned())).take(attempts).collect();
        (counts.len() == attempts).then_some(counts)
    };
    for (recipients, attempts) in [
        (&["<admin@lists.example.com> NOTIFY=SUCCESS", "<ann@box.example.com>"][..], 1),
        (&["<ann@box.example.com>", "<later@example.com>"], 3),
    ] {
        exchange(site.smtp(), recipients);
        exchange(postfix.smtp(), recipients);
        let ours = wait_for("our log", || counts(site.log(), attempts));
        let theirs = wait_for("Postfix's log", || counts(postfix.log(), attempts));
        assert_eq!(ours, theirs, "{recipients:?}");
    }
}
