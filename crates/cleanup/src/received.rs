//! The trace header that says how the message came to this host (RFC 5321 section 4.4).

use std::fmt::Write as _;

use mail::{Client, Envelope, Origin, QueueId};

use crate::clock::Clock;
use crate::rules::Rules;

/// Appends the `Received:` header. `envelope` is as the client gave it.
pub(crate) fn push(out: &mut String, rules: &Rules, id: QueueId, envelope: &Envelope, clock: &mut Clock) {
    let (host, name) = (rules.myhostname.as_str(), rules.mail_name.as_str());
    let date = clock.date(envelope.arrival);
    // Writing to a String cannot fail.
    let _ = match envelope.origin {
        Origin::Smtp { .. } => push_smtp(out, host, name, id, envelope, date),
        Origin::Local { uid } => {
            writeln!(out, "Received: by {host} ({name}, from userid {uid})\n\tid {id}; {date}")
        }
        Origin::Internal => writeln!(out, "Received: by {host} ({name})\n\tid {id}; {date}"),
    };
}

fn push_smtp(
    out: &mut String,
    host: &str,
    name: &str,
    id: QueueId,
    envelope: &Envelope,
    date: &str,
) -> std::fmt::Result {
    let client = &envelope.client;
    let helo = if client.helo.is_empty() { &client.name } else { &client.helo };
    let with = if client.protocol.is_empty() { "" } else { " with " };
    writeln!(
        out,
        "Received: from {} ({} [{}]){}\n\tby {host} ({name}){with}{} id {id}",
        Plain(helo),
        Plain(&client.name),
        address_literal(client),
        Comments(&client.tls),
        Plain(&client.protocol),
    )?;
    // The last line of the two cases begins at a different place.
    match &envelope.recipients[..] {
        [only] => writeln!(out, "\tfor <{}>; {date}", only.address.to_path()),
        _ => {
            out.truncate(out.trim_end().len());
            writeln!(out, ";\n\t{date}")
        }
    }
}

/// RFC 5321 section 4.1.3: an IPv6 address has a tag before it.
fn address_literal(client: &Client) -> String {
    let tag = if client.address.contains(':') { "IPv6:" } else { "" };
    format!("{tag}{}", Plain(&client.address))
}

/// What is known of the client's TLS, each line folded.
struct Comments<'a>(&'a str);

impl std::fmt::Display for Comments<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lines().try_for_each(|line| write!(f, "\n\t{}", Plain(line)))
    }
}

/// Text of a peer's without what could end the line or the header.
struct Plain<'a>(&'a str);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '?' } else { c }))
    }
}
