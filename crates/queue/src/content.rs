//! An agent's power: to read the content of the one message whose descriptor it was handed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::stat::fstat;

use crate::QueueError;
use crate::format::head::Head;
use crate::stored::{FIRST_READ, READ_SIZE, read_up_to};

/// The content of a message: RFC 5322 header and body, LF line ends.
///
/// Reads with a position of its own: the descriptor's is shared with every process that was handed it. Clones share the
/// descriptor and read independently.
#[derive(Clone, Debug)]
pub struct Content {
    file: Arc<File>,
    start: u64,
    size: u64,
    position: u64,
    /// What came along with the head: as much of the file as one read takes.
    first_read: Arc<Vec<u8>>,
}

impl Content {
    pub(crate) fn new(file: Arc<File>, start: u64, size: u64) -> Self {
        Self { file, start, size, position: 0, first_read: Arc::default() }
    }

    /// Takes a queue file that was handed over, and its head apart again: every offset lies in the file.
    ///
    /// The checksum of the envelope, which qmgr has verified, is not computed anew: an agent that is asked for each of
    /// ten thousand recipients would read all of them as often. Whoever was told the size of the content compares it.
    ///
    /// # Errors
    /// What reading says, or what is wrong with the bytes.
    pub fn from_file(file: Arc<File>) -> Result<Self, QueueError> {
        let path = || Path::new("the descriptor handed over").into();
        let stat = fstat(&file).map_err(|errno| QueueError::new("stat", path(), errno.into()))?;
        let file_size = u64::try_from(stat.st_size).unwrap_or_default();
        // No more than there is: a small file is not asked for its end.
        let mut bytes = vec![0; FIRST_READ.min(usize::try_from(file_size).unwrap_or(FIRST_READ))];
        let read =
            read_up_to(&file, &mut bytes, 0).map_err(|error| QueueError::new("read", path(), error))?;
        bytes.truncate(read);
        let head =
            Head::decode(&bytes, file_size).map_err(|damage| QueueError::Damaged { path: path(), damage })?;
        let (start, size) = (head.content_offset, head.content_size);
        Ok(Self { file, start, size, position: 0, first_read: Arc::new(bytes) })
    }

    /// As much of the beginning as came along with the head; of a small message all, of others perhaps nothing.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        let known = self.first_read.get(start..).unwrap_or_default();
        &known[..usize::try_from(self.size).unwrap_or(usize::MAX).min(known.len())]
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file and the range of the content in it, for a copy inside the kernel (`copy_file_range`, `sendfile`).
    #[must_use]
    pub fn range(&self) -> (BorrowedFd<'_>, std::ops::Range<u64>) {
        (self.file.as_fd(), self.start..self.start + self.size)
    }

    /// Reads at an offset of the content; 0 bytes at its end.
    ///
    /// # Errors
    /// What reading says; a file that has become shorter is `UnexpectedEof`.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let known =
            usize::try_from(offset).ok().and_then(|at| self.beginning().get(at..at.checked_add(wanted)?));
        if let Some(known) = known {
            buffer[..wanted].copy_from_slice(known);
            return Ok(wanted);
        }
        match self.file.read_at(&mut buffer[..wanted], self.start + offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }

    /// Makes the message last in the queue: whoever handed it over may not have waited for the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Begins to read from the first byte again.
    pub fn rewind(&mut self) {
        self.position = 0;
    }

    /// Writes the whole content, whatever the position, with large reads and writes: how much that was.
    ///
    /// # Errors
    /// What reading or writing says.
    pub fn copy_to(&self, out: &mut impl Write) -> io::Result<u64> {
        let mut buffer = vec![0; READ_SIZE.min(usize::try_from(self.size).unwrap_or(READ_SIZE))];
        let mut done = 0;
        while done < self.size {
            let read = match self.read_at(&mut buffer, done) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            out.write_all(&buffer[..read])?;
            done += read as u64;
        }
        Ok(done)
    }

    /// The header with the empty line that ends it, if there is one: at most `limit` bytes of it.
    ///
    /// # Errors
    /// What reading says.
    pub fn header(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut header = Vec::new();
        let mut buffer = vec![0; READ_SIZE.min(usize::try_from(self.size).unwrap_or(READ_SIZE)).min(limit)];
        while header.len() < limit {
            let read = match self.read_at(&mut buffer, header.len() as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if read == 0 {
                break;
            }
            // The empty line may lie across two reads.
            let searched = header.len().saturating_sub(1);
            header.extend_from_slice(&buffer[..read]);
            if header.starts_with(b"\n") {
                header.truncate(1);
                return Ok(header);
            }
            if let Some(end) = header[searched..].windows(2).position(|pair| pair == b"\n\n") {
                header.truncate(searched + end + 2);
                break;
            }
        }
        header.truncate(limit);
        Ok(header)
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
