//! The text of a delivery status notification: multipart/report (RFC 6522) with words for people, fields for
//! programs (RFC 3464) and the message it is about.
//!
//! Contract: pure; the time and the names of the host are handed in. The small parts are built in memory; the returned
//! message goes between [`Report::head`] and [`Report::tail`] and is never held here, so that its size does not matter.

mod status;
mod words;

use ipc::bounce::Kind;
use mail::{Address, Outcome, QueueId};
use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use crate::policy::Text;

/// RFC 2046 section 5.1.1.
const MAX_BOUNDARY: usize = 70;

/// For whom the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The envelope sender of the message.
    Sender,
    /// The postmaster, who gets a copy or what nobody else can be given.
    Postmaster,
}

/// How much of the message goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// All of it, as message/rfc822.
    Full,
    /// Its header, as text/rfc822-headers.
    Headers,
}

/// One recipient and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    /// Where the message was to go at last.
    pub(crate) address: Address,
    /// The address before aliases and rewriting, where it differs.
    pub(crate) original: Option<Address>,
    /// ORCPT as received (`rfc822;xtext`).
    pub(crate) orcpt: Option<String>,
    /// The result of the last attempt.
    pub(crate) outcome: Outcome,
    /// When that ended, where there was one.
    pub(crate) time: Option<jiff::Zoned>,
}

/// All that a report is made of, but for the message itself.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// What is reported.
    pub(crate) kind: Kind,
    /// Who reads it.
    pub(crate) reader: Reader,
    /// The queue id that the report itself will have.
    pub(crate) report_id: QueueId,
    /// To whom it goes.
    pub(crate) to: &'a Address,
    /// Now.
    pub(crate) now: jiff::Zoned,
    /// `myhostname`.
    pub(crate) hostname: &'a str,
    /// The mail system's name in the names of fields.
    pub(crate) label: &'a str,
    /// The text for people, and the headers that go with it.
    pub(crate) text: &'a Text,
    /// The message's queue id.
    pub(crate) queue_id: QueueId,
    /// The message's envelope sender.
    pub(crate) sender: &'a Address,
    /// When the message arrived.
    pub(crate) arrival: jiff::Zoned,
    /// ENVID as received (xtext).
    pub(crate) envid: Option<&'a str>,
    /// When a delayed message will be given up.
    pub(crate) retry_until: Option<jiff::Zoned>,
    /// The message was not to be delivered: it asked what would become of it.
    pub(crate) is_probe: bool,
    /// The recipients that are reported.
    pub(crate) recipients: &'a [Reported],
    /// How many more there are.
    pub(crate) unlisted: usize,
    /// How much of the message goes back.
    pub(crate) returned: Returned,
    /// The returned part contains bytes above 127.
    pub(crate) eight_bit: bool,
    /// The message needs SMTPUTF8, and so does the report (RFC 6533).
    pub(crate) smtputf8: bool,
}

/// The bytes of a report around the returned message, with LF line ends.
#[derive(Debug)]
pub(crate) struct Report {
    /// From the first header to the empty line before the returned message.
    pub(crate) head: Vec<u8>,
    /// What closes the MIME structure.
    pub(crate) tail: Vec<u8>,
    /// There are bytes above 127 somewhere, in the returned message or around it.
    pub(crate) eight_bit: bool,
}

impl Report {
    /// Builds the report.
    pub(crate) fn build(facts: &Facts<'_>) -> Self {
        // The id is new and belongs to this host and moment, so no message can contain the boundary already.
        let mut boundary = format!("{}/{}", facts.report_id, facts.hostname);
        boundary.truncate(boundary.floor_char_boundary(MAX_BOUNDARY));
        let (words, fields) = (words::body(facts), status::fields(facts));
        let eight_bit = facts.eight_bit || !words.is_ascii() || !fields.is_ascii();
        let parts = vec![words_part(facts, words), status_part(facts, fields), original_part(facts)];
        let report_type = ContentType::new("multipart/report").attribute("report-type", "delivery-status");
        let body = MimePart::new(report_type.attribute("boundary", boundary.as_str()), parts)
            .transfer_encoding(if eight_bit { "8bit" } else { "7bit" });
        let mut head = Vec::with_capacity(4096);
        headers(facts).body(body).serialize(&mut head);
        let mut head = with_line_feeds(&head);
        let tail = format!("\n--{boundary}--\n").into_bytes();
        debug_assert!(head.ends_with(&tail));
        head.truncate(head.len() - tail.len());
        Self { head, tail, eight_bit }
    }
}

/// The header fields above the MIME structure. A report to the sender has a null envelope sender; `Auto-Submitted`
/// (RFC 3834) tells those that look at headers only not to answer it.
fn headers<'a>(facts: &Facts<'a>) -> MessageBuilder<'a> {
    let (subject, submitted) = match facts.reader {
        Reader::Sender => (&facts.text.subject, "auto-replied"),
        Reader::Postmaster => (&facts.text.postmaster_subject, "auto-generated"),
    };
    MessageBuilder::new()
        .header("Date", Raw::new(rfc5322_date(&facts.now)))
        .header("From", Raw::new(facts.text.from.as_str()))
        .header("Subject", Raw::new(subject.as_str()))
        .header("To", Raw::new(status::one_line(&facts.to.to_path())))
        .header("Auto-Submitted", Raw::new(submitted))
        .header("MIME-Version", Raw::new("1.0"))
        // A queue id is not used again, so it needs no time beside it.
        .header("Message-ID", Raw::new(format!("<{}@{}>", facts.report_id, facts.hostname)))
}

/// What is added to the template's text may have characters that its character set lacks: then all of it is UTF-8, if it
/// can be.
fn words_part(facts: &Facts<'_>, text: Vec<u8>) -> MimePart<'static> {
    let is_plain = facts.text.charset.eq_ignore_ascii_case("us-ascii") && !text.is_ascii();
    let charset = if is_plain { "utf-8".to_owned() } else { facts.text.charset.clone() };
    let encoding = if text.is_ascii() { "7bit" } else { "8bit" };
    let kind = ContentType::new("text/plain").attribute("charset", charset);
    MimePart::new(kind, BodyPart::Binary(text.into()))
        .header("Content-Description", Raw::new("Notification"))
        .transfer_encoding(encoding)
}

fn status_part(facts: &Facts<'_>, fields: String) -> MimePart<'static> {
    let kind = if facts.smtputf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    let encoding = if fields.is_ascii() { "7bit" } else { "8bit" };
    MimePart::new(kind, BodyPart::Binary(fields.into_bytes().into()))
        .header("Content-Description", Raw::new("Delivery report"))
        .transfer_encoding(encoding)
}

/// The header of the last part; its empty body is where the message goes.
fn original_part(facts: &Facts<'_>) -> MimePart<'static> {
    let (kind, description) = match (facts.returned, facts.smtputf8) {
        (Returned::Full, false) => ("message/rfc822", words::returned_message(facts.kind)),
        (Returned::Full, true) => ("message/global", words::returned_message(facts.kind)),
        (Returned::Headers, false) => ("text/rfc822-headers", words::returned_headers(facts.kind)),
        (Returned::Headers, true) => ("message/global-headers", words::returned_headers(facts.kind)),
    };
    MimePart::new(kind, BodyPart::Binary([].as_slice().into()))
        .header("Content-Description", Raw::new(description))
        .transfer_encoding(if facts.eight_bit { "8bit" } else { "7bit" })
}

/// The `Return-Path:` that stands before what is returned, as in a mailbox.
pub(crate) fn return_path(sender: &Address, hostname: &str) -> String {
    if sender.is_null() {
        return format!("Return-Path: <MAILER-DAEMON@{hostname}>\n");
    }
    format!("Return-Path: <{}>\n", sender.to_path())
}

/// A date as RFC 5322 section 3.3 wants it.
fn rfc5322_date(time: &jiff::Zoned) -> String {
    let zone = time.strftime("%Z").to_string();
    mail::date::Date { time: time.timestamp().into(), offset: time.offset().seconds(), zone: &zone }
        .to_string()
}

fn with_line_feeds(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(line.strip_suffix(b"\r\n").unwrap_or(line));
        if line.ends_with(b"\r\n") {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests;
