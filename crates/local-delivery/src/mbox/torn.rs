//! What a crash left of a message in a mailbox.
//!
//! A message is appended and then synced; the system may go down in between, or the agent be killed between two writes.
//! The mailbox then ends in a part of the message: its beginning, or blocks of it with zeros where others never reached
//! the disk. The message is still in the queue and comes again, and that is when its part is found, by comparison with
//! the message itself, and cut off. Nothing else is ever cut off: each byte must be the message's own or, where the disk
//! has lost it, zero. A delivery of another message that comes in between makes the part stay.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memchr;

use super::{FROM, write_message};
use crate::letter::Letter;

/// Where a part may begin is looked for at this many places: whoever sends a message of empty lines gets no more.
const MAX_PLACES: usize = 64;

/// How much of the mailbox is read at once.
const PIECE: usize = 64 * 1024;

/// The length of the date at the end of the first line, which differs from one attempt to the next.
const DATE: usize = 24;

/// Where the mailbox, of this size, ends without what was left of an earlier attempt at this message.
pub(super) fn whole_end(mailbox: &File, size: u64, letter: &Letter<'_>, headers: &[u8]) -> io::Result<u64> {
    // Each line that is quoted is longer by one, and has no less than the five characters that make it so.
    let longest = headers.len() as u64 + letter.size() + letter.size() / FROM.len() as u64 + 2;
    let start = size.saturating_sub(longest);
    if !looks_torn(mailbox, start, size)? {
        return Ok(size);
    }
    for place in places(mailbox, start, size)? {
        if is_part(mailbox, place, size, letter, headers)? {
            return Ok(place);
        }
    }
    Ok(size)
}

/// Whether the end of the mailbox is not one that a message has.
fn looks_torn(mailbox: &File, start: u64, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(false);
    }
    let mut end = [0; 2];
    let from = size.saturating_sub(2);
    let end = &mut end[..usize::try_from(size - from).unwrap_or(2)];
    mailbox.read_exact_at(end, from)?;
    if *end != b"\n\n"[..] {
        return Ok(true);
    }
    let mut has_zero = false;
    read(mailbox, start, size, |piece| has_zero |= memchr(0, piece).is_some())?;
    Ok(has_zero)
}

/// Where a message may begin: behind an empty line, with the beginning of `From `, or with zeros.
fn places(mailbox: &File, start: u64, size: u64) -> io::Result<Vec<u64>> {
    let mut places = Vec::new();
    // What stands before the part that is read is not known; at the beginning of the file all may begin.
    let mut newlines = if start == 0 { 2 } else { 0 };
    let mut at = start;
    read(mailbox, start, size, |piece| {
        for byte in piece {
            if newlines >= 2 && matches!(byte, b'F' | 0) && places.len() < MAX_PLACES {
                places.push(at);
            }
            newlines = if *byte == b'\n' { newlines + 1 } else { 0 };
            at += 1;
        }
    })?;
    Ok(places)
}

/// Whether the mailbox from here to its end is a part of the message, and not the whole of it.
fn is_part(mailbox: &File, place: u64, size: u64, letter: &Letter<'_>, headers: &[u8]) -> io::Result<bool> {
    let line = memchr(b'\n', headers).unwrap_or(0) as u64;
    let mut comparison = Comparison { mailbox, at: place, size, missing: false, differs: false };
    let date = place + line.saturating_sub(DATE as u64)..place + line;
    let result = write_message(letter, headers, |bytes| comparison.compare(bytes, &date));
    match result {
        Err(_) if comparison.differs => Ok(false),
        Err(error) => Err(error),
        // What follows a whole message is none of its parts.
        Ok(()) => Ok(comparison.missing && comparison.at >= size),
    }
}

struct Comparison<'a> {
    mailbox: &'a File,
    at: u64,
    size: u64,
    /// Something of the message is not there.
    missing: bool,
    /// Something is there that is not the message's.
    differs: bool,
}

impl Comparison<'_> {
    fn compare(&mut self, bytes: &[u8], date: &std::ops::Range<u64>) -> io::Result<()> {
        let there = bytes.len().min(usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX));
        self.missing |= there < bytes.len();
        let mut found = vec![0; there];
        self.mailbox.read_exact_at(&mut found, self.at)?;
        for (found, wanted) in found.iter().zip(bytes) {
            if found != wanted && !date.contains(&self.at) {
                self.missing = true;
                if *found != 0 {
                    self.differs = true;
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            self.at += 1;
        }
        Ok(())
    }
}

fn read(mailbox: &File, start: u64, end: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let length = mailbox.read_at(&mut piece[..most], at)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        take(&piece[..length]);
        at += length as u64;
    }
    Ok(())
}
