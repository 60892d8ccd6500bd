//! The fields of message/delivery-status (RFC 3464), and of message/global-delivery-status (RFC 6533) where a message
//! needs SMTPUTF8.

use std::fmt::Write as _;

use ipc::bounce::Kind;
use mail::{Address, Outcome, Served, Status};

use super::{Facts, Reported, rfc5322_date, words::wrapped};

/// All fields: those of the message, then a group for each recipient.
pub(super) fn fields(facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(512 + 256 * facts.recipients.len());
    field(&mut out, "Reporting-MTA", &format!("dns; {}", facts.hostname));
    if let Some(envid) = facts.envid {
        field(&mut out, "Original-Envelope-Id", &decode_xtext(envid));
    }
    field(&mut out, &format!("X-{}-Queue-ID", facts.label), facts.queue_id.as_str());
    let sender = match facts.sender.is_null() {
        true => format!("rfc822; MAILER-DAEMON@{}", facts.hostname),
        false => typed(facts.sender, facts.smtputf8),
    };
    field(&mut out, &format!("X-{}-Sender", facts.label), &sender);
    field(&mut out, "Arrival-Date", &rfc5322_date(&facts.arrival));
    for recipient in facts.recipients {
        out.push('\n');
        recipient_fields(&mut out, facts, recipient);
    }
    if facts.smtputf8 { out } else { ascii_only(&out) }
}

/// RFC 3464 section 2.3, in the order of that section.
fn recipient_fields(out: &mut String, facts: &Facts<'_>, recipient: &Reported) {
    let outcome = &recipient.outcome;
    field(out, "Final-Recipient", &typed(&recipient.address, facts.smtputf8));
    field(out, "Original-Recipient", &original_recipient(recipient, facts.smtputf8));
    field(out, "Action", action(facts, outcome));
    field(out, "Status", &outcome.dsn.to_string());
    if let Some(host) = remote_mta(outcome) {
        field(out, "Remote-MTA", &format!("dns; {host}"));
    }
    field(out, "Diagnostic-Code", &diagnostic(facts, recipient));
    if let Some(time) = &recipient.time {
        field(out, "Last-Attempt-Date", &rfc5322_date(time));
    }
    if let (Kind::Delay, Some(time)) = (facts.kind, &facts.retry_until) {
        field(out, "Will-Retry-Until", &rfc5322_date(time));
    }
}

/// RFC 3464 section 2.3.3; the two words for probes are Postfix's.
fn action(facts: &Facts<'_>, outcome: &Outcome) -> &'static str {
    match (facts.kind, outcome.status) {
        (Kind::Failure, _) => "failed",
        (Kind::Delay, _) => "delayed",
        (Kind::Trace, Status::Sent) if facts.is_probe => "deliverable",
        (Kind::Trace, _) if facts.is_probe => "undeliverable",
        (Kind::Trace, Status::Deferred) => "delayed",
        (Kind::Trace, Status::Bounced) => "failed",
        // An alias that led to one mailbox is followed to its end.
        (Kind::Trace, _) if outcome.final_recipient.is_some() => "delivered",
        (Kind::Success | Kind::Trace, _) => match outcome.served {
            Served::Delivered => "delivered",
            Served::Relayed | Served::PassedOn => "relayed",
            Served::Expanded => "expanded",
        },
    }
}

/// Why, in one line. Where not only failures are told of, it says who had the message.
pub(super) fn reason(kind: Kind, recipient: &Reported) -> String {
    let outcome = &recipient.outcome;
    let is_known = !outcome.relay.is_empty() && outcome.relay != "none";
    // Where the members' mail went is none of the sender's business.
    let text = match (kind, outcome.served) {
        (Kind::Success, Served::Expanded) => "alias expanded",
        _ => &outcome.text,
    };
    match kind {
        Kind::Success | Kind::Trace if is_known => format!("delivery via {}: {text}", outcome.relay),
        _ => text.to_owned(),
    }
}

/// An address with its type (RFC 3464 section 2.3.1). What has other characters than ASCII is written as it is where the
/// report may have them, else in the form that RFC 6533 section 3 has for that.
fn typed(address: &Address, utf8: bool) -> String {
    let path = address.to_path();
    if address.is_ascii() {
        return format!("rfc822; {path}");
    }
    let form = if utf8 { path } else { utf8_addr_xtext(&path) };
    format!("utf-8; {form}")
}

/// `utf-8-addr-xtext` of RFC 6533 section 3.
fn utf8_addr_xtext(text: &str) -> String {
    text.chars().fold(String::with_capacity(2 * text.len()), |mut out, c| {
        if c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\') {
            out.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
        out
    })
}

/// What the sender wrote: ORCPT in plain text, else the address as it came.
fn original_recipient(recipient: &Reported, utf8: bool) -> String {
    if let Some((kind, value)) = recipient.orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
        let is_unicode = kind.eq_ignore_ascii_case("utf-8");
        let value = match (is_unicode, utf8) {
            (false, _) => decode_xtext(value),
            (true, true) => decode_utf8_addr(value),
            // Its ASCII form is what an ASCII report is to have.
            (true, false) if value.is_ascii() => value.to_owned(),
            (true, false) => utf8_addr_xtext(value),
        };
        return format!("{kind};{value}");
    }
    let original = recipient.original.as_ref().unwrap_or(&recipient.address);
    typed(original, utf8).replacen("; ", ";", 1)
}

/// The remote host: as the agent names it, else `host` of a relay `host[address]:port`. An agent of this host has no
/// brackets in its name.
fn remote_mta(outcome: &Outcome) -> Option<&str> {
    if let Some(host) = &outcome.remote_mta {
        return Some(host);
    }
    let (host, _) = outcome.relay.split_once('[')?;
    (!host.is_empty()).then_some(host)
}

/// RFC 3464 section 2.3.6: another program's words as they were, or ours.
fn diagnostic(facts: &Facts<'_>, recipient: &Reported) -> String {
    let outcome = &recipient.outcome;
    match (&outcome.diagnostic, remote_reply(outcome)) {
        (Some(diagnostic), _) => diagnostic.clone(),
        (None, Some(reply)) => format!("smtp; {reply}"),
        (None, None) => format!("X-{}; {}", facts.label, reason(facts.kind, recipient)),
    }
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
pub(super) fn decode_xtext(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes[at] == b'+').then(|| text.get(at + 1..at + 3)).flatten();
        match pair.filter(|pair| is_hex(pair)).and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
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

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Plain text of a utf-8-addr-xtext or utf-8-addr-unitext (RFC 6533 section 3): `\x{HEX}` is a character.
pub(super) fn decode_utf8_addr(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x{") {
        out.push_str(before);
        let coded = after.split_once('}');
        let digits = coded.map(|(digits, _)| digits).filter(|digits| is_hex(digits));
        let c = digits.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?));
        match (coded, c) {
            (Some((_, after)), Some(c)) => {
                out.push(c);
                rest = after;
            }
            _ => {
                out.push_str("\\x{");
                rest = after;
            }
        }
    }
    out + rest
}
