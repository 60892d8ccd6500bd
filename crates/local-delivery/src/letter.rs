//! One message as it is written for one recipient: the fields that delivery adds, then the content, byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use mail::{Address, Dsn};
use memchr::memchr;
use queue::Content;
use service::Delivery;

use crate::failure::Failure;

/// How much is read, and written, at once. A message up to this size is one read and one write. More would cost more:
/// memory that is new to the process comes from the kernel page by page.
const CHUNK: usize = 32 * 1024;

/// Headers are looked through for a delivery loop up to here; `header_size_limit` bounds each, this bounds all.
const MAX_HEADERS: u64 = 1024 * 1024;

/// Content that can be read at any place, by many threads.
pub(crate) trait Source {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// What of its beginning is in memory.
    fn beginning(&self) -> &[u8] {
        &[]
    }

    /// Reads some bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// What the file says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes it last, so that it comes again after a power cut.
    ///
    /// # Errors
    /// What the file says.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// The content that a delivery hands over.
///
/// # Errors
/// A deferral: the queue file is not what the queue manager saw.
pub(crate) fn content_of(delivery: &Delivery) -> Result<Content, Failure> {
    let unusable =
        |cause: &dyn fmt::Display| Failure::defer(Dsn::new(4, 3, 0), format!("queue file: {cause}"));
    let content = Content::from_file(Arc::clone(&delivery.file)).map_err(|error| unusable(&error))?;
    if content.size() != delivery.request.size {
        return Err(unusable(&"its content is not as long as the queue manager says"));
    }
    Ok(content)
}

/// Content of which the beginning is in memory.
pub(crate) struct Letter<'a> {
    source: &'a dyn Source,
    beginning: Cow<'a, [u8]>,
}

/// Content of a message that is in the queue, or will be as soon as that matters.
pub(crate) struct Queued<'a> {
    pub(crate) content: &'a Content,
    pub(crate) delivery: &'a Delivery,
}

impl Source for Queued<'_> {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn beginning(&self) -> &[u8] {
        self.content.beginning()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.content.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.delivery.keep()?;
        self.content.sync()
    }
}

impl<'a> Letter<'a> {
    /// Makes the message last in the queue, so that it comes again after a power cut.
    ///
    /// # Errors
    /// What the file says.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.source.sync()
    }

    /// Reads the beginning.
    ///
    /// # Errors
    /// What the file says, also when it ends before its size.
    pub(crate) fn open(source: &'a dyn Source) -> io::Result<Self> {
        let known = source.beginning();
        if known.len() as u64 == source.size() {
            return Ok(Self { source, beginning: known.into() });
        }
        let mut beginning = Vec::new();
        read_chunk(source, &mut beginning, 0, CHUNK)?;
        Ok(Self { source, beginning: beginning.into() })
    }

    /// The size of the content, without what [`Preamble`] adds.
    #[must_use]
    pub(crate) fn size(&self) -> u64 {
        self.source.size()
    }

    /// Whether the content ends with a line feed, as a line should.
    ///
    /// # Errors
    /// What the file says.
    pub(crate) fn ends_with_newline(&self) -> io::Result<bool> {
        let Some(last) = self.size().checked_sub(1) else { return Ok(true) };
        let mut byte = [0];
        Ok(self.source.read_at(&mut byte, last)? == 1 && byte == *b"\n")
    }

    /// Whether a `Delivered-To:` header names this address: the message has been here before.
    ///
    /// # Errors
    /// What the file says.
    pub(crate) fn was_delivered_to(&self, address: &Address) -> io::Result<bool> {
        let mut more = Vec::new();
        let mut headers = &*self.beginning;
        if end_of_headers(headers).is_none() && self.size() > CHUNK as u64 {
            more.extend_from_slice(&self.beginning);
            while end_of_headers(&more).is_none() && (more.len() as u64) < self.size().min(MAX_HEADERS) {
                let mut chunk = Vec::new();
                read_chunk(self.source, &mut chunk, more.len() as u64, CHUNK)?;
                more.append(&mut chunk);
            }
            headers = &more;
        }
        Ok(names_delivered_to(
            &headers[..end_of_headers(headers).unwrap_or(headers.len())],
            &address.to_path(),
        ))
    }

    /// Calls `take` with the content, piece after piece.
    ///
    /// # Errors
    /// What the file says, and the first error of `take`.
    pub(crate) fn for_each_chunk(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        take(&self.beginning)?;
        let mut offset = self.beginning.len() as u64;
        let mut chunk = Vec::new();
        while offset < self.size() {
            read_chunk(self.source, &mut chunk, offset, CHUNK)?;
            take(&chunk)?;
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    /// A piece of the content, at most `length` bytes, empty at the end.
    ///
    /// # Errors
    /// What the file says.
    pub(crate) fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::new();
        read_chunk(self.source, &mut chunk, offset, length)?;
        Ok(chunk)
    }

    /// Writes preamble and content to a new file; a small message with one call.
    ///
    /// # Errors
    /// What either file says.
    pub(crate) fn write_to(&self, file: &mut File, preamble: &[u8]) -> io::Result<()> {
        write_both(file, preamble, &self.beginning)?;
        let mut first = true;
        self.for_each_chunk(|chunk| if std::mem::take(&mut first) { Ok(()) } else { file.write_all(chunk) })
    }
}

/// Fills `chunk` with what stands at `offset`, up to `most` bytes.
fn read_chunk(source: &dyn Source, chunk: &mut Vec<u8>, offset: u64, most: usize) -> io::Result<()> {
    let left = source.size().saturating_sub(offset);
    chunk.resize(usize::try_from(left).map_or(most, |left| left.min(most)), 0);
    let mut filled = 0;
    while filled < chunk.len() {
        match source.read_at(&mut chunk[filled..], offset + filled as u64) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "queue file is shorter than it says",
                ));
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_both(file: &mut File, first: &[u8], second: &[u8]) -> io::Result<()> {
    let written = loop {
        match file.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if written == 0 && !(first.is_empty() && second.is_empty()) {
        return Err(io::ErrorKind::WriteZero.into());
    }
    file.write_all(first.get(written..).unwrap_or_default())?;
    file.write_all(second.get(written.saturating_sub(first.len())..).unwrap_or_default())
}

/// Where the empty line stands that ends the headers.
fn end_of_headers(content: &[u8]) -> Option<usize> {
    if content.starts_with(b"\n") {
        return Some(0);
    }
    memchr::memmem::find(content, b"\n\n").map(|at| at + 1)
}

fn names_delivered_to(headers: &[u8], address: &str) -> bool {
    const NAME: &[u8] = b"delivered-to:";
    let mut rest = headers;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        if line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            let value = line[NAME.len()..].trim_ascii();
            if value.eq_ignore_ascii_case(address.as_bytes()) {
                return true;
            }
        }
    }
    false
}

/// The fields that delivery puts before a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preamble<'a> {
    /// `Return-Path:`.
    pub(crate) sender: &'a Address,
    /// `X-Original-To:`, where `enable_original_recipient` wants it.
    pub(crate) original: Option<&'a Address>,
    /// `Delivered-To:`, where `prepend_delivered_header` wants it.
    pub(crate) delivered: Option<&'a Address>,
}

impl Preamble<'_> {
    /// The header fields, each with its line end.
    #[must_use]
    pub(crate) fn headers(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"Return-Path: <");
        out.extend_from_slice(self.sender.to_path().as_bytes());
        out.extend_from_slice(b">\n");
        for (name, value) in [("X-Original-To: ", self.original), ("Delivered-To: ", self.delivered)] {
            if let Some(value) = value {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(value.to_path().as_bytes());
                out.push(b'\n');
            }
        }
        out
    }

    /// The line that begins a message in an mbox, for a delivery at `now`, then the header fields.
    #[must_use]
    pub(crate) fn mbox_headers(&self, now: &jiff::Zoned) -> Vec<u8> {
        let path = self.sender.to_path();
        let sender = if path.is_empty() { "MAILER-DAEMON" } else { &path };
        let mut out = format!("From {sender}  {}\n", now.strftime("%a %b %e %H:%M:%S %Y")).into_bytes();
        out.append(&mut self.headers());
        out
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_loop_is_seen_in_the_headers_only() {
        let text: &[u8] =
            b"Subject: x\ndelivered-to:  Alice@Example.com \nDelivered-To: \"a b\"@example.com\n\n\
                            Delivered-To: bob@example.com\n";
        let letter = Letter::open(&text).unwrap();
        for (address, expected) in [
            ("alice@example.com", true),
            ("a b@example.com", true),
            ("bob@example.com", false),
            ("alice", false),
            ("x@y@example.com", false),
        ] {
            assert_eq!(
                letter.was_delivered_to(&Address::new(address).unwrap()).unwrap(),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn a_loop_is_seen_behind_long_headers() {
        let mut text = b"X-Long: ".to_vec();
        text.resize(300_000, b'x');
        text.extend_from_slice(b"\nDelivered-To: alice@example.com\n\nbody\n");
        let text = text.as_slice();
        let letter = Letter::open(&text).unwrap();
        assert!(letter.was_delivered_to(&Address::new("alice@example.com").unwrap()).unwrap());
    }

    #[test]
    fn every_byte_of_a_large_message_is_written() {
        let text: Vec<u8> = (0..400_001_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut file = tempfile::tempfile().unwrap();
        Letter::open(&&text[..]).unwrap().write_to(&mut file, b"X: y\n").unwrap();
        let mut written = vec![0; text.len() + 6];
        let length = file.read_at(&mut written, 0).unwrap();
        assert_eq!(&written[..length], [b"X: y\n".as_slice(), &text].concat());
    }

    #[test]
    fn the_preamble_has_the_order_that_users_know() {
        let (sender, null) = (Address::new("a b@example.org").unwrap(), Address::null());
        let (original, delivered) = (Address::new("x@y@z").unwrap(), Address::new("u@y").unwrap());
        let preamble = Preamble { sender: &sender, original: Some(&original), delivered: Some(&delivered) };
        let wanted = b"Return-Path: <\"a b\"@example.org>\nX-Original-To: \"x@y\"@z\nDelivered-To: u@y\n";
        assert_eq!(preamble.headers(), wanted);
        let bare = Preamble { sender: &null, original: None, delivered: None };
        let now = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        let wanted = b"From MAILER-DAEMON  Thu Jan  1 00:00:00 1970\nReturn-Path: <>\n";
        assert_eq!(bare.mbox_headers(&now), wanted);
    }
}
