//! Read-only maps of files that are replaced, never changed in place.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A file's bytes, mapped.
#[derive(Debug)]
pub struct Mmap(memmap2::Mmap);

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps the whole of `file` for reading.
///
/// The caller maps only files whose writers replace them by `rename`: a file that is truncated while it is mapped
/// ends the process that reads beyond its end (SIGBUS), and one that is written to changes under the reader's eyes.
///
/// # Errors
/// What `mmap` says; an empty file cannot be mapped.
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes are only read, and as bytes; the index files that are mapped are replaced atomically by their
    // one writer (postmap), as the documentation above demands.
    unsafe { memmap2::Mmap::map(file) }.map(Mmap)
}
