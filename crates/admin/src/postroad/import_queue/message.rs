//! A message in Postfix's queue: what its records say.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use mail::{Address, Body, DsnReturn, Envelope, Notify, Origin, Recipient, Trace};

use super::record::{Record, Records, damaged};

/// What a file comes to.
#[derive(Debug)]
pub(super) enum Found {
    /// A message that is still owed to somebody.
    Message(Box<Message>),
    /// Nothing is owed any more; and why.
    Nothing(&'static str),
}

/// A message without its content.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) envelope: Envelope,
    pub(super) full_name: String,
    /// `VERP` delimiters were asked for, which are not taken over.
    pub(super) has_verp: bool,
}

/// Where in the file a record stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Envelope,
    Content,
    Extracted,
}

/// What stands before a recipient and is about it.
#[derive(Default)]
struct About {
    original: Option<String>,
    orcpt: Option<String>,
    notify: u8,
}

struct Reading {
    message: Message,
    has_sender: bool,
    has_arrival: bool,
    segment: Segment,
    about: About,
    redirect: Option<Address>,
    done: Vec<Recipient>,
    killed: bool,
}

/// Reads the envelope of a file. `failed` are recipients whose failure was not reported yet: they are tried once more, so
/// that the sender hears of it.
pub(super) fn read(file: &File, failed: &[String], uid: u32) -> io::Result<Found> {
    let mut records = Records::of(file)?;
    let mut reading = Reading::new(uid);
    loop {
        let record = records.next()?;
        if record.kind == b'E' {
            break;
        }
        reading.take(&record)?;
    }
    reading.finish(failed)
}

/// Copies the content of a file, lines ended by LF.
pub(super) fn copy_content(file: &File, out: &mut impl Write) -> io::Result<u64> {
    let mut records = Records::of(file)?;
    let mut is_content = false;
    let mut size = 0;
    loop {
        let record = records.next()?;
        match (record.kind, is_content) {
            (b'M', false) => is_content = true,
            (b'N', true) => {
                out.write_all(&record.data)?;
                out.write_all(b"\n")?;
                size += record.data.len() as u64 + 1;
            }
            (b'L', true) => {
                out.write_all(&record.data)?;
                size += record.data.len() as u64;
            }
            (b'X' | b'E', _) => return Ok(size),
            _ => {}
        }
    }
}

impl Reading {
    fn new(uid: u32) -> Self {
        let envelope = Envelope {
            origin: Origin::Local { uid },
            ..Envelope::new(Address::null(), Vec::new(), Duration::ZERO)
        };
        Self {
            message: Message { envelope, full_name: String::new(), has_verp: false },
            has_sender: false,
            has_arrival: false,
            segment: Segment::Envelope,
            about: About::default(),
            redirect: None,
            done: Vec::new(),
            killed: false,
        }
    }

    fn take(&mut self, record: &Record) -> io::Result<()> {
        match (record.kind, self.segment) {
            (b'M', _) => self.segment = Segment::Content,
            (b'X', _) => self.segment = Segment::Extracted,
            (_, Segment::Content) => {}
            (b'C', _) => {
                // The sixth number says whether SMTPUTF8 was asked for, or is needed.
                let text = record.text();
                let flags = text.split_whitespace().nth(5).and_then(|flags| flags.parse::<u32>().ok());
                self.message.envelope.smtputf8 = flags.is_some_and(|flags| flags != 0);
            }
            (b'T', _) => {
                self.message.envelope.arrival =
                    time(&record.text()).ok_or_else(|| damaged("a time that is none"))?;
                self.has_arrival = true;
            }
            (b'F', _) => self.message.full_name = record.text(),
            (b'L', _) => self.message.envelope.content_filter = Some(record.text()),
            (b'V', _) => self.message.has_verp = true,
            (b'K', _) => self.killed = true,
            (b'>', _) => self.redirect = Some(address(&record.data)?),
            (b'S', _) => {
                self.message.envelope.sender = address(&record.data)?;
                self.has_sender = true;
            }
            (b'A', _) => self.attribute(&record.text()),
            (b'O', _) => self.about.original = Some(record.text()),
            (b'o', _) => self.about.orcpt = Some(record.text()),
            (b'n', _) => self.about.notify = record.text().trim().parse().unwrap_or(0),
            (b'R', _) => {
                let recipient = self.recipient(&record.data)?;
                self.message.envelope.recipients.push(recipient);
            }
            (b'D', _) => {
                let recipient = self.recipient(&record.data)?;
                self.done.push(recipient);
            }
            (b'/', _) => self.about = About::default(),
            _ => {}
        }
        Ok(())
    }

    fn attribute(&mut self, text: &str) {
        let Some((name, value)) = text.split_once('=') else { return };
        let envelope = &mut self.message.envelope;
        let client = &mut envelope.client;
        let unless_unknown = || if value == "unknown" { String::new() } else { value.to_owned() };
        match name {
            "log_client_name" => value.clone_into(&mut client.name),
            "log_client_address" => {
                client.address = unless_unknown();
                if !client.address.is_empty() {
                    envelope.origin = Origin::Smtp { rewrite_headers: false };
                }
            }
            "log_client_port" => client.port = value.parse().unwrap_or(0),
            "log_helo_name" => value.clone_into(&mut client.helo),
            "log_protocol_name" => value.clone_into(&mut client.protocol),
            "sasl_method" => value.clone_into(&mut client.sasl_method),
            "sasl_username" => value.clone_into(&mut client.sasl_username),
            "sasl_sender" => value.clone_into(&mut client.sasl_sender),
            "envelope_id" => envelope.envid = Some(xtext(value)),
            "ret_flags" => {
                envelope.ret = match value {
                    "1" => Some(DsnReturn::Full),
                    "2" => Some(DsnReturn::Headers),
                    _ => None,
                }
            }
            "encoding" => {
                envelope.body = match value {
                    "7bit" => Body::SevenBit,
                    "8bit" => Body::EightBitMime,
                    _ => Body::Unspecified,
                }
            }
            "trace_flags" => {
                let flags: u32 = value.parse().unwrap_or(0);
                let bit = |number: u32| flags & (1 << number) != 0;
                envelope.trace = match (bit(8), bit(9), bit(10)) {
                    (true, ..) => Trace::Verification,
                    (_, true, _) => Trace::Probe,
                    (.., true) => Trace::Deliveries,
                    _ => Trace::None,
                };
            }
            "dsn_orig_rcpt" => self.about.orcpt = Some(value.to_owned()),
            "notify_flags" => self.about.notify = value.parse().unwrap_or(0),
            _ => {}
        }
    }

    fn recipient(&mut self, data: &[u8]) -> io::Result<Recipient> {
        let about = std::mem::take(&mut self.about);
        let address = address(data)?;
        let original = about.original.filter(|original| original != address.as_str());
        Ok(Recipient {
            address,
            // What cannot be an address is only missing in a log line.
            original: original.and_then(|original| Address::new(original).ok()),
            notify: Notify::from_bits(about.notify).as_requested(),
            orcpt: about.orcpt.as_deref().and_then(original_recipient),
        })
    }

    fn finish(mut self, failed: &[String]) -> io::Result<Found> {
        if self.killed {
            return Ok(Found::Nothing("was deleted"));
        }
        if !self.has_sender || !self.has_arrival {
            return Err(damaged("it has no sender or no time"));
        }
        let envelope = &mut self.message.envelope;
        if envelope.trace == Trace::Verification {
            return Ok(Found::Nothing("is a probe of an address, which is made anew when it is needed"));
        }
        let unreported =
            self.done.into_iter().filter(|done| failed.iter().any(|failed| failed == done.address.as_str()));
        envelope.recipients.extend(unreported);
        if envelope.recipients.is_empty() {
            return Ok(Found::Nothing("is delivered to all its recipients"));
        }
        if let Some(redirect) = self.redirect {
            envelope.recipients = vec![Recipient::new(redirect)];
        }
        Ok(Found::Message(Box::new(self.message)))
    }
}

/// `SECONDS` or `SECONDS MICROSECONDS`.
fn time(text: &str) -> Option<Duration> {
    let mut numbers = text.split_whitespace();
    let seconds = Duration::from_secs(numbers.next()?.parse().ok()?);
    let more = numbers.next().map_or(Some(0), |micros| micros.parse().ok())?;
    Some(seconds + Duration::from_micros(more))
}

fn address(data: &[u8]) -> io::Result<Address> {
    Address::from_bytes(data).map_err(|error| damaged(&format!("{}: {error}", String::from_utf8_lossy(data))))
}

/// `rfc822;ADDRESS`; Postfix keeps the address in the clear, the protocol has it as xtext.
fn original_recipient(text: &str) -> Option<String> {
    let (kind, address) = text.split_once(';')?;
    Some(format!("{kind};{}", xtext(address)))
}

/// RFC 3461 section 4.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b'!'..=b'~').contains(&byte) && byte != b'+' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("+{byte:02X}"));
        }
    }
    out
}

/// The recipients of `bounce/ID`, Postfix's list of failures that the sender has not been told of.
pub(super) fn failed_recipients(log: &str) -> Vec<String> {
    log.lines().filter_map(|line| line.strip_prefix("recipient=")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    fn file(records: &[(u8, &str)]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for (kind, data) in records {
            let length = data.len();
            let mut bytes = vec![*kind];
            match u8::try_from(length) {
                Ok(length) if length < 128 => bytes.push(length),
                _ => bytes
                    .extend([u8::try_from(length & 127).unwrap() | 128, u8::try_from(length >> 7).unwrap()]),
            }
            file.write_all(&bytes).unwrap();
            file.write_all(data.as_bytes()).unwrap();
        }
        file.rewind().unwrap();
        file
    }

    fn message(records: &[(u8, &str)], failed: &[&str]) -> (Message, String) {
        let file = file(records);
        let failed: Vec<String> = failed.iter().map(|&name| name.to_owned()).collect();
        let Found::Message(message) = read(&file, &failed, 0).unwrap() else { unreachable!() };
        let mut content = Vec::new();
        copy_content(&file, &mut content).unwrap();
        (*message, String::from_utf8(content).unwrap())
    }

    #[test]
    fn an_envelope_is_read_and_who_has_the_message_is_left_out() {
        let long = "x".repeat(300);
        let (message, content) = message(
            &[
                (b'C', "   10  99  3  0  10  1"),
                (b'T', "1795380377 212154"),
                (b'A', "envelope_id=a+d"),
                (b'A', "ret_flags=2"),
                (b'S', "a@y.test"),
                (b'A', "encoding=8bit"),
                (b'A', "log_client_address=192.0.2.1"),
                (b'A', "dsn_orig_rcpt=rfc822;gone@x.test"),
                (b'D', "gone@x.test"),
                (b'A', "dsn_orig_rcpt=rfc822;a b@x.test"),
                (b'A', "notify_flags=10"),
                (b'O', "alias@x.test"),
                (b'R', "one@x.test"),
                (b'D', "bad@x.test"),
                (b'R', "two@x.test"),
                (b'w', "padding"),
                (b'p', "               0"),
                (b'M', ""),
                (b'N', "Subject: hi"),
                (b'N', ""),
                (b'L', &long),
                (b'N', "end"),
                (b'X', ""),
                (b'E', ""),
            ],
            &["bad@x.test"],
        );
        let envelope = message.envelope;
        assert_eq!(envelope.arrival, Duration::new(1_795_380_377, 212_154_000));
        assert_eq!((envelope.envid.as_deref(), envelope.ret), (Some("a+2Bd"), Some(DsnReturn::Headers)));
        assert_eq!((envelope.sender.as_str(), envelope.body), ("a@y.test", Body::EightBitMime));
        assert!(envelope.smtputf8 && matches!(envelope.origin, Origin::Smtp { .. }));
        let names: Vec<_> = envelope.recipients.iter().map(|to| to.address.as_str()).collect();
        assert_eq!(names, ["one@x.test", "two@x.test", "bad@x.test"]);
        let one = &envelope.recipients[0];
        assert_eq!(one.orcpt.as_deref(), Some("rfc822;a+20b@x.test"));
        assert_eq!(one.notify, Notify::SUCCESS.and(Notify::DELAY));
        assert_eq!(one.original.as_ref().map(Address::as_str), Some("alias@x.test"));
        assert_eq!(envelope.recipients[1].notify, Notify::UNSET);
        assert_eq!(content, format!("Subject: hi\n\n{long}end\n"));
    }

    #[test]
    fn nothing_is_owed_by_what_is_done_or_deleted() {
        let done = [(b'T', "1"), (b'S', ""), (b'D', "a@b"), (b'M', ""), (b'X', ""), (b'E', "")];
        assert!(matches!(read(&file(&done), &[], 0).unwrap(), Found::Nothing(_)));
        let killed = [(b'T', "1"), (b'S', ""), (b'R', "a@b"), (b'M', ""), (b'X', ""), (b'K', ""), (b'E', "")];
        assert!(matches!(read(&file(&killed), &[], 0).unwrap(), Found::Nothing(_)));
    }

    #[test]
    fn damage_is_an_error() {
        for records in [
            &[][..],
            &[(b'T', "1"), (b'S', ""), (b'R', "a@b"), (b'M', "")],
            &[(b'T', "x"), (b'E', "")],
            &[(b'S', "a@b"), (b'R', "a@b"), (b'E', "")],
            &[(b'p', "               1"), (b'E', "")],
        ] {
            assert!(read(&file(records), &[], 0).is_err(), "{records:?}");
        }
        let round = file(&[(b'T', "1"), (b'p', "3")]);
        assert!(read(&round, &[], 0).is_err());
    }

    #[test]
    fn failures_are_found_in_postfixs_list() {
        let log = "<bad@x.test>: no such user\nrecipient=bad@x.test\noffset=1\nstatus=5.1.1\n\n";
        assert_eq!(failed_recipients(log), ["bad@x.test"]);
    }
}
