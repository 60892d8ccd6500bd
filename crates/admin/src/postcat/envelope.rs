//! The envelope and the journal, with Postfix's names where it has one.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use mail::{Body, Client, DsnReturn, Forwarded, Origin};
use queue::{RecipientState, Stored, StoredRecipient};

use super::ShowError;

/// How many recipients are in memory at a time.
const SLICE: usize = 1000;

pub(super) fn write(stored: &Stored, out: &mut impl Write) -> Result<(), ShowError> {
    let (size, recipients) = (stored.content_size(), stored.recipient_count());
    writeln!(out, "message_size: {size:>15} {:>15} {recipients:>15}", stored.offsets()[2])?;
    writeln!(out, "message_arrival_time: {}", time(stored.arrival()))?;
    if stored.is_forced_to_expire() {
        writeln!(out, "forced_expire: yes")?;
    }
    if stored.delay_was_reported() {
        writeln!(out, "delay_reported: yes")?;
    }
    write_attributes(stored, out)?;
    writeln!(out, "sender: {}", stored.sender())?;
    let mut index = 0;
    while index < recipients {
        let slice = stored.recipients_from(index, SLICE)?;
        index = slice.last().map_or(u32::MAX, |recipient| recipient.index + 1);
        slice.iter().try_for_each(|recipient| write_recipient(recipient, out))?;
    }
    Ok(())
}

fn write_attributes(stored: &Stored, out: &mut impl Write) -> Result<(), ShowError> {
    let client = stored.client();
    let port = if client.port == 0 { String::new() } else { client.port.to_string() };
    let origin = match stored.origin() {
        Origin::Smtp { rewrite_headers: true } => "smtp, headers rewritten as local".into(),
        Origin::Smtp { rewrite_headers: false } => "smtp".into(),
        Origin::Local { uid } => format!("local, uid {uid}"),
        Origin::Internal => "internal".into(),
    };
    let body = match stored.body() {
        Body::Unspecified => "",
        Body::SevenBit => "7bit",
        Body::EightBitMime => "8bit",
    };
    let ret = match stored.ret() {
        None => "",
        Some(DsnReturn::Full) => "full",
        Some(DsnReturn::Headers) => "headers",
    };
    let attributes = [
        ("message_origin", origin.as_str()),
        ("log_client_name", &client.name),
        ("log_client_address", &client.address),
        ("log_client_port", &port),
        ("log_helo_name", &client.helo),
        ("log_protocol_name", &client.protocol),
        ("sasl_method", &client.sasl_method),
        ("sasl_username", &client.sasl_username),
        ("sasl_sender", &client.sasl_sender),
        ("dsn_envid", stored.envid().unwrap_or_default()),
        ("dsn_ret", ret),
        ("body_encoding", body),
        ("content_filter", stored.content_filter().unwrap_or_default()),
        ("smtputf8", if stored.smtputf8() { "yes" } else { "" }),
    ];
    write_values(&attributes, out)?;
    stored.envelope_without_recipients().forwarded.as_ref().map_or(Ok(()), |one| write_forwarded(one, out))
}

/// What XFORWARD said, under the names of its attributes.
fn write_forwarded(forwarded: &Forwarded, out: &mut impl Write) -> Result<(), ShowError> {
    let none = Client::default();
    let client = forwarded.client.as_ref().unwrap_or(&none);
    let port = if client.port == 0 { String::new() } else { client.port.to_string() };
    let attributes = [
        ("forwarded_client_name", client.name.as_str()),
        ("forwarded_client_address", &client.address),
        ("forwarded_client_port", &port),
        ("forwarded_helo_name", &client.helo),
        ("forwarded_protocol_name", &client.protocol),
        ("forwarded_ident", forwarded.id.as_deref().unwrap_or_default()),
    ];
    write_values(&attributes, out)
}

fn write_values(attributes: &[(&str, &str)], out: &mut impl Write) -> Result<(), ShowError> {
    for (name, value) in attributes.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "named_attribute: {name}={value}")?;
    }
    Ok(())
}

fn write_recipient(stored: &StoredRecipient, out: &mut impl Write) -> Result<(), ShowError> {
    let recipient = &stored.recipient;
    if let Some(orcpt) = &recipient.orcpt {
        writeln!(out, "named_attribute: dsn_orig_rcpt={orcpt}")?;
    }
    if recipient.notify.bits() != 0 {
        writeln!(out, "named_attribute: notify_flags={}", recipient.notify.bits())?;
    }
    if let Some(original) = &recipient.original {
        writeln!(out, "original_recipient: {original}")?;
    }
    let word = match stored.state {
        RecipientState::Pending => "recipient",
        RecipientState::Done => "done_recipient",
        RecipientState::Delivered => "delivered_recipient",
        RecipientState::Bounced => "bounced_recipient",
    };
    writeln!(out, "{word}: {}", recipient.address)?;
    Ok(())
}

/// One line for each attempt, oldest first.
pub(super) fn write_attempts(stored: &Stored, out: &mut impl Write) -> Result<(), ShowError> {
    for attempt in stored.journal() {
        let attempt = attempt.map_err(|error| super::read_failed(&error))?;
        let outcome = &attempt.outcome;
        write!(out, "{}: recipient {}, ", time(attempt.time), attempt.recipient)?;
        write!(out, "relay={}, dsn={}, status={} ", outcome.relay, outcome.dsn, outcome.status.as_str())?;
        write!(out, "({})", outcome.text)?;
        match attempt.next_attempt {
            Some(next) => writeln!(out, ", next attempt {}", time(next))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    time.to_zoned(ipc::log::zone()).strftime("%a %b %e %H:%M:%S %Y").to_string()
}
