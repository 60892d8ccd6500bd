//! The journal of a stored message, read forward.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::format::attempt::{Attempt, MAX_BODY, PREFIX, decode};
use crate::stored::{READ_SIZE, read_up_to};

/// The attempts of a message, oldest first; ends at the first record that is torn.
#[derive(Debug)]
pub struct Journal {
    file: Arc<File>,
    /// The offset of the first record that was not returned yet: at the end, of what an append overwrites.
    offset: u64,
    /// The size of the file.
    file_size: u64,
    /// What was read from `offset` on; its first `used` bytes were returned.
    buffer: Vec<u8>,
    used: usize,
    ended: bool,
}

impl Journal {
    /// `known`: what is in memory already of what begins at `offset`.
    pub(crate) fn new(file: Arc<File>, offset: u64, file_size: u64, known: Vec<u8>) -> Self {
        Self { file, offset, file_size, buffer: known, used: 0, ended: false }
    }

    /// Where the whole records end; known when the iterator has ended.
    pub(crate) fn end(&self) -> u64 {
        self.offset
    }

    fn read_on(&mut self) -> io::Result<Option<Attempt>> {
        let left = usize::try_from(self.file_size.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let held = self.buffer.len() - self.used;
        if held < left && held < PREFIX + MAX_BODY {
            self.buffer.resize(left.min(READ_SIZE), 0);
            let read = read_up_to(&self.file, &mut self.buffer, self.offset)?;
            self.buffer.truncate(read);
            self.used = 0;
        }
        let Some((attempt, size)) = decode(&self.buffer[self.used..]) else { return Ok(None) };
        self.used += size;
        self.offset += size as u64;
        Ok(Some(attempt))
    }
}

impl Iterator for Journal {
    type Item = io::Result<Attempt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read_on().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
