//! What a report says to people.
//!
//! A person reads this who knows nothing of mail systems: first what happened, then to whom, then what they can do.

use std::fmt::Write as _;

use ipc::bounce::Kind;

use super::{Facts, MAX_LISTED, Reader, Reported, Returned};

/// No line of the text is longer, so that it is readable in every mail program.
const WIDTH: usize = 78;

/// The `Subject:` of the report.
pub(super) fn subject(facts: &Facts<'_>) -> &'static str {
    match (facts.kind, facts.reader) {
        (Kind::Failure, Reader::Sender) => "Undelivered Mail Returned to Sender",
        (Kind::Failure, Reader::Postmaster) => "Postmaster Copy: Undelivered Mail",
        (Kind::Delay, Reader::Sender) => "Delayed Mail (still being retried)",
        (Kind::Delay, Reader::Postmaster) => "Postmaster Warning: Delayed Mail",
        (Kind::Success, _) => "Successful Mail Delivery Report",
        (Kind::Trace, _) => "Mail Delivery Status Report",
    }
}

/// The `Content-Description:` of a whole returned message.
pub(super) fn returned_message(kind: Kind) -> &'static str {
    match kind {
        Kind::Failure => "Undelivered Message",
        Kind::Delay => "Delayed Message",
        Kind::Success | Kind::Trace => "Delivered Message",
    }
}

/// The `Content-Description:` of a returned header.
pub(super) fn returned_headers(kind: Kind) -> &'static str {
    match kind {
        Kind::Failure => "Undelivered Message Headers",
        Kind::Delay => "Delayed Message Headers",
        Kind::Success | Kind::Trace => "Message Headers",
    }
}

/// The text/plain part.
pub(super) fn body(facts: &Facts<'_>) -> String {
    let mut text = format!("This is the mail system at host {}.\n\n", facts.hostname);
    match facts.reader {
        Reader::Sender => text.push_str(&to_sender(facts)),
        Reader::Postmaster => text.push_str(&to_postmaster(facts)),
    }
    for recipient in facts.recipients.iter().take(MAX_LISTED) {
        text.push('\n');
        text.push_str(&paragraph(recipient));
    }
    let unlisted = facts.recipients.len().saturating_sub(MAX_LISTED);
    if unlisted > 0 {
        let _ = writeln!(text, "\n... and {unlisted} more recipients that are not listed.");
    }
    text
}

fn to_sender(facts: &Facts<'_>) -> String {
    let what_returns = match facts.returned {
        Returned::Full => "Your message is attached.",
        Returned::Headers => "The header of your message is attached.",
    };
    match facts.kind {
        Kind::Failure => format!(
            "Your message could not be delivered to the recipients below; it will not be\ntried again. The reason \
             follows each address. {what_returns}\n\nIf you need help, forward this whole report to <postmaster>.\n"
        ),
        Kind::Delay => {
            let until = facts.retry_until.as_ref().map_or_else(String::new, |time| {
                format!("It will be tried until {}.\n", super::rfc5322_date(time))
            });
            format!(
                "THIS IS ONLY A WARNING. YOU NEED NOT SEND YOUR MESSAGE AGAIN.\n\nYour message could not yet be \
                 delivered to the recipients below.\n{until}{what_returns}\n"
            )
        }
        Kind::Trace => "Enclosed is the mail delivery report that you requested.\n".into(),
        Kind::Success => format!(
            "Your message was delivered to the recipients below, or handed to a mail system\nthat sends no such \
             reports; in that case you may still hear of a failure later.\n{what_returns}\n"
        ),
    }
}

fn to_postmaster(facts: &Facts<'_>) -> String {
    let from = if facts.sender.is_null() { "the null sender".into() } else { format!("<{}>", facts.sender) };
    let what = match facts.kind {
        Kind::Failure => "could not be delivered",
        Kind::Delay => "is delayed",
        Kind::Success | Kind::Trace => "was delivered",
    };
    format!(
        "Message {} from {from}\n{what}. This copy is sent because notify_classes asks for it.\n",
        facts.queue_id
    )
}

/// `<address> (expanded from <original>): reason`.
fn paragraph(recipient: &Reported) -> String {
    let expanded = recipient
        .original
        .as_ref()
        .filter(|original| **original != recipient.address)
        .map_or_else(String::new, |original| format!(" (expanded from <{original}>)"));
    wrapped(&format!(
        "<{}>{expanded}: {}",
        recipient.address,
        super::status::one_line(&recipient.outcome.text)
    ))
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
