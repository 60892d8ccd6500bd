//! Reading a database, whatever its bytes are.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;

use super::{HEAD, hash};

/// A file up to this size is read into memory instead of mapped. It costs little, and such a file may even be
/// overwritten in place (`cp`), which ends a process that has it mapped.
const READ_UP_TO: u64 = 1024 * 1024;

/// An open database.
pub struct Cdb {
    bytes: Bytes,
    /// Keys and values are stored with a NUL at their end, as C programs may choose (`postmap -N`).
    nul: bool,
}

enum Bytes {
    Read(Vec<u8>),
    Mapped(sys::Mmap),
}

/// What is wrong with a file that should be a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is another kind of database: the one that Postfix writes for `hash:` and `btree:`.
    BerkeleyDb,
    /// It ends too early to be a database.
    TooShort,
    /// A hash table lies outside of the file.
    Table,
    /// A record lies outside of the file.
    Record,
}

impl Cdb {
    /// Reads or maps the file and checks that its parts are inside of it.
    ///
    /// # Errors
    /// The file cannot be read (outer), or is not a database (inner).
    pub fn open(file: &File) -> io::Result<Result<Self, Damage>> {
        let size = file.metadata()?.len();
        let bytes = if size <= READ_UP_TO {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            // The limit holds for a file that grows while it is read, too.
            let mut reader = file;
            reader.by_ref().take(READ_UP_TO).read_to_end(&mut bytes)?;
            Bytes::Read(bytes)
        } else {
            Bytes::Mapped(sys::map_file(file)?)
        };
        Ok(Self::from_bytes(bytes))
    }

    /// A database that is in memory already.
    ///
    /// # Errors
    /// As the inner error of [`Cdb::open`].
    pub fn from_vec(bytes: Vec<u8>) -> Result<Self, Damage> {
        Self::from_bytes(Bytes::Read(bytes))
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, Damage> {
        if is_berkeley_db(&bytes) {
            return Err(Damage::BerkeleyDb);
        }
        if bytes.len() < HEAD {
            return Err(Damage::TooShort);
        }
        for table in 0..256 {
            let (position, slots) = pair(&bytes, table * 8).ok_or(Damage::TooShort)?;
            let end = slots.checked_mul(8).and_then(|size| position.checked_add(size));
            if slots > 0 && (position < HEAD || end.is_none_or(|end| end > bytes.len())) {
                return Err(Damage::Table);
            }
        }
        let mut database = Self { bytes, nul: false };
        database.nul = matches!(database.records().next(), Some(Ok((key, _))) if key.last() == Some(&0));
        Ok(database)
    }

    /// The first value stored under `key`.
    ///
    /// # Errors
    /// The part of the file that the search leads to is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Damage> {
        let found = if self.nul {
            let mut key = key.to_vec();
            key.push(0);
            self.find(&key)
        } else {
            self.find(key)
        };
        found.map(|value| value.map(|value| self.without_nul(value)))
    }

    fn find(&self, key: &[u8]) -> Result<Option<&[u8]>, Damage> {
        let hash = hash(key);
        let table = usize::from(hash.to_le_bytes()[0]) * 8;
        let (start, slots) = pair(&self.bytes, table).ok_or(Damage::TooShort)?;
        let Some(first) = usize::try_from(hash >> 8).unwrap_or_default().checked_rem(slots) else {
            return Ok(None);
        };
        for slot in (first..slots).chain(0..first) {
            let (slot_hash, position) = pair(&self.bytes, start + slot * 8).ok_or(Damage::Table)?;
            if position == 0 {
                return Ok(None);
            }
            if u32::try_from(slot_hash) == Ok(hash) {
                let (stored, value, _) = self.record(position)?;
                if stored == key {
                    return Ok(Some(value));
                }
            }
        }
        Ok(None)
    }

    /// The record at `position`: its key, its value, and where the next one starts.
    fn record(&self, position: usize) -> Result<(&[u8], &[u8], usize), Damage> {
        let (key_length, value_length) = pair(&self.bytes, position).ok_or(Damage::Record)?;
        let key_start = position + 8;
        let value_start = key_start.checked_add(key_length).ok_or(Damage::Record)?;
        let end = value_start.checked_add(value_length).ok_or(Damage::Record)?;
        let key = self.bytes.get(key_start..value_start).ok_or(Damage::Record)?;
        let value = self.bytes.get(value_start..end).ok_or(Damage::Record)?;
        Ok((key, value, end))
    }

    /// Every record, in the order in which they were written.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let tables = (0..256).filter_map(|table| pair(&self.bytes, table * 8));
        let end = tables.filter(|&(_, slots)| slots > 0).map(|(position, _)| position).min();
        Records { database: self, position: HEAD, end: end.unwrap_or(HEAD) }
    }

    /// Whether keys and values are stored with a NUL at their end.
    #[must_use]
    pub fn has_nul(&self) -> bool {
        self.nul
    }

    /// Whether the database would be lost if its file were overwritten in place.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped(_))
    }

    fn without_nul<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        if self.nul { text.strip_suffix(b"\0").unwrap_or(text) } else { text }
    }
}

/// The records of a [`Cdb`]; ends after the first damaged one.
pub struct Records<'a> {
    database: &'a Cdb,
    position: usize,
    end: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        match self.database.record(self.position) {
            Ok((key, value, next)) if next <= self.end => {
                self.position = next;
                Some(Ok((self.database.without_nul(key), self.database.without_nul(value))))
            }
            _ => {
                self.position = self.end;
                Some(Err(Damage::Record))
            }
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// The two numbers at `position`.
fn pair(bytes: &[u8], position: usize) -> Option<(usize, usize)> {
    let (first, rest) = bytes.get(position..)?.split_first_chunk::<4>()?;
    let second = rest.first_chunk::<4>()?;
    let number = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).ok();
    Some((number(*first)?, number(*second)?))
}

/// Berkeley DB marks its hash and btree files with a number at byte 12, in the byte order of the machine.
fn is_berkeley_db(bytes: &[u8]) -> bool {
    const MAGIC: [u32; 2] = [0x0006_1561, 0x0005_3162];
    let magic = bytes.get(12..).and_then(|rest| rest.first_chunk::<4>()).copied();
    magic.is_some_and(|magic| {
        MAGIC.contains(&u32::from_le_bytes(magic)) || MAGIC.contains(&u32::from_be_bytes(magic))
    })
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BerkeleyDb => "is a Berkeley DB file, which Postfix wrote and only Postfix reads",
            Self::TooShort => "is damaged: too short for an index",
            Self::Table => "is damaged: a hash table lies outside of the file",
            Self::Record => "is damaged: a record lies outside of the file",
        })
    }
}

impl std::error::Error for Damage {}
