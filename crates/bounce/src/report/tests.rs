//! Golden reports: `tests/reports/NAME.eml`, made anew with `UPDATE_GOLDEN=1`.

use std::path::Path;
use std::sync::LazyLock;

use mail::{Address, Dsn, Outcome, QueueId, Served};
use mail_parser::{MessageParser, MimeHeaders};

use super::status::{decode_utf8_addr, decode_xtext};
use super::*;
use crate::policy::tests::policy;
use crate::policy::{Classes, Policy};

const FULL: &str = "From: jane@example.com\nTo: a@example.net\nSubject: hello\n\nbody\n";

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn time(text: &str) -> jiff::Zoned {
    text.parse::<jiff::Timestamp>().unwrap().to_zoned(jiff::tz::TimeZone::UTC)
}

fn queue_id(text: &str) -> QueueId {
    text.parse().unwrap()
}

fn unknown_user(name: &str) -> Reported {
    let outcome = Outcome::bounced("local", Dsn::new(5, 1, 1), format!("unknown user: \"{name}\""));
    Reported {
        address: address(&format!("{name}@example.org")),
        original: None,
        orcpt: None,
        outcome,
        time: None,
    }
}

fn refused() -> Reported {
    let text = "host mx.example.net[192.0.2.25] said: 550 5.7.1 <a@example.net>: Recipient address rejected: the \
                mailbox of this person was closed\x07 long ago (in reply to RCPT TO command)";
    Reported {
        address: address("a@example.net"),
        original: Some(address("list@example.org")),
        orcpt: Some("rfc822;li+2Bst@example.org".into()),
        time: Some(time("2026-11-20T11:00:05Z")),
        outcome: Outcome::bounced("mx.example.net[192.0.2.25]:25", Dsn::new(5, 7, 1), text),
    }
}

fn text_of(kind: Kind) -> &'static Text {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| policy(Classes::default()));
    POLICY.text(kind)
}

fn facts<'a>(kind: Kind, sender: &'a Address, recipients: &'a [Reported]) -> Facts<'a> {
    Facts {
        kind,
        reader: Reader::Sender,
        report_id: queue_id("4hZZZZ0000z12345"),
        to: sender,
        now: time("2026-11-22T12:00:00Z"),
        hostname: "mail.example.org",
        label: "Postfix",
        text: text_of(kind),
        queue_id: queue_id("4hAAAA0000z12344"),
        sender,
        arrival: time("2026-11-20T11:00:00Z"),
        envid: None,
        retry_until: None,
        is_probe: false,
        recipients,
        unlisted: 0,
        returned: Returned::Full,
        eight_bit: false,
        smtputf8: false,
    }
}

/// The report with `original` in its place; also compared with the golden file.
fn checked(name: &str, facts: &Facts<'_>, original: &str) -> String {
    let report = Report::build(facts);
    let bytes = [report.head, original.as_bytes().to_vec(), report.tail].concat();
    let text = String::from_utf8(bytes).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reports/{name}.eml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
    text
}

#[test]
fn a_failure_report_has_words_fields_and_the_message() {
    let sender = address("jane doe@example.com");
    let recipients = [unknown_user("nobody"), refused()];
    let mut facts = facts(Kind::Failure, &sender, &recipients);
    facts.envid = Some("QQ+2B1");
    let text = checked("failure", &facts, FULL);
    let parsed = MessageParser::default().parse(text.as_bytes()).unwrap();
    let kind = parsed.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    assert_eq!(parsed.parts.len(), 4);
    let status = String::from_utf8_lossy(parsed.parts[2].contents()).into_owned();
    assert!(status.contains("Original-Envelope-Id: QQ+1\n"), "{status}");
    assert!(status.contains("Original-Recipient: rfc822;li+st@example.org\n"), "{status}");
    assert!(status.contains("Remote-MTA: dns; mx.example.net\n"), "{status}");
    assert!(status.contains("Diagnostic-Code: smtp; 550 5.7.1 <a@example.net>"), "{status}");
    assert!(!status.contains("in reply to") && !status.contains('\x07'), "{status}");
    let original = parsed.parts[3].message().unwrap();
    assert_eq!(original.subject(), Some("hello"));
    assert_eq!(original.body_text(0).unwrap().trim(), "body");
}

#[test]
fn a_delay_report_says_until_when() {
    let sender = address("jane@example.com");
    let mut waiting = unknown_user("busy");
    waiting.outcome =
        Outcome::deferred("none", Dsn::new(4, 4, 1), "connect to mx.example.net: Connection refused");
    let recipients = [waiting];
    let mut facts = facts(Kind::Delay, &sender, &recipients);
    facts.retry_until = Some(time("2026-11-25T11:00:00Z"));
    facts.returned = Returned::Headers;
    let text = checked("delay", &facts, "Subject: hello\n");
    assert!(text.contains("Will-Retry-Until: Wed, 25 Nov 2026 11:00:00 +0000"), "{text}");
}

#[test]
fn a_success_report_tells_delivered_from_relayed() {
    let sender = address("jane@example.com");
    let mut here = unknown_user("joe");
    here.outcome = Outcome::sent("local", "delivered to maildir");
    let mut there = refused();
    there.outcome = Outcome::sent("mx.example.net[192.0.2.25]:25", "250 2.0.0 Ok: queued as 123")
        .counted_as(Served::Relayed)
        .said_by("mx.example.net", Some("250 2.0.0 Ok: queued as 123"));
    let mut list = unknown_user("list");
    list.outcome = Outcome::sent("none", "alias expanded").counted_as(Served::Expanded);
    let recipients = [here, there, list];
    let mut facts = facts(Kind::Success, &sender, &recipients);
    facts.returned = Returned::Headers;
    let text = checked("success", &facts, "Subject: hello\n");
    assert!(text.contains("Action: delivered\n") && text.contains("Action: relayed\n"), "{text}");
    assert!(text.contains("Action: expanded\n"), "{text}");
}

#[test]
fn an_internationalised_report_follows_rfc_6533() {
    let sender = address("jürgen@example.com");
    let recipients = [unknown_user("größe")];
    let mut facts = facts(Kind::Failure, &sender, &recipients);
    (facts.smtputf8, facts.eight_bit) = (true, true);
    let text = checked("smtputf8", &facts, "Subject: grüß\n\nbody\n");
    assert!(text.contains("Content-Type: message/global-delivery-status\n"), "{text}");
    assert!(text.contains("Final-Recipient: utf-8; größe@example.org\n"), "{text}");
}

#[test]
fn the_postmaster_gets_a_copy_without_the_words_for_the_sender() {
    let (null, postmaster) = (Address::null(), address("postmaster@example.org"));
    let recipients = [unknown_user("nobody")];
    let mut facts = facts(Kind::Failure, &null, &recipients);
    (facts.reader, facts.to) = (Reader::Postmaster, &postmaster);
    let text = checked("postmaster", &facts, FULL);
    assert!(
        text.contains("Sender: rfc822; MAILER-DAEMON@mail.example.org\n")
            && !text.contains("This is the mail system"),
        "{text}"
    );
}

#[test]
fn a_report_counts_those_that_it_does_not_list() {
    let sender = address("jane@example.com");
    let recipients = [unknown_user("nobody")];
    let facts = Facts { unlisted: 5, ..facts(Kind::Failure, &sender, &recipients) };
    let text = String::from_utf8(Report::build(&facts).head).unwrap();
    assert!(text.contains("... and 5 more recipients"));
}

#[test]
fn a_trace_tells_of_all_and_a_probe_of_what_would_be() {
    let sender = address("jane@example.com");
    let mut recipients = [unknown_user("a"), unknown_user("b"), unknown_user("c")];
    recipients[1].outcome = Outcome::deferred("none", Dsn::new(4, 4, 1), "Connection refused");
    recipients[2].outcome = Outcome::sent("virtual", "delivers to maildir");
    let mut facts = facts(Kind::Trace, &sender, &recipients);
    facts.returned = Returned::Headers;
    let actions = |facts: &Facts<'_>| {
        let head = String::from_utf8(Report::build(facts).head).unwrap();
        let actions = head.lines().filter_map(|line| line.strip_prefix("Action: ")).map(str::to_owned);
        actions.collect::<Vec<_>>()
    };
    assert_eq!(actions(&facts), ["failed", "delayed", "delivered"]);
    facts.is_probe = true;
    assert_eq!(actions(&facts), ["undeliverable", "undeliverable", "deliverable"]);
    let text = checked("probe", &facts, "Subject: hello\n");
    assert!(text.contains("\n<c@example.org>: delivery via virtual: delivers to maildir\n"), "{text}");
    assert!(text.contains("X-Postfix; delivery via virtual: delivers to maildir\n"), "{text}");
}

#[test]
fn addresses_that_are_not_ascii_fit_into_an_ascii_report() {
    let sender = address("jürgen@example.com");
    let mut recipients = [unknown_user("größe"), unknown_user("b")];
    recipients[1].orcpt = Some("utf-8;b\\x{E9}@example.net".into());
    let mut facts = facts(Kind::Failure, &sender, &recipients);
    let head = |facts: &Facts<'_>| String::from_utf8(Report::build(facts).head).unwrap();
    let ascii = head(&facts);
    assert!(ascii.contains("Final-Recipient: utf-8; gr\\x{F6}\\x{DF}e@example.org\n"), "{ascii}");
    assert!(ascii.contains("Original-Recipient: utf-8;b\\x{E9}@example.net\n"), "{ascii}");
    facts.smtputf8 = true;
    assert!(head(&facts).contains("Original-Recipient: utf-8;bé@example.net\n"));
}

#[test]
fn control_characters_of_an_address_do_not_get_into_a_report() {
    let (sender, recipients) = (address("odd\x1b@example.com"), [unknown_user("a\x0bb\x07")]);
    let head = String::from_utf8(Report::build(&facts(Kind::Failure, &sender, &recipients)).head).unwrap();
    assert!(head.chars().all(|c| c == '\n' || !c.is_control()), "{head:?}");
}

#[test]
fn xtext_is_decoded() {
    assert_eq!(decode_xtext("a+2Bb+3Dc"), "a+b=c");
    assert_eq!(decode_xtext("a+b+++1"), "a+b+++1");
    assert_eq!(decode_utf8_addr("a\\x{E9}b\\x{+1}\\x{"), "aéb\\x{+1}\\x{");
}
