//! What a report says to people: the template's text, then who it is about.

use std::fmt::Write as _;

use ipc::bounce::Kind;

use super::{Facts, Reader, Reported};

/// No line of the text is longer, so that it is readable in every mail program.
const WIDTH: usize = 78;

/// The `Content-Description:` of a whole returned message.
pub(super) fn returned_message(kind: Kind) -> &'static str {
    match kind {
        Kind::Failure | Kind::Delay => "Undelivered Message",
        Kind::Success | Kind::Trace => "Message",
    }
}

/// The `Content-Description:` of a returned header.
pub(super) fn returned_headers(kind: Kind) -> &'static str {
    match kind {
        Kind::Failure | Kind::Delay => "Undelivered Message Headers",
        Kind::Success | Kind::Trace => "Message Headers",
    }
}

/// The text/plain part. The postmaster needs no words about it.
pub(super) fn body(facts: &Facts<'_>) -> Vec<u8> {
    let mut text = String::with_capacity(128 * facts.recipients.len());
    for recipient in facts.recipients {
        text.push('\n');
        text.push_str(&paragraph(facts.kind, recipient));
    }
    if facts.unlisted > 0 {
        let _ = writeln!(text, "\n... and {} more recipients that are not listed.", facts.unlisted);
    }
    match facts.reader {
        Reader::Sender => [facts.text.body.as_slice(), text.as_bytes()].concat(),
        Reader::Postmaster => text.into_bytes(),
    }
}

/// `<address> (expanded from <original>): reason`.
fn paragraph(kind: Kind, recipient: &Reported) -> String {
    let expanded = recipient
        .original
        .as_ref()
        .filter(|original| **original != recipient.address)
        .map_or_else(String::new, |original| format!(" (expanded from <{original}>)"));
    let reason = super::status::reason(kind, recipient);
    wrapped(&super::status::one_line(&format!("<{}>{expanded}: {reason}", recipient.address)))
}

/// Breaks text at blanks; the second and later lines are indented. A word longer than a line stays whole.
pub(super) fn wrapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16 + 1);
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push_str("\n    ");
            column = 4;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
    out
}
