//! A journal record: what one delivery attempt for one recipient came to.
//!
//! `length u32, checksum u32, body`: a record that was cut off by a crash, or half overwritten, is told by its checksum
//! and ends the journal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::{Address, Dsn, Outcome, Served, Status};

use crate::format::fields::Fields;

/// What stands before a record's body.
pub(crate) const PREFIX: usize = 8;

/// The longest body a reader believes in.
pub(crate) const MAX_BODY: usize = 8192;

/// The longest text, relay and diagnostic that are kept; what is longer is cut at a character.
const MAX_TEXT: usize = 4096;
const MAX_RELAY: usize = 512;
const MAX_DIAGNOSTIC: usize = 2048;
const MAX_ADDRESS: usize = 1024;

/// The last second of the year 9999: times beyond are damage, and would overflow somewhere.
pub(crate) const LATEST: u64 = 253_402_300_799;

/// One delivery attempt for one recipient, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub time: SystemTime,
    /// The recipient's number.
    pub recipient: u32,
    /// What it came to.
    pub outcome: Outcome,
    /// When the recipient is tried again, if it is.
    pub next_attempt: Option<SystemTime>,
}

/// Appends the record of an attempt.
pub(crate) fn encode(attempt: &Attempt, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    out.extend_from_slice(&micros(attempt.time).to_le_bytes());
    out.extend_from_slice(&attempt.next_attempt.map_or(0, micros).to_le_bytes());
    out.extend_from_slice(&attempt.recipient.to_le_bytes());
    out.push(match attempt.outcome.status {
        Status::Sent => b'S',
        Status::Deferred => b'D',
        Status::Bounced => b'B',
    });
    push_text(out, &attempt.outcome.dsn.to_string(), usize::from(u8::MAX));
    push_text(out, &attempt.outcome.relay, MAX_RELAY);
    push_text(out, &attempt.outcome.text, MAX_TEXT);
    push_details(out, &attempt.outcome);
    let body = out.get(start + PREFIX..).unwrap_or_default();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(body);
    if let Some(prefix) = out.get_mut(start..start + PREFIX) {
        prefix[..4].copy_from_slice(&length.to_le_bytes());
        prefix[4..].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// What most outcomes have not, and the records of earlier versions neither.
fn push_details(out: &mut Vec<u8>, outcome: &Outcome) {
    let served = match outcome.served {
        Served::Delivered => b'.',
        Served::Relayed => b'R',
        Served::Expanded => b'E',
        Served::PassedOn => b'P',
    };
    let final_recipient = outcome.final_recipient.as_ref().map(Address::as_str);
    let plain = outcome.remote_mta.is_none() && outcome.diagnostic.is_none() && final_recipient.is_none();
    if served == b'.' && plain {
        return;
    }
    out.push(served);
    push_text(out, outcome.remote_mta.as_deref().unwrap_or_default(), MAX_RELAY);
    push_text(out, outcome.diagnostic.as_deref().unwrap_or_default(), MAX_DIAGNOSTIC);
    // Cut off, it would be another's address.
    if let Some(address) = final_recipient.filter(|address| address.len() <= MAX_ADDRESS) {
        push_text(out, address, MAX_ADDRESS);
    }
}

fn push_text(out: &mut Vec<u8>, text: &str, most: usize) {
    let text = &text[..text.floor_char_boundary(most)];
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Takes the record at the front of `bytes`: the attempt, and how many bytes it took. `None` is the journal's end, or
/// a torn record, which is the same.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Attempt, usize)> {
    let mut fields = Fields::new(bytes);
    let length = usize::try_from(fields.u32()?).ok().filter(|length| *length <= MAX_BODY)?;
    let checksum = fields.u32()?;
    let body = fields.bytes(length)?;
    if crc32fast::hash(body) != checksum {
        return None;
    }
    Some((decode_body(Fields::new(body))?, PREFIX + length))
}

fn decode_body(mut body: Fields<'_>) -> Option<Attempt> {
    let time = time(body.u64()?)?;
    let next_attempt = match body.u64()? {
        0 => None,
        micros => Some(self::time(micros)?),
    };
    let recipient = body.u32()?;
    let status = match body.u8()? {
        b'S' => Status::Sent,
        b'D' => Status::Deferred,
        b'B' => Status::Bounced,
        _ => return None,
    };
    let dsn: Dsn = take_text(&mut body)?.parse().ok()?;
    let (relay, text) = (take_text(&mut body)?.to_owned(), take_text(&mut body)?.to_owned());
    let mut outcome = match status {
        Status::Sent => Outcome { dsn, ..Outcome::sent(&relay, text) },
        Status::Deferred => Outcome { dsn, ..Outcome::deferred(&relay, dsn, text) },
        Status::Bounced => Outcome { dsn, ..Outcome::bounced(&relay, dsn, text) },
    };
    if !body.is_empty() {
        outcome.served = match body.u8()? {
            b'R' => Served::Relayed,
            b'E' => Served::Expanded,
            b'P' => Served::PassedOn,
            _ => Served::Delivered,
        };
        let details = [take_text(&mut body)?, take_text(&mut body)?];
        [outcome.remote_mta, outcome.diagnostic] =
            details.map(|text| (!text.is_empty()).then(|| text.to_owned()));
    }
    if !body.is_empty() {
        outcome.final_recipient = Some(Address::new(take_text(&mut body)?).ok()?);
    }
    Some(Attempt { time, recipient, outcome, next_attempt })
}

fn take_text<'a>(body: &mut Fields<'a>) -> Option<&'a str> {
    let length = body.u16()?;
    body.text(usize::from(length))
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn time(micros: u64) -> Option<SystemTime> {
    (micros / 1_000_000 <= LATEST).then(|| UNIX_EPOCH + Duration::from_micros(micros))
}
