//! The bytes that have been read and not yet understood.

use std::ops::Range;

use memchr::memchr;
use zeroize::Zeroize;

/// A bounded buffer between the socket and the protocol.
///
/// Its storage can be exchanged at any time: a session that waits for a command makes do with a small one, and takes a
/// large one while content streams in.
#[derive(Debug, Default)]
pub struct Input {
    storage: Vec<u8>,
    start: usize,
    end: usize,
    /// How much of the pending bytes has been searched for a line feed.
    searched: usize,
    /// The rest of an overlong line is being thrown away.
    skipping: bool,
    /// How much of it since that was last told.
    skipped: usize,
}

/// So much of a line without end is one mistake: who goes on makes more of them, and meets the limit of errors.
const MAX_SKIPPED: usize = 64 * 1024;

/// What [`Input::line`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Read more.
    Partial,
    /// A line was longer than the limit; it has been thrown away, or much of it has.
    TooLong,
    /// A line without its end, at this place in the storage; `bare` if it ended in a line feed without carriage return.
    Whole { place: Range<usize>, bare: bool },
}

impl Input {
    /// A buffer over this storage, whose length is what it can hold.
    #[must_use]
    pub fn new(storage: Vec<u8>) -> Self {
        Self { storage, ..Self::default() }
    }

    /// Where to read to. Empty only when the storage holds nothing but pending bytes.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end > self.storage.len() / 2 {
            self.storage.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.storage[self.end..]
    }

    /// Says that `count` bytes have been read to [`Input::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.storage.len());
    }

    /// Goes on with other storage and gives back the old one. Where the pending bytes do not fit, nothing is exchanged
    /// and the new one comes back.
    pub fn exchange(&mut self, mut storage: Vec<u8>) -> Vec<u8> {
        let pending = self.end - self.start;
        if pending > storage.len() {
            return storage;
        }
        storage[..pending].copy_from_slice(&self.storage[self.start..self.end]);
        (self.start, self.end) = (0, pending);
        std::mem::replace(&mut self.storage, storage)
    }

    /// How many bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// What has been read and not yet understood.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// Forgets it: what came before a TLS handshake must not be obeyed after it.
    pub fn clear(&mut self) {
        (self.start, self.end, self.searched, self.skipping, self.skipped) = (0, 0, 0, false, 0);
    }

    /// The next line, of at most `limit` bytes without its end.
    pub(crate) fn line(&mut self, limit: usize) -> Line {
        let pending = &self.storage[self.start..self.end];
        let Some(found) = memchr(b'\n', &pending[self.searched..]) else {
            if self.skipping || pending.len() > limit + 1 || pending.len() == self.storage.len() {
                self.skipping = true;
                self.skipped += pending.len();
                (self.start, self.end, self.searched) = (0, 0, 0);
                if self.skipped >= MAX_SKIPPED {
                    self.skipped = 0;
                    return Line::TooLong;
                }
            } else {
                self.searched = pending.len();
            }
            return Line::Partial;
        };
        let line_feed = self.start + self.searched + found;
        let mut place = self.start..line_feed;
        self.start = line_feed + 1;
        self.searched = 0;
        let bare = !self.storage[place.clone()].ends_with(b"\r");
        while self.storage[place.clone()].ends_with(b"\r") {
            place.end -= 1;
        }
        self.skipped = 0;
        if std::mem::take(&mut self.skipping) || place.len() > limit {
            return Line::TooLong;
        }
        Line::Whole { place, bare }
    }

    /// The bytes of a place that [`Input::line`] or [`Input::take`] gave, so long as nothing was read since.
    pub(crate) fn at(&self, place: Range<usize>) -> &[u8] {
        &self.storage[place]
    }

    /// Overwrites what stood in a place: it was secret.
    pub(crate) fn wipe(&mut self, place: Range<usize>) {
        self.storage[place].zeroize();
    }

    /// Lets `decode` rework the first `most` pending bytes in place: it returns how many it used up and how many bytes at
    /// the front of them are the result, whose place this returns.
    pub(crate) fn take(
        &mut self,
        most: u64,
        decode: impl FnOnce(&mut [u8]) -> (usize, usize),
    ) -> Range<usize> {
        let end = self.end.min(self.start.saturating_add(usize::try_from(most).unwrap_or(usize::MAX)));
        let (used, made) = decode(&mut self.storage[self.start..end]);
        let place = self.start..self.start + made;
        self.start += used;
        self.searched = 0;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &mut Input, bytes: &[u8]) {
        input.space()[..bytes.len()].copy_from_slice(bytes);
        input.filled(bytes.len());
    }

    fn line(input: &mut Input, limit: usize) -> Option<(String, bool)> {
        match input.line(limit) {
            Line::Whole { place, bare } => Some((String::from_utf8(input.at(place).to_vec()).unwrap(), bare)),
            _ => None,
        }
    }

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let mut input = Input::new(vec![0; 16]);
        read(&mut input, b"NO");
        assert_eq!(input.line(8), Line::Partial);
        read(&mut input, b"OP\r\nQUIT\nRS");
        assert_eq!(line(&mut input, 8), Some(("NOOP".into(), false)));
        assert_eq!(line(&mut input, 8), Some(("QUIT".into(), true)));
        assert_eq!(input.line(8), Line::Partial);
        read(&mut input, b"ET\r\r\n");
        assert_eq!(line(&mut input, 8), Some(("RSET".into(), false)));
        assert!(input.pending().is_empty());
    }

    #[test]
    fn an_overlong_line_is_thrown_away_to_its_end() {
        let mut input = Input::new(vec![0; 16]);
        for _ in 0..5 {
            read(&mut input, b"xxxxxxxxxxx");
            assert_eq!(input.line(8), Line::Partial);
        }
        read(&mut input, b"xx\nNOOP\r\n");
        assert_eq!(input.line(8), Line::TooLong);
        assert_eq!(line(&mut input, 8), Some(("NOOP".into(), false)));
    }

    #[test]
    fn a_line_without_end_is_one_mistake_after_the_other() {
        let mut input = Input::new(vec![0; 1024]);
        let mut mistakes = 0;
        for _ in 0..1024 {
            read(&mut input, &[b'x'; 1024]);
            mistakes += usize::from(input.line(512) == Line::TooLong);
        }
        assert_eq!(mistakes, 16);
        read(&mut input, b"\nNOOP\r\n");
        assert_eq!(input.line(512), Line::TooLong);
        assert_eq!(line(&mut input, 512), Some(("NOOP".into(), false)));
    }

    #[test]
    fn storage_is_exchanged_with_its_bytes() {
        let mut input = Input::new(vec![0; 8]);
        read(&mut input, b"abcdef");
        assert_eq!(input.exchange(vec![0; 4]).len(), 4);
        assert_eq!(input.exchange(vec![0; 64]).len(), 8);
        assert_eq!((input.pending(), input.capacity()), (&b"abcdef"[..], 64));
    }
}
