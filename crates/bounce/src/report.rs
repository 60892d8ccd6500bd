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

pub use status::{decode_xtext, encode_orcpt};

/// More recipients than this are counted, not listed, so that a list with a hundred thousand dead members makes a
/// report that somebody can read and that fits in memory.
pub const MAX_LISTED: usize = 10_000;

/// RFC 2046 section 5.1.1.
const MAX_BOUNDARY: usize = 70;

/// For whom the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The envelope sender of the message.
    Sender,
    /// The postmaster, who gets a copy or what nobody else can be given.
    Postmaster,
}

/// How much of the message goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// All of it, as message/rfc822.
    Full,
    /// Its header, as text/rfc822-headers.
    Headers,
}

/// One recipient and what became of it.
#[derive(Clone, Debug)]
pub struct Reported {
    /// Where the message was to go at last.
    pub address: Address,
    /// The address before aliases and rewriting, where it differs.
    pub original: Option<Address>,
    /// ORCPT as received (`rfc822;xtext`).
    pub orcpt: Option<String>,
    /// The result of the last attempt.
    pub outcome: Outcome,
}

/// All that a report is made of, but for the message itself.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What is reported.
    pub kind: Kind,
    /// Who reads it.
    pub reader: Reader,
    /// The queue id that the report itself will have.
    pub report_id: QueueId,
    /// To whom it goes.
    pub to: &'a Address,
    /// Now.
    pub now: jiff::Zoned,
    /// `myhostname`.
    pub hostname: &'a str,
    /// `myorigin`: the domain of MAILER-DAEMON.
    pub origin: &'a str,
    /// The message's queue id.
    pub queue_id: QueueId,
    /// The message's envelope sender.
    pub sender: &'a Address,
    /// When the message arrived.
    pub arrival: jiff::Zoned,
    /// ENVID as received (xtext).
    pub envid: Option<&'a str>,
    /// When a delayed message will be given up.
    pub retry_until: Option<jiff::Zoned>,
    /// The recipients that are reported.
    pub recipients: &'a [Reported],
    /// How much of the message goes back.
    pub returned: Returned,
    /// The returned part contains bytes above 127.
    pub eight_bit: bool,
    /// The message needs SMTPUTF8, and so does the report (RFC 6533).
    pub smtputf8: bool,
}

/// The bytes of a report around the returned message, with LF line ends.
#[derive(Debug)]
pub struct Report {
    /// From the first header to the empty line before the returned message.
    pub head: Vec<u8>,
    /// What closes the MIME structure.
    pub tail: Vec<u8>,
    /// There are bytes above 127 somewhere, in the returned message or around it.
    pub eight_bit: bool,
}

impl Report {
    /// Builds the report.
    #[must_use]
    pub fn build(facts: &Facts<'_>) -> Self {
        // The id is new and belongs to this host and moment, so no message can contain the boundary already.
        let mut boundary = format!("{}/{}", facts.report_id, facts.hostname);
        boundary.truncate(boundary.floor_char_boundary(MAX_BOUNDARY));
        let (words, fields) = (words::body(facts), status::fields(facts));
        let eight_bit = facts.eight_bit || !words.is_ascii() || !fields.is_ascii();
        let parts = vec![words_part(words), status_part(facts, fields), original_part(facts)];
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

/// The header fields above the MIME structure. The report has a null envelope sender; `Auto-Submitted` (RFC 3834) tells
/// those that look at headers only not to answer it.
fn headers<'a>(facts: &Facts<'a>) -> MessageBuilder<'a> {
    let stamp = facts.now.strftime("%Y%m%d%H%M%S");
    MessageBuilder::new()
        .header("Date", Raw::new(rfc5322_date(&facts.now)))
        .header("From", Raw::new(format!("Mail Delivery System <MAILER-DAEMON@{}>", facts.origin)))
        .header("Subject", Raw::new(words::subject(facts)))
        .header("To", Raw::new(facts.to.to_path()))
        .header("Auto-Submitted", Raw::new("auto-replied"))
        .header("Message-ID", Raw::new(format!("<{stamp}.{}@{}>", facts.report_id, facts.hostname)))
        .header("MIME-Version", Raw::new("1.0"))
}

fn words_part(text: String) -> MimePart<'static> {
    let (charset, encoding) = if text.is_ascii() { ("us-ascii", "7bit") } else { ("utf-8", "8bit") };
    let kind = ContentType::new("text/plain").attribute("charset", charset);
    MimePart::new(kind, BodyPart::Text(text.into()))
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
