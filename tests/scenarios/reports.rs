//! Reports to the sender and the postmaster, as the programs that read them see them.

mod relayed;

use std::collections::BTreeMap;

use scenarios::{Builder, Instance, messages, peer, run, wait_for};
use serde_json::Value;

use crate::site::{NOTE, greeted, only_mail, queue_id, usual};

/// A site whose messages are late after a second, and tried every second.
fn reporting() -> Builder {
    usual()
        .main("virtual_mailbox_domains = box.example.com")
        .main(
            "virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ } { sender@box.example.com = sender/ } \
             { postmaster@box.example.com = postmaster/ } }",
        )
        .main("bounce_notice_recipient = postmaster@box.example.com")
        .main("2bounce_notice_recipient = postmaster@box.example.com")
        .main("delay_notice_recipient = postmaster@box.example.com")
        .main("delay_warning_time = 1s")
        .main("minimal_backoff_time = 1s")
        .main("maximal_backoff_time = 1s")
        .main("queue_run_delay = 1s")
        .file(
            "aliases",
            "postmaster: $user\n\
             team: $user, ann@box.example.com\n\
             owned: $user, ann@box.example.com\n\
             owner-owned: $user\n\
             astray: no-such-user\n\
             broken: \"|echo out of order; exit 1\"\n\
             later: \"|exit 75\"\n",
        )
}

const SENDER: &str = "sender@box.example.com";

/// Sends a message with these parameters of MAIL FROM and RCPT TO, and gives its queue id.
fn ask(site: &Instance, sender: &str, mail: &str, recipients: &[(&str, &str)]) -> String {
    let mut client = greeted(site);
    client.expect(&format!("MAIL FROM:<{sender}> {mail}"), 250);
    for (recipient, parameters) in recipients {
        client.expect(&format!("RCPT TO:<{recipient}> {parameters}"), 250);
    }
    client.expect("DATA", 354);
    client.send_raw(NOTE.as_bytes());
    let reply = client.expect(".", 250);
    client.expect("QUIT", 221);
    queue_id(&reply.text())
}

/// What Python's email package finds in a message.
fn parse(mail: &str) -> Value {
    let mut python = peer("python3");
    python.args(["-c", include_str!("parse_report.py")]);
    serde_json::from_str(&run(python, mail.as_bytes()).ok().stdout).expect("JSON from Python")
}

/// All mail of a recipient, taken apart.
fn parsed(site: &Instance, user: &str) -> Vec<Value> {
    messages(&site.maildir(user)).iter().map(|mail| parse(&String::from_utf8_lossy(mail))).collect()
}

fn address_of<'a>(site: &'a Instance, name: &str) -> std::borrow::Cow<'a, str> {
    match name {
        "mailbox" => "ann@box.example.com".into(),
        "user" => format!("{}@example.com", site.user()).into(),
        "alias" => "admin@lists.example.com".into(),
        "aliases" => "all@lists.example.com".into(),
        "local" => "team@example.com".into(),
        name => format!("{name}@example.com").into(),
    }
}

#[test]
fn the_sender_is_told_what_rfc_3461_says() {
    let site = reporting().start();
    let table = include_str!("notify.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let rows: Vec<(&str, &str, &str)> = table
        .map(|line| {
            let (request, rest) = line.split_at(30);
            let (name, expected) = rest.split_once(' ').expect("a recipient");
            (request.trim(), name, expected.trim())
        })
        .collect();
    let mut late = Vec::new();
    for (number, (request, name, _)) in rows.iter().enumerate() {
        let id = ask(&site, SENDER, &format!("ENVID=row{number}"), &[(&address_of(&site, name), request)]);
        if *name == "later" {
            late.push(id);
        }
    }
    // When it waits for its fourth attempt, the report on the second is out.
    late.iter().for_each(|id| give_up_late(&site, id));
    site.wait_for_empty_queue();
    let mut told = told_of_rows(&site);
    for (number, (request, name, expected)) in rows.iter().enumerate() {
        let found = told.remove(&format!("row{number}")).unwrap_or_else(|| "nothing".to_owned());
        assert_eq!(found, *expected, "{request} {name}\n{}", site.log());
    }
    assert!(told.is_empty(), "{told:?}");
}

/// Waits until the second of the attempts is reported, and removes the message.
fn give_up_late(site: &Instance, id: &str) {
    let attempts =
        || site.log().lines().filter(|line| line.contains(id) && line.contains("status=deferred")).count();
    wait_for("attempts", || (attempts() >= 4).then_some(()));
    site.run("postsuper", &["-d", id], "").ok();
}

/// The actions in the sender's reports, by ENVID, in the order of the alphabet.
fn told_of_rows(site: &Instance) -> BTreeMap<String, String> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for report in parsed(site, "sender") {
        assert_eq!(report["defects"], 0, "{report}");
        let row = report["envid"].as_str().unwrap_or_default().to_owned();
        for recipient in report["recipients"].as_array().unwrap() {
            told.entry(row.clone()).or_default().push(recipient["action"].as_str().unwrap().to_owned());
        }
    }
    let sorted = |mut actions: Vec<String>| {
        actions.sort();
        actions.join(" ")
    };
    told.into_iter().map(|(row, actions)| (row, sorted(actions))).collect()
}

#[test]
fn a_report_has_the_fields_that_the_sender_gave() {
    let site = reporting().start();
    let recipients = [
        ("astray@example.com", "NOTIFY=FAILURE ORCPT=rfc822;Some+2BBody@elsewhere.example"),
        ("broken@example.com", ""),
        ("ann@box.example.com", "NOTIFY=NEVER"),
    ];
    let id = ask(&site, SENDER, "RET=HDRS ENVID=a+2Bb", &recipients);
    let mail = only_mail(&site, "sender");
    let report = parse(&mail);
    assert_eq!((&report["envid"], &report["queue_id"]), (&"a+b".into(), &id.as_str().into()), "{mail}");
    assert_eq!(report["reporting_mta"], "dns; mail.example.com");
    let [astray, broken] = &report["recipients"].as_array().unwrap()[..] else { panic!("{mail}") };
    assert_eq!(astray["original-recipient"], "rfc822;Some+Body@elsewhere.example");
    assert_eq!(astray["status"], "5.1.1");
    assert_eq!(broken["original-recipient"], "rfc822;broken@example.com");
    assert_eq!(broken["diagnostic-code"], "x-unix; out of order");
    for recipient in [astray, broken] {
        assert!(
            recipient["last-attempt-date"]
                .as_str()
                .is_some_and(|date| date.ends_with("(UTC)") || date.contains(':'))
        );
    }
    // Headers were asked for, and the return path is one.
    assert!(
        mail.contains("\n\nReturn-Path: <sender@box.example.com>\nReceived: from client.example"),
        "{mail}"
    );
    assert!(mail.contains("Content-Type: text/rfc822-headers") && !mail.contains("\nHello."), "{mail}");
}

#[test]
fn s_nail_reads_a_report() {
    let site = reporting().start();
    ask(&site, SENDER, "", &[("astray@example.com", "")]);
    only_mail(&site, "sender");
    let mut reader = site.command(&peer("s-nail").get_program().to_string_lossy());
    reader.args(["-n", "-R", "-f", &site.maildir("sender").display().to_string()]);
    let said = run(reader, b"headers\nprint 1\nquit\n").ok().stdout;
    assert!(said.contains("Undelivered Mail Returned to Sender"), "{said}");
    assert!(
        said.contains("(expanded from <astray@example.com>): unknown user:") && said.contains("Hello."),
        "{said}"
    );
}

#[test]
fn the_postmaster_gets_what_notify_classes_says() {
    let site = reporting().main("notify_classes = bounce, 2bounce, delay").start();
    ask(
        &site,
        SENDER,
        "",
        &[("astray@example.com", "NOTIFY=FAILURE"), ("broken@example.com", "NOTIFY=NEVER")],
    );
    let copies = site.wait_for_mail("postmaster", 1);
    let copy = String::from_utf8_lossy(&copies[0]).into_owned();
    assert!(copy.starts_with("Return-Path: <double-bounce@mail.example.com>\n"), "{copy}");
    assert!(copy.contains("\nSubject: Postmaster Copy: Undelivered Mail\n"), "{copy}");
    assert!(!copy.contains("This is the mail system") && !copy.contains("\nHello."), "{copy}");
    let report = parse(&copy);
    assert_eq!(
        (&report["auto_submitted"], report["recipients"].as_array().unwrap().len()),
        (&"auto-generated".into(), 2)
    );
    // A notification that cannot be delivered, whole; its failure is not reported again.
    ask(&site, "", "", &[("astray@example.com", "NOTIFY=NEVER")]);
    let double = wait_for("the second copy", || {
        let found = messages(&site.maildir("postmaster"));
        found.into_iter().find(|mail| String::from_utf8_lossy(mail).contains("\nHello."))
    });
    let double = String::from_utf8_lossy(&double).into_owned();
    assert!(double.contains("Sender: rfc822; MAILER-DAEMON@mail.example.com\n"), "{double}");
    site.wait_for_empty_queue();
    assert_eq!(messages(&site.maildir("postmaster")).len(), 2);
    let late = ask(&site, SENDER, "", &[("later@example.com", "NOTIFY=FAILURE")]);
    let warned = site.wait_for_log(&[&late, "postmaster delay notification"]);
    assert!(!warned.is_empty());
    site.run("postsuper", &["-d", &late], "").ok();
    site.wait_for_empty_queue();
    let warnings = messages(&site.maildir("postmaster"));
    assert!(warnings.iter().any(|mail| String::from_utf8_lossy(mail).contains("\nWill-Retry-Until: ")));
}

#[test]
fn the_postmaster_sees_what_was_said_in_a_session_that_went_wrong() {
    let site = reporting()
        .main("notify_classes = policy, protocol")
        .main("error_notice_recipient = postmaster@box.example.com")
        .start();
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect("FOO bar", 500);
    client.expect("RCPT TO:<ann@box.example.com>", 250);
    client.expect("QUIT", 221);
    let mail = only_mail(&site, "postmaster");
    assert!(mail.starts_with("Return-Path: <double-bounce@mail.example.com>\n"), "{mail}");
    assert!(mail.contains("\nSubject: Postroad SMTP server: errors from localhost[127.0.0.1]\n"), "{mail}");
    assert!(mail.contains("\n In:  FOO bar\n Out: 500 5.5.2 "), "{mail}");
    assert!(mail.contains("\n In:  QUIT\n Out: 221 2.0.0 Bye\n"), "{mail}");
    // Where nothing went wrong there is nothing to tell.
    ask(&site, SENDER, "", &[("ann@box.example.com", "")]);
    site.wait_for_mail("ann", 1);
    site.wait_for_empty_queue();
    assert_eq!(messages(&site.maildir("postmaster")).len(), 1);
}

#[test]
fn a_template_file_gives_reports_their_words() {
    let template = "failure_template = <<END\nCharset: utf-8\nFrom: Post office <postmaster>\nSubject: Came back\n\n\
                    Die Post von $mydomain grüßt: $maximal_queue_lifetime_days Tage, $$0.\nEND\n";
    let site =
        reporting().file("bounce.cf", template).main("bounce_template_file = $root/etc/bounce.cf").start();
    ask(&site, SENDER, "", &[("astray@example.com", "")]);
    let mail = only_mail(&site, "sender");
    assert!(mail.contains("\nFrom: Post office <postmaster@example.com>\nSubject: Came back\n"), "{mail}");
    assert!(mail.contains("\nDie Post von example.com grüßt: 5 Tage, $0.\n"), "{mail}");
    assert_eq!(parse(&mail)["defects"], 0, "{mail}");
    site.write("etc/bounce.cf", "failure_template = <<END\nSubject Came back\n");
    let checked = site.postroad(&["check"]);
    assert!(checked.stdout.contains("bounce.cf:1: failure_template: no line “END” ends it"), "{checked:?}");
}

#[test]
fn sendmail_asks_for_reports_on_the_first_attempt_and_on_none() {
    let site = reporting().start();
    let user = format!("{}@example.com", site.user());
    let recipients = [user.as_str(), "astray@example.com", "later@example.com", "broken@example.com", "team"];
    let arguments = |option: &'static str| [&[option, "-f", SENDER][..], &recipients].concat();
    let said = site.run("sendmail", &arguments("-bv"), "").ok().stdout;
    assert_eq!(said, format!("Mail Delivery Status Report will be mailed to <{SENDER}>.\n"));
    let actions = |report: &Value| {
        let recipients = report["recipients"].as_array().unwrap().iter();
        recipients.map(|recipient| recipient["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mail = only_mail(&site, "sender");
    let probe = parse(&mail);
    // Nothing is run, so that nobody knows that it would fail.
    let expected = ["deliverable", "undeliverable", "deliverable", "deliverable", "deliverable"];
    assert_eq!(actions(&probe), expected, "{mail}");
    assert!(mail.contains("\nSubject: Mail Delivery Status Report\n"), "{mail}");
    assert!(messages(&site.maildir(site.user())).is_empty() && messages(&site.maildir("ann")).is_empty());
    site.wait_for_log(&["status=deliverable (delivers to maildir)"]);
    site.wait_for_log(&["status=undeliverable (unknown user: \"no-such-user\")"]);

    site.run("sendmail", &arguments("-v"), NOTE).ok();
    site.wait_for_log(&["sender delay notification"]);
    let mut reports = parsed(&site, "sender");
    reports.retain(|report| actions(report).len() == recipients.len());
    // One more than the probe: later attempts are not traced.
    assert_eq!(reports.len(), 2, "{}", site.log());
    let trace = reports.iter().find(|report| actions(report) != expected).expect("the trace");
    assert_eq!(actions(trace), ["delivered", "failed", "delayed", "failed", "expanded"]);
}
