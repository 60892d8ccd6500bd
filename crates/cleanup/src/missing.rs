//! The header fields that a message must have (RFC 5322 section 3.6), added where they are missing.

use std::fmt::Write as _;

use ipc::log;
use mail::fields::{Kind, Seen};
use mail::{Address, QueueId};

use crate::clock::Clock;
use crate::rules::Rules;

/// What the added fields are made of.
pub(crate) struct Facts<'a> {
    pub(crate) id: QueueId,
    pub(crate) arrival: std::time::Duration,
    pub(crate) sender: &'a Address,
    /// The submitter's full name, where it is known.
    pub(crate) full_name: &'a str,
}

/// Appends `Message-Id:`, `Date:`, `From:` and a destination header, or in a resent message their `Resent-` forms, as far
/// as they were not seen.
pub(crate) fn push(out: &mut String, rules: &Rules, seen: Seen, facts: &Facts<'_>, clock: &mut Clock) {
    let resent = if seen.resent { "Resent-" } else { "" };
    // Writing to a String cannot fail.
    if seen.lacks(Kind::MessageId, Kind::ResentMessageId) {
        // A queue id is not used again, so it needs no time beside it.
        let identifier = format!("<{}@{}>", facts.id, rules.myhostname);
        let _ = writeln!(out, "{resent}Message-Id: {identifier}");
        if seen.resent {
            log::info!("{}: resent-message-id={identifier}", facts.id);
        } else {
            log::message_id(facts.id, &identifier);
        }
    }
    if seen.lacks(Kind::Date, Kind::ResentDate) {
        let _ = writeln!(out, "{resent}Date: {}", clock.date(facts.arrival));
    }
    if seen.lacks(Kind::From, Kind::ResentFrom) {
        let _ = writeln!(out, "{resent}From: {}", from(rules, facts));
    }
    if !seen.names_a_recipient() && !rules.undisclosed_recipients_header.is_empty() {
        let _ = writeln!(out, "{}", rules.undisclosed_recipients_header);
    }
}

fn from(rules: &Rules, facts: &Facts<'_>) -> String {
    if facts.sender.is_null() {
        return rules.mailer_daemon.to_path();
    }
    let address = facts.sender.to_path();
    let name: String = facts.full_name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    if name.is_empty() {
        address
    } else if rules.obsolete_from {
        format!("{address} ({})", escaped(name, &['(', ')', '\\']))
    } else if name.chars().all(|c| c == ' ' || !c.is_ascii() || is_atext(c)) {
        format!("{name} <{address}>")
    } else {
        format!("\"{}\" <{address}>", escaped(name, &['"', '\\']))
    }
}

/// RFC 5322 section 3.2.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
