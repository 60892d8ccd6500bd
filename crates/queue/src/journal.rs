//! The journal of a stored message, read forward.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::format::attempt::{Attempt, MAX_BODY, PREFIX, decode};
use crate::format::mark::{Place, Short};
use crate::stored::{READ_SIZE, read_up_to};

/// The attempts of a message, oldest first; ends at the first record that is torn.
#[derive(Debug)]
pub struct Journal {
    file: Arc<File>,
    /// Of the first record that was not returned yet: at the end, of what an append overwrites.
    place: Place,
    /// The size of the file.
    file_size: u64,
    /// What was read from `place` on; its first `used` bytes were returned.
    buffer: Vec<u8>,
    used: usize,
    ended: bool,
}

/// A record of the journal.
#[derive(Debug)]
pub(crate) enum Record {
    Attempt(Attempt),
    Short(Short),
}

impl Journal {
    /// `known`: what is in memory already of what begins at `place`, where the journal begins.
    pub(crate) fn new(file: Arc<File>, place: Place, file_size: u64, known: Vec<u8>) -> Self {
        Self { file, place, file_size, buffer: known, used: 0, ended: false }
    }

    /// Where the whole records end, and in which life; known when the iterator has ended.
    pub(crate) fn end(&self) -> Place {
        self.place
    }

    /// The next record of any kind.
    pub(crate) fn next_record(&mut self) -> Option<io::Result<Record>> {
        if self.ended {
            return None;
        }
        let next = self.read_on().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }

    fn read_on(&mut self) -> io::Result<Option<Record>> {
        let left = usize::try_from(self.file_size.saturating_sub(self.place.offset)).unwrap_or(usize::MAX);
        let held = self.buffer.len() - self.used;
        if held < left && held < PREFIX + MAX_BODY {
            self.buffer.resize(left.min(READ_SIZE), 0);
            let read = read_up_to(&self.file, &mut self.buffer, self.place.offset)?;
            self.buffer.truncate(read);
            self.used = 0;
        }
        let bytes = &self.buffer[self.used..];
        let short = self.place.take(bytes).map(|(short, size)| (Record::Short(short), size));
        let record = short.or_else(|| decode(bytes).map(|(attempt, size)| (Record::Attempt(attempt), size)));
        let Some((record, size)) = record else { return Ok(None) };
        if let Record::Short(Short::Life(life)) = record {
            self.place.life = life;
        }
        self.used += size;
        self.place.offset += size as u64;
        Ok(Some(record))
    }
}

impl Iterator for Journal {
    type Item = io::Result<Attempt>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_record()? {
                Ok(Record::Attempt(attempt)) => return Some(Ok(attempt)),
                Ok(Record::Short(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
