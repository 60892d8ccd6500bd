//! The fields of message/delivery-status (RFC 3464), and of message/global-delivery-status (RFC 6533) where a message
//! needs SMTPUTF8.

use std::fmt::Write as _;

use ipc::bounce::Kind;
use mail::{Address, Outcome};

use super::{Facts, MAX_LISTED, Reported, rfc5322_date, words::wrapped};

/// All fields: those of the message, then a group for each recipient.
pub(super) fn fields(facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(512 + 256 * facts.recipients.len().min(MAX_LISTED));
    field(&mut out, "Reporting-MTA", &format!("dns; {}", facts.hostname));
    if let Some(envid) = facts.envid {
        field(&mut out, "Original-Envelope-Id", &decode_xtext(envid));
    }
    field(&mut out, "X-Postroad-Queue-ID", facts.queue_id.as_str());
    field(&mut out, "X-Postroad-Sender", &typed(facts.sender));
    field(&mut out, "Arrival-Date", &rfc5322_date(&facts.arrival));
    for recipient in facts.recipients.iter().take(MAX_LISTED) {
        out.push('\n');
        recipient_fields(&mut out, facts, recipient);
    }
    if facts.smtputf8 { out } else { ascii_only(&out) }
}

fn recipient_fields(out: &mut String, facts: &Facts<'_>, recipient: &Reported) {
    let outcome = &recipient.outcome;
    field(out, "Final-Recipient", &typed(&recipient.address));
    if let Some(original) = original_recipient(recipient) {
        field(out, "Original-Recipient", &original);
    }
    field(out, "Action", action(facts.kind, outcome));
    field(out, "Status", &outcome.dsn.to_string());
    if let Some(host) = remote_host(outcome) {
        field(out, "Remote-MTA", &format!("dns; {host}"));
    }
    let code = match remote_reply(outcome) {
        Some(reply) => format!("smtp; {reply}"),
        None => format!("X-Postroad; {}", outcome.text),
    };
    field(out, "Diagnostic-Code", &code);
    if let (Kind::Delay, Some(time)) = (facts.kind, &facts.retry_until) {
        field(out, "Will-Retry-Until", &rfc5322_date(time));
    }
}

/// RFC 3464 section 2.3.3. What went over the network was relayed: the next host made no promise to report.
fn action(kind: Kind, outcome: &Outcome) -> &'static str {
    match kind {
        Kind::Failure => "failed",
        Kind::Delay => "delayed",
        Kind::Success if remote_host(outcome).is_some() => "relayed",
        Kind::Success | Kind::Trace => "delivered",
    }
}

/// An address with its type: RFC 3464 section 2.3.1, RFC 6533 section 3.
fn typed(address: &Address) -> String {
    let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
    format!("{kind}; {}", address.to_path())
}

/// What the sender wrote: ORCPT in plain text, else the address before expansion, where it is known.
fn original_recipient(recipient: &Reported) -> Option<String> {
    if let Some((kind, value)) = recipient.orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
        return Some(format!("{kind};{}", decode_xtext(value)));
    }
    recipient.original.as_ref().map(|original| format!("rfc822;{}", original.to_path()))
}

/// `host` of a relay `host[address]:port`. An agent of this host has no brackets in its name.
fn remote_host(outcome: &Outcome) -> Option<&str> {
    let (host, _) = outcome.relay.split_once('[')?;
    (!host.is_empty()).then_some(host)
}

/// The remote server's own words out of `host NAME[ADDRESS] said: REPLY (in reply to …)`.
fn remote_reply(outcome: &Outcome) -> Option<&str> {
    let (_, reply) = outcome.text.split_once(" said: ")?;
    let reply = reply.rsplit_once(" (in reply to ").map_or(reply, |(reply, _)| reply);
    reply.starts_with(|c: char| c.is_ascii_digit()).then_some(reply)
}

/// One field; a long one is folded. Control characters cannot get in, whatever a peer said.
fn field(out: &mut String, name: &str, value: &str) {
    let line = format!("{name}: {}", one_line(value));
    out.push_str(&wrapped(&line));
}

/// The same text without control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// message/delivery-status is ASCII (RFC 3464 section 2.1); what does not fit is told by a question mark.
fn ascii_only(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// Plain text of an xtext (RFC 3461 section 4): `+HH` is a byte. A `+` that begins no such pair stays.
#[must_use]
pub fn decode_xtext(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes[at] == b'+').then(|| text.get(at + 1..at + 3)).flatten();
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `rfc822;xtext` for an address, as ORCPT carries it (RFC 3461 section 4.2).
#[must_use]
pub fn encode_orcpt(address: &Address) -> String {
    let mut out = String::from("rfc822;");
    for byte in address.as_str().bytes() {
        if (b'!'..=b'~').contains(&byte) && byte != b'+' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "+{byte:02X}");
        }
    }
    out
}
