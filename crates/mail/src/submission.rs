//! The file that `postdrop` leaves in `maildrop/` and pickup takes; `sendmail` writes the same bytes to postdrop, or to
//! pickup's socket `submit/pickup`, with their number as four bytes, little-endian, before them.
//!
//! ```text
//! postroad-submission 1          the first line
//! sender joe@example.com         null sender: nothing behind the blank; exactly once, before the recipients
//! name Joe Doe                   each of these at most once
//! envid QQ314159                 ENVID as given
//! ret full | headers
//! body 7bit | 8bitmime
//! smtputf8
//! trace deliveries | probe
//! recipient jane@example.com     up to 50,000
//! notify 6                       of the recipient above: the bits of `Notify`
//! orcpt rfc822;jane@example.com  of the recipient above
//!                                an empty line
//! … the content, lines ended by LF, byte for byte …
//! \0postroad-end + the length of the content as eight bytes, little-endian
//! ```
//! Any local user may have written it, so nothing in it is believed: every length has a limit, and who the submitter is
//! comes from the file's owner or the socket's peer, never from here. A submission without its trailer was cut short, and
//! one with a [`LostBlock`] was torn.

use std::ffi::CStr;
use std::fmt::{self, Write as _};

use crate::{Address, Body, DsnReturn, Notify, Recipient, Trace};

/// The first line.
const MAGIC: &str = "postroad-submission 1";

/// What begins the trailer.
const END: &[u8; 13] = b"\0postroad-end";

/// The length of the trailer.
pub const TRAILER_LENGTH: usize = END.len() + 8;

/// The most bytes before the content: the most recipients with addresses of the usual length.
pub const MAX_HEAD: usize = 4 * 1024 * 1024;

/// The most recipients of one submission.
pub const MAX_RECIPIENTS: usize = 50_000;

/// The folder of the queue that users may enter, with the socket that they hand submissions to.
pub const SOCKET_FOLDER: &str = "submit";

/// The largest submission that pickup takes at its socket, where it is held in memory as a whole.
pub const MAX_HANDED: usize = 256 * 1024;

/// Pickup's answer: the message is in the queue for good. Any other means that its submitter still has it.
pub const TAKEN: u8 = b'+';

/// The other answer.
pub const NOT_TAKEN: u8 = b'-';

/// The longest line of the head: a word and the longest address.
const MAX_LINE: usize = 2100;

/// What `sendmail` says about a message, before its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Reverse path as given with `-f`, or the submitter's login name.
    pub sender: Address,
    /// Forward paths; may be empty, then cleanup refuses the message.
    pub recipients: Vec<Recipient>,
    /// `-F`: the full name for a `From:` header that is missing; empty for none.
    pub full_name: String,
    /// ENVID of RFC 3461.
    pub envid: Option<String>,
    /// RET of RFC 3461.
    pub ret: Option<DsnReturn>,
    /// `-B`.
    pub body: Body,
    /// The message needs SMTPUTF8.
    pub smtputf8: bool,
    /// `-v` or `-bv`.
    pub trace: Trace,
}

/// Why bytes are not a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmissionError {
    /// The first line is another one.
    Magic,
    /// A line is too long, not UTF-8, of an unknown kind, at the wrong place, or has a wrong value. The number counts
    /// from 1.
    Line(usize),
    /// The head is longer than 4 MiB.
    HeadTooLong,
    /// More than 50,000 recipients.
    TooManyRecipients,
    /// No sender line.
    NoSender,
    /// Its trailer is missing, or is about another length.
    CutShort,
    /// It has a [`LostBlock`].
    Torn,
    /// What comes over a socket is longer than [`MAX_HANDED`], or has something behind it.
    TooLong,
}

impl Head {
    /// A head without recipients.
    #[must_use]
    pub fn new(sender: Address) -> Self {
        Self {
            sender,
            recipients: Vec::new(),
            full_name: String::new(),
            envid: None,
            ret: None,
            body: Body::Unspecified,
            smtputf8: false,
            trace: Trace::None,
        }
    }

    /// The bytes that come before the content. Control characters of free text become blanks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{MAGIC}\nsender {}\n", self.sender);
        push_line(&mut text, "name", &self.full_name);
        push_line(&mut text, "envid", self.envid.as_deref().unwrap_or_default());
        match self.ret {
            Some(DsnReturn::Full) => text.push_str("ret full\n"),
            Some(DsnReturn::Headers) => text.push_str("ret headers\n"),
            None => {}
        }
        match self.body {
            Body::SevenBit => text.push_str("body 7bit\n"),
            Body::EightBitMime => text.push_str("body 8bitmime\n"),
            Body::Unspecified => {}
        }
        if self.smtputf8 {
            text.push_str("smtputf8\n");
        }
        match self.trace {
            Trace::Deliveries => text.push_str("trace deliveries\n"),
            Trace::Probe => text.push_str("trace probe\n"),
            // The mail system's own business is nobody's to submit.
            Trace::None | Trace::Verification => {}
        }
        for recipient in &self.recipients {
            // Writing to a String cannot fail. As it is, like the sender: an address with a byte changed is somebody else's.
            let _ = writeln!(text, "recipient {}", recipient.address);
            if recipient.notify != Notify::UNSET {
                let _ = writeln!(text, "notify {}", recipient.notify.bits());
            }
            push_line(&mut text, "orcpt", recipient.orcpt.as_deref().unwrap_or_default());
        }
        text.push('\n');
        text.into_bytes()
    }

    /// Decodes the head at the beginning of `bytes`: the head and where the content begins, or `None` while its end is
    /// not among them.
    ///
    /// # Errors
    /// What makes these bytes no submission, however they go on.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, SubmissionError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC.as_bytes()[..known] {
            return Err(SubmissionError::Magic);
        }
        let Some(end) = memchr::memmem::find(&bytes[..bytes.len().min(MAX_HEAD)], b"\n\n") else {
            return if bytes.len() < MAX_HEAD { Ok(None) } else { Err(SubmissionError::HeadTooLong) };
        };
        let mut lines = bytes[..end].split(|b| *b == b'\n');
        if lines.next() != Some(MAGIC.as_bytes()) {
            return Err(SubmissionError::Magic);
        }
        let mut head = None;
        for (index, line) in lines.enumerate() {
            let wrong = || SubmissionError::Line(index + 2);
            let line = Some(line).filter(|line| line.len() <= MAX_LINE).ok_or_else(wrong)?;
            let line = std::str::from_utf8(line).map_err(|_| wrong())?;
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            match (&mut head, word) {
                (None, "sender") => head = Some(Self::new(Address::new(value).map_err(|_| wrong())?)),
                (Some(head), word) => {
                    head.take(word, value).ok_or_else(wrong)?;
                    if head.recipients.len() > MAX_RECIPIENTS {
                        return Err(SubmissionError::TooManyRecipients);
                    }
                }
                _ => return Err(wrong()),
            }
        }
        Ok(Some((head.ok_or(SubmissionError::NoSender)?, end + 2)))
    }

    /// One line of the head; `None` where it is wrong.
    fn take(&mut self, word: &str, value: &str) -> Option<()> {
        match word {
            "recipient" => {
                let address = Address::new(value).ok().filter(|address| !address.is_null())?;
                self.recipients.push(Recipient::new(address));
            }
            "notify" => {
                let bits = value.parse().ok().filter(|bits| (1..=15).contains(bits))?;
                self.recipients.last_mut()?.notify = Notify::from_bits(bits);
            }
            "orcpt" => self.recipients.last_mut()?.orcpt = told(free_text(value)?),
            "name" => self.full_name = free_text(value)?,
            "envid" => self.envid = told(free_text(value)?),
            "ret" => self.ret = Some(if value == "full" { DsnReturn::Full } else { DsnReturn::Headers }),
            "body" => self.body = if value == "7bit" { Body::SevenBit } else { Body::EightBitMime },
            "smtputf8" => self.smtputf8 = true,
            "trace" => self.trace = if value == "probe" { Trace::Probe } else { Trace::Deliveries },
            _ => return None,
        }
        Some(())
    }
}

/// What was said; nothing is not written, and read as if it were not there.
fn told(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The bytes that come behind a content of this length.
#[must_use]
pub fn trailer(content_length: u64) -> [u8; TRAILER_LENGTH] {
    let mut bytes = [0; TRAILER_LENGTH];
    bytes[..END.len()].copy_from_slice(END);
    bytes[END.len()..].copy_from_slice(&content_length.to_le_bytes());
    bytes
}

/// The length of the content, from the last [`TRAILER_LENGTH`] bytes of a submission; `None` if they are no trailer.
/// Compare it with what lies between head and trailer.
#[must_use]
pub fn content_length(last_bytes: &[u8]) -> Option<u64> {
    let length = last_bytes.strip_prefix(END)?;
    Some(u64::from_le_bytes(length.try_into().ok()?))
}

/// What is sent to pickup's socket: a submission of at most [`MAX_HANDED`] bytes, and before it how many they are.
#[must_use]
pub fn handed(submission: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(submission.len()).ok().filter(|_| submission.len() <= MAX_HANDED)?;
    Some([&length.to_le_bytes()[..], submission].concat())
}

/// A submission on its way through pickup's socket.
#[derive(Debug, Default)]
pub struct Arriving {
    bytes: Vec<u8>,
}

impl Arriving {
    /// How many bytes the length is.
    const PREFIX: usize = 4;

    /// Takes the next piece; `true` once the submission is whole. What is held is what has come, not what was announced.
    ///
    /// # Errors
    /// [`SubmissionError::TooLong`].
    pub fn take(&mut self, piece: &[u8]) -> Result<bool, SubmissionError> {
        self.bytes.extend_from_slice(piece);
        let Some(prefix) = self.bytes.first_chunk::<{ Self::PREFIX }>() else { return Ok(false) };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let have = self.bytes.len() - Self::PREFIX;
        if length > MAX_HANDED || have > length {
            return Err(SubmissionError::TooLong);
        }
        Ok(have == length)
    }

    /// The head and the content of the whole submission.
    ///
    /// # Errors
    /// What makes it none.
    pub fn open(mut self) -> Result<(Head, Vec<u8>), SubmissionError> {
        let submission = self.bytes.get(Self::PREFIX..).unwrap_or_default();
        let (head, start) = Head::decode(submission)?.ok_or(SubmissionError::CutShort)?;
        let end = submission.len().checked_sub(TRAILER_LENGTH).filter(|end| *end >= start);
        let end = end.ok_or(SubmissionError::CutShort)?;
        if content_length(&submission[end..]) != u64::try_from(end - start).ok() {
            return Err(SubmissionError::CutShort);
        }
        if LostBlock::default().is_in(submission) {
            return Err(SubmissionError::Torn);
        }
        self.bytes.truncate(Self::PREFIX + end);
        self.bytes.drain(..Self::PREFIX + start);
        Ok((head, self.bytes))
    }
}

/// Looks for what a power cut leaves of a block of a file that it has lost, before anybody was told that the file is
/// whole: a run of zeros as long as a block. No message has that; one that does is refused where it is submitted, so
/// that none is taken and then found torn. A lost block at the beginning or the end takes the head or the trailer along.
#[derive(Debug, Default)]
pub struct LostBlock {
    zeros: usize,
}

impl LostBlock {
    /// What file systems lose as a whole, at least.
    const LENGTH: usize = 4096;

    /// Whether there is one in what was given so far, this being the next piece.
    pub fn is_in(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        while self.zeros < Self::LENGTH {
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            self.zeros += zeros;
            if zeros == rest.len() {
                break;
            }
            if self.zeros < Self::LENGTH {
                self.zeros = 0;
            }
            rest = &rest[zeros..];
            // The one search of the standard library that does not ask the processor first what it can.
            let next = CStr::from_bytes_until_nul(rest);
            rest = &rest[next.map_or(rest.len(), |before| before.count_bytes())..];
        }
        self.zeros >= Self::LENGTH
    }
}

fn push_line(text: &mut String, word: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    text.push_str(word);
    text.push(' ');
    text.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
    text.push('\n');
}

/// Text that goes into a header or a queue file.
fn free_text(value: &str) -> Option<String> {
    (!value.chars().any(char::is_control)).then(|| value.to_owned())
}

impl fmt::Display for SubmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "the first line is not \"{MAGIC}\""),
            Self::Line(number) => write!(f, "line {number} of the envelope is malformed"),
            Self::HeadTooLong => write!(f, "the envelope is longer than {MAX_HEAD} bytes"),
            Self::TooManyRecipients => write!(f, "more than {MAX_RECIPIENTS} recipients"),
            Self::NoSender => f.write_str("the envelope has no sender"),
            Self::CutShort => f.write_str("it was cut short"),
            Self::Torn => f.write_str("a part of it was lost"),
            Self::TooLong => write!(f, "it is longer than {MAX_HANDED} bytes, or than it says"),
        }
    }
}

impl std::error::Error for SubmissionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_control_characters_stays_the_same() {
        let address = |text: &str| Address::new(text).unwrap();
        let recipients = vec![Recipient::new(address("jan\u{1b}e\u{7}@example.com"))];
        let head = Head { recipients, ..Head::new(address("j\u{1}oe")) };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(Some((head, bytes.len()))));
    }

    fn sample() -> Head {
        let address = |text: &str| Address::new(text).unwrap();
        let mut jane = Recipient::new(address("jane doe@example.com"));
        jane.notify = Notify::SUCCESS.and(Notify::FAILURE);
        jane.orcpt = Some("rfc822;jane+20doe@example.com".into());
        Head {
            sender: address("joe"),
            recipients: vec![jane, Recipient::new(address("jürgen"))],
            full_name: "Joe \"X\" Döe".into(),
            envid: Some("QQ314159".into()),
            ret: Some(DsnReturn::Headers),
            body: Body::EightBitMime,
            smtputf8: true,
            trace: Trace::Probe,
        }
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_shorter_does() {
        let head = sample();
        let mut bytes = head.encode();
        let content_start = bytes.len();
        for length in 0..content_start {
            assert_eq!(Head::decode(&bytes[..length]), Ok(None), "{length}");
        }
        bytes.extend_from_slice(b"Subject: x\n\nbody\n");
        assert_eq!(Head::decode(&bytes), Ok(Some((head, content_start))));
        let null = Head::new(Address::null());
        assert_eq!(Head::decode(&null.encode()).unwrap().unwrap().0, null);
    }

    #[test]
    fn control_characters_cannot_smuggle_lines() {
        let mut head = Head::new(Address::new("joe").unwrap());
        head.full_name = "Joe\nrecipient evil\r\n\n".into();
        let decoded = Head::decode(&head.encode()).unwrap().unwrap().0;
        assert_eq!((decoded.full_name.as_str(), decoded.recipients.len()), ("Joe recipient evil   ", 0));
    }

    #[test]
    fn hostile_heads_are_refused() {
        let body = |text: &str| Head::decode(format!("postroad-submission 1\n{text}\n\n").as_bytes());
        assert_eq!(Head::decode(b"From: x\n\n"), Err(SubmissionError::Magic));
        assert_eq!(Head::decode(b"postroad-submission 12\nsender x\n\n"), Err(SubmissionError::Magic));
        assert_eq!(body("sender a\nsender b"), Err(SubmissionError::Line(3)));
        assert_eq!(body("recipient a"), Err(SubmissionError::Line(2)));
        assert_eq!(body("sender a\nnotify 2"), Err(SubmissionError::Line(3)));
        assert_eq!(body("sender a\nrecipient "), Err(SubmissionError::Line(3)));
        assert_eq!(body("sender a\nrecipient b\nnotify 16"), Err(SubmissionError::Line(4)));
        assert_eq!(body("sender a\nname x\ty"), Err(SubmissionError::Line(3)));
        assert_eq!(body("sender a\nuid 0"), Err(SubmissionError::Line(3)));
        assert_eq!(body(&format!("sender a\nname {}", "x".repeat(3000))), Err(SubmissionError::Line(3)));
        let crowd = format!("sender a\n{}", "recipient b\n".repeat(MAX_RECIPIENTS + 1));
        assert_eq!(body(crowd.trim_end()), Err(SubmissionError::TooManyRecipients));
        let endless = format!("postroad-submission 1\nsender {}", "x\n ".repeat(MAX_HEAD));
        assert_eq!(Head::decode(endless.as_bytes()), Err(SubmissionError::HeadTooLong));
    }

    fn arrived(bytes: &[u8], size: usize) -> Result<Option<(Head, Vec<u8>)>, SubmissionError> {
        let mut arriving = Arriving::default();
        let mut is_whole = false;
        for piece in bytes.chunks(size) {
            is_whole = arriving.take(piece)?;
        }
        if is_whole { arriving.open().map(Some) } else { Ok(None) }
    }

    #[test]
    fn a_submission_arrives_whole_or_not_at_all() {
        let content = b"Subject: x\n\nbody\n";
        let whole = [&sample().encode()[..], content, &trailer(17)].concat();
        let bytes = handed(&whole).unwrap();
        for size in [1, 3, 4, 5, 1000] {
            assert_eq!(arrived(&bytes, size), Ok(Some((sample(), content.to_vec()))), "{size}");
        }
        for length in 0..bytes.len() {
            assert_eq!(arrived(&bytes[..length], 7), Ok(None), "{length}");
        }
        assert_eq!(arrived(&[&bytes[..], b"x"].concat(), 1000), Err(SubmissionError::TooLong));
        assert_eq!(arrived(&[0xff; 4], 4), Err(SubmissionError::TooLong));
        assert_eq!(handed(&vec![b'x'; MAX_HANDED + 1]), None);
        for length in 1..whole.len() {
            assert!(arrived(&handed(&whole[..length]).unwrap(), 1000).is_err(), "{length}");
        }
        let torn = [&sample().encode()[..], &[0; 5000], &trailer(5000)].concat();
        assert_eq!(arrived(&handed(&torn).unwrap(), 1000), Err(SubmissionError::Torn));
        let other = [&sample().encode()[..], content, &trailer(16)].concat();
        assert_eq!(arrived(&handed(&other).unwrap(), 1000), Err(SubmissionError::CutShort));
        assert_eq!(Arriving::default().open(), Err(SubmissionError::CutShort));
    }

    #[test]
    fn a_lost_block_is_found_however_it_comes() {
        let block = [0; LostBlock::LENGTH];
        let torn = [b"text\0", &block[1..], b"more\0text"].concat();
        let whole = [b"text\0", &block[2..], b"x\0", &block[2..], b"y"].concat();
        for size in [1, 2, 7, 4096, 10_000] {
            let is_torn = |bytes: &[u8]| {
                let mut lost = LostBlock::default();
                bytes.chunks(size).fold(false, |_, piece| lost.is_in(piece))
            };
            assert!(is_torn(&torn) && !is_torn(&whole) && !is_torn(b""), "{size}");
        }
    }

    #[test]
    fn the_trailer_says_the_length() {
        assert_eq!(content_length(&trailer(4711)), Some(4711));
        assert_eq!(content_length(&[0; TRAILER_LENGTH]), None);
        assert_eq!(content_length(&trailer(1)[1..]), None);
    }
}
