//! The envelope's records: a type byte, a 16-bit length, that many bytes.
//!
//! The records of the message come first, each at most once, in any order; then one record for each recipient, in the
//! order of their state bytes. Unknown types among the first are skipped, so that a later version may add some.

use std::time::Duration;

use mail::{Address, Body, Client, DsnReturn, Envelope, Forwarded, Notify, Origin, Recipient, Trace};

use crate::format::fields::Fields;
use crate::{Damage, QueueError};

const ARRIVAL: u8 = b'T';
const SENDER: u8 = b'S';
const ORIGIN: u8 = b'G';
const CLIENT_NAME: u8 = b'N';
const CLIENT_ADDRESS: u8 = b'A';
const CLIENT_PORT: u8 = b'P';
const CLIENT_HELO: u8 = b'H';
const CLIENT_PROTOCOL: u8 = b'X';
const SASL_METHOD: u8 = b'm';
const SASL_USERNAME: u8 = b'u';
const SASL_SENDER: u8 = b's';
const ENVID: u8 = b'I';
const CONTENT_FILTER: u8 = b'F';
const OPTIONS: u8 = b'O';
const TRACE: u8 = b'V';
const FORWARDED: u8 = b'W';
const RECIPIENT: u8 = b'R';

/// The size of what stands before a record's bytes.
pub(crate) const RECORD_PREFIX: usize = 3;

/// The largest record, prefix included: what a reader needs at hand to be sure of one.
pub(crate) const MAX_RECORD: usize = RECORD_PREFIX + u16::MAX as usize;

/// In a recipient's record: no such text.
const ABSENT: u16 = u16::MAX;

/// What is known about one recipient of a stored message, kept as one byte that is overwritten in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecipientState {
    /// To be delivered.
    Pending,
    /// Delivered, and the sender asked for a success report that has not been queued yet.
    Delivered,
    /// Failed for good, and the failure report has not been queued yet.
    Bounced,
    /// Nothing is owed any more.
    Done,
}

impl RecipientState {
    /// Any unknown byte is a recipient to deliver to: twice is better than never.
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            b'S' => Self::Delivered,
            b'B' => Self::Bounced,
            b'D' => Self::Done,
            _ => Self::Pending,
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Pending => b'.',
            Self::Delivered => b'S',
            Self::Bounced => b'B',
            Self::Done => b'D',
        }
    }
}

/// Writes the records of the message itself.
pub(crate) fn encode_message(envelope: &Envelope, out: &mut Vec<u8>) -> Result<(), QueueError> {
    let mut arrival = [0; 12];
    arrival[..8].copy_from_slice(&envelope.arrival.as_secs().to_le_bytes());
    arrival[8..].copy_from_slice(&envelope.arrival.subsec_nanos().to_le_bytes());
    push(out, ARRIVAL, &[&arrival], "arrival time")?;
    push(out, SENDER, &[envelope.sender.as_str().as_bytes()], "sender")?;
    let (kind, number) = match envelope.origin {
        Origin::Smtp { rewrite_headers } => (b'S', u32::from(rewrite_headers)),
        Origin::Local { uid } => (b'L', uid),
        Origin::Internal => (b'I', 0),
    };
    push(out, ORIGIN, &[&[kind], &number.to_le_bytes()], "origin")?;
    let body = match envelope.body {
        Body::Unspecified => b'.',
        Body::SevenBit => b'7',
        Body::EightBitMime => b'8',
    };
    let ret = match envelope.ret {
        None => b'.',
        Some(DsnReturn::Full) => b'F',
        Some(DsnReturn::Headers) => b'H',
    };
    let smtputf8 = if envelope.smtputf8 { b'U' } else { b'.' };
    push(out, OPTIONS, &[&[body, ret, smtputf8]], "options")?;
    if let Some(envid) = &envelope.envid {
        push(out, ENVID, &[envid.as_bytes()], "ENVID")?;
    }
    if let Some(filter) = &envelope.content_filter {
        push(out, CONTENT_FILTER, &[filter.as_bytes()], "content filter")?;
    }
    let trace = match envelope.trace {
        Trace::None => None,
        Trace::Deliveries => Some(b'D'),
        Trace::Probe => Some(b'P'),
        Trace::Verification => Some(b'V'),
    };
    trace.map_or(Ok(()), |letter| push(out, TRACE, &[&[letter]], "trace"))?;
    if let Some(forwarded) = &envelope.forwarded {
        encode_forwarded(forwarded, out)?;
    }
    encode_client(&envelope.client, out)
}

/// Letters, the port, and texts with their lengths.
fn encode_forwarded(forwarded: &Forwarded, out: &mut Vec<u8>) -> Result<(), QueueError> {
    const PART: &str = "forwarded client";
    let flag = |known: bool, letter: u8| if known { letter } else { b'.' };
    let mut record = vec![flag(forwarded.client.is_some(), b'C'), flag(forwarded.id.is_some(), b'I')];
    let none = Client::default();
    let client = forwarded.client.as_ref().unwrap_or(&none);
    record.extend_from_slice(&client.port.to_le_bytes());
    let id = forwarded.id.as_deref().unwrap_or_default();
    for text in [&client.name, &client.address, &client.helo, &client.protocol, id] {
        let length = u16::try_from(text.len()).map_err(|_| QueueError::Oversized(PART))?;
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(text.as_bytes());
    }
    push(out, FORWARDED, &[&record], PART)
}

fn encode_client(client: &Client, out: &mut Vec<u8>) -> Result<(), QueueError> {
    push_unless_empty(out, CLIENT_NAME, &client.name, "client name")?;
    push_unless_empty(out, CLIENT_ADDRESS, &client.address, "client address")?;
    push_unless_empty(out, CLIENT_HELO, &client.helo, "client HELO name")?;
    push_unless_empty(out, CLIENT_PROTOCOL, &client.protocol, "client protocol")?;
    push_unless_empty(out, SASL_METHOD, &client.sasl_method, "SASL method")?;
    push_unless_empty(out, SASL_USERNAME, &client.sasl_username, "SASL user name")?;
    push_unless_empty(out, SASL_SENDER, &client.sasl_sender, "SASL sender")?;
    if client.port != 0 {
        push(out, CLIENT_PORT, &[&client.port.to_le_bytes()], "client port")?;
    }
    Ok(())
}

/// Writes the record of one recipient: notify bits, three lengths, three texts.
pub(crate) fn encode_recipient(recipient: &Recipient, out: &mut Vec<u8>) -> Result<(), QueueError> {
    const PART: &str = "recipient";
    let address = recipient.address.as_str();
    let original = recipient.original.as_ref().map(Address::as_str);
    let orcpt = recipient.orcpt.as_deref();
    let length = |text: Option<&str>| match text {
        None => Ok(ABSENT),
        Some(text) => {
            u16::try_from(text.len()).ok().filter(|l| *l != ABSENT).ok_or(QueueError::Oversized(PART))
        }
    };
    let mut prefix = [0; 7];
    prefix[0] = recipient.notify.bits();
    prefix[1..3].copy_from_slice(&length(Some(address))?.to_le_bytes());
    prefix[3..5].copy_from_slice(&length(original)?.to_le_bytes());
    prefix[5..7].copy_from_slice(&length(orcpt)?.to_le_bytes());
    let texts = [address, original.unwrap_or_default(), orcpt.unwrap_or_default()];
    push(out, RECIPIENT, &[&prefix, texts[0].as_bytes(), texts[1].as_bytes(), texts[2].as_bytes()], PART)
}

fn push_unless_empty(out: &mut Vec<u8>, kind: u8, text: &str, part: &'static str) -> Result<(), QueueError> {
    if text.is_empty() { Ok(()) } else { push(out, kind, &[text.as_bytes()], part) }
}

fn push(out: &mut Vec<u8>, kind: u8, bytes: &[&[u8]], part: &'static str) -> Result<(), QueueError> {
    let size = bytes.iter().map(|b| b.len()).sum::<usize>();
    let length = u16::try_from(size).map_err(|_| QueueError::Oversized(part))?;
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    bytes.iter().for_each(|b| out.extend_from_slice(b));
    Ok(())
}

/// Takes the records of the message itself; the envelope it returns has no recipients.
pub(crate) fn decode_message(bytes: &[u8]) -> Result<Envelope, Damage> {
    let mut envelope = Envelope::new(Address::null(), Vec::new(), Duration::ZERO);
    let mut sender = None;
    let mut fields = Fields::new(bytes);
    while !fields.is_empty() {
        let (kind, record) = take_record(&mut fields).ok_or(Damage::Envelope("record beyond its end"))?;
        if kind == SENDER {
            sender = Some(text(record).and_then(|t| Address::new(t).ok()).ok_or(Damage::Envelope("sender"))?);
        } else {
            decode_record(&mut envelope, kind, record).ok_or(Damage::Envelope(name_of(kind)))?;
        }
    }
    envelope.sender = sender.ok_or(Damage::Envelope("no sender"))?;
    Ok(envelope)
}

fn decode_record(envelope: &mut Envelope, kind: u8, record: Fields<'_>) -> Option<()> {
    let mut record = record;
    match kind {
        ARRIVAL => {
            let (seconds, nanos) = (record.u64()?, record.u32().filter(|n| *n < 1_000_000_000)?);
            envelope.arrival = bounded_time(seconds, nanos)?;
        }
        ORIGIN => {
            let (kind, number) = (record.u8()?, record.u32()?);
            envelope.origin = match kind {
                b'S' => Origin::Smtp { rewrite_headers: number != 0 },
                b'L' => Origin::Local { uid: number },
                b'I' => Origin::Internal,
                _ => return None,
            };
        }
        OPTIONS => {
            envelope.body = match record.u8()? {
                b'7' => Body::SevenBit,
                b'8' => Body::EightBitMime,
                _ => Body::Unspecified,
            };
            envelope.ret = match record.u8()? {
                b'F' => Some(DsnReturn::Full),
                b'H' => Some(DsnReturn::Headers),
                _ => None,
            };
            envelope.smtputf8 = record.u8()? == b'U';
        }
        TRACE => {
            envelope.trace = match record.u8()? {
                b'D' => Trace::Deliveries,
                b'P' => Trace::Probe,
                b'V' => Trace::Verification,
                _ => return None,
            };
        }
        ENVID => envelope.envid = Some(text(record)?.to_owned()),
        CLIENT_NAME => text(record)?.clone_into(&mut envelope.client.name),
        CLIENT_ADDRESS => text(record)?.clone_into(&mut envelope.client.address),
        CLIENT_HELO => text(record)?.clone_into(&mut envelope.client.helo),
        CLIENT_PROTOCOL => text(record)?.clone_into(&mut envelope.client.protocol),
        CLIENT_PORT => envelope.client.port = record.u16()?,
        SASL_METHOD => text(record)?.clone_into(&mut envelope.client.sasl_method),
        SASL_USERNAME => text(record)?.clone_into(&mut envelope.client.sasl_username),
        SASL_SENDER => text(record)?.clone_into(&mut envelope.client.sasl_sender),
        CONTENT_FILTER => envelope.content_filter = Some(text(record)?.to_owned()),
        FORWARDED => envelope.forwarded = Some(decode_forwarded(record)?),
        RECIPIENT => return None,
        _ => {}
    }
    Some(())
}

fn decode_forwarded(record: Fields<'_>) -> Option<Forwarded> {
    let mut record = record;
    let (has_client, has_id) = (record.u8()? == b'C', record.u8()? == b'I');
    let port = record.u16()?;
    let mut next = || {
        let length = record.u16()?;
        text(Fields::new(record.bytes(usize::from(length))?)).map(str::to_owned)
    };
    let (name, address, helo, protocol, id) = (next()?, next()?, next()?, next()?, next()?);
    let client = Client { name, address, port, helo, protocol, ..Client::default() };
    Some(Forwarded { client: has_client.then_some(client), id: has_id.then_some(id) })
}

/// A time that can be added to the epoch without overflow: before the year 10000.
fn bounded_time(seconds: u64, nanos: u32) -> Option<Duration> {
    (seconds <= crate::format::attempt::LATEST).then(|| Duration::new(seconds, nanos))
}

/// Text without the control characters that would break a line of the log or of a listing.
fn text(record: Fields<'_>) -> Option<&str> {
    record.rest_as_text().filter(|text| !text.bytes().any(|b| matches!(b, 0 | b'\n' | b'\r')))
}

fn name_of(kind: u8) -> &'static str {
    match kind {
        ARRIVAL => "arrival time",
        ORIGIN => "origin",
        OPTIONS => "options",
        ENVID => "ENVID",
        TRACE => "trace",
        CLIENT_NAME => "client name",
        CLIENT_ADDRESS => "client address",
        CLIENT_HELO => "client HELO name",
        CLIENT_PROTOCOL => "client protocol",
        CLIENT_PORT => "client port",
        SASL_METHOD => "SASL method",
        SASL_USERNAME => "SASL user name",
        SASL_SENDER => "SASL sender",
        CONTENT_FILTER => "content filter",
        FORWARDED => "forwarded client",
        RECIPIENT => "recipient among the records of the message",
        _ => "record",
    }
}

/// Takes one record from the front, or nothing where it is cut off.
pub(crate) fn take_record<'a>(fields: &mut Fields<'a>) -> Option<(u8, Fields<'a>)> {
    let (kind, length) = (fields.u8()?, fields.u16()?);
    Some((kind, Fields::new(fields.bytes(usize::from(length))?)))
}

/// Takes a recipient's record apart.
pub(crate) fn decode_recipient(kind: u8, record: Fields<'_>) -> Result<Recipient, Damage> {
    const WRONG: Damage = Damage::Envelope("recipient");
    if kind != RECIPIENT {
        return Err(Damage::Envelope("other record among the recipients"));
    }
    let mut record = record;
    let mut take = || {
        let notify = Notify::from_bits(record.u8()?);
        let lengths = [record.u16()?, record.u16()?, record.u16()?];
        let address = Address::new(record.text(usize::from(lengths[0]))?).ok()?;
        let original = match lengths[1] {
            ABSENT => None,
            length => Some(Address::new(record.text(usize::from(length))?).ok()?),
        };
        let orcpt = match lengths[2] {
            ABSENT => None,
            length => Some(text(Fields::new(record.bytes(usize::from(length))?))?.to_owned()),
        };
        Some(Recipient { address, original, notify, orcpt })
    };
    take().ok_or(WRONG)
}
