//! Postfix's queue file: records, each a type byte, a length in groups of seven bits (the lowest first, the highest bit says
//! that more follow), and that many bytes.
//!
//! `p` holds the offset at which reading goes on; a filter that changed the message has left such bridges in it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// More than any line that Postfix writes.
const MAX_RECORD: u64 = 1 << 20;

/// More than filters leave; a file in which reading goes round and round ends.
const MAX_JUMPS: u32 = 100_000;

const POINTER: u8 = b'p';
const PADDING: u8 = b'w';

/// The records of a file in the order in which they count.
pub(super) struct Records {
    file: BufReader<File>,
    jumps: u32,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) data: Vec<u8>,
}

impl Record {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

impl Records {
    /// From the beginning of a file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file: BufReader::new(file), jumps: 0 })
    }

    /// The next record; a file that ends without the record that ends it is damaged.
    pub(super) fn next(&mut self) -> io::Result<Record> {
        loop {
            let record = self.read()?;
            match record.kind {
                PADDING => {}
                POINTER => self.jump(&record)?,
                _ => return Ok(record),
            }
        }
    }

    fn read(&mut self) -> io::Result<Record> {
        let kind = self.byte()?;
        let mut length = 0_u64;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            length |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return Err(damaged("a length that is none"));
            }
        }
        if length > MAX_RECORD {
            return Err(damaged("a record that is too long"));
        }
        let mut data = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut data)?;
        match data.len() as u64 == length {
            true => Ok(Record { kind, data }),
            false => Err(damaged("it ends within a record")),
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        match self.file.read_exact(&mut byte) {
            Ok(()) => Ok(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("it ends too early")),
            Err(error) => Err(error),
        }
    }

    /// A pointer to 0 leads nowhere yet.
    fn jump(&mut self, record: &Record) -> io::Result<()> {
        let place: u64 = record.text().trim().parse().map_err(|_| damaged("a pointer that is none"))?;
        self.jumps += 1;
        if self.jumps > MAX_JUMPS {
            return Err(damaged("pointers without end"));
        }
        if place > 0 {
            self.file.seek(SeekFrom::Start(place))?;
        }
        Ok(())
    }
}

/// How many records a file of Postfix's has, and how many bytes are in them, up to the first that is damaged.
#[doc(hidden)]
#[must_use]
pub fn records_in(file: &File) -> (usize, usize) {
    let (mut count, mut size) = (0, 0);
    if let Ok(mut records) = Records::of(file) {
        while let Ok(record) = records.next() {
            count += 1;
            size += record.data.len();
        }
    }
    (count, size)
}

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged queue file: {what}"))
}
