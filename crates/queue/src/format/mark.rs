//! The short records of the journal: a recipient's state, and the beginning of a life.
//!
//! `kind and length u32, checksum u32, body`. A mark may be relied on: where it can be read after a power cut, what was done
//! before it was written has outlived the power cut, too (see the crate's head). So it must never be something that was left
//! behind on the disk. The checksum covers what tells it from all such: the message, its place in the file, and the life
//! in which it was written. A life is a number that a queue manager chooses for itself; its record is shorter than a mark, so
//! that a file that has just grown by it shows no mark of an earlier life in its place.

use crate::format::envelope::RecipientState;
use crate::format::fields::Fields;

/// What stands before a body.
const PREFIX: usize = 8;

/// No attempt is that long: a reader that knows only those is at the end of the journal.
const SHORT: u32 = 1 << 31;

const MARK: u32 = SHORT | 5;
const LIFE: u32 = SHORT | 4;

/// The size of a mark.
pub(crate) const MARK_SIZE: usize = PREFIX + 5;

/// The size of the beginning of a life.
pub(crate) const LIFE_SIZE: usize = PREFIX + 4;

/// Where a short record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The checksum of the message's envelope.
    pub(crate) message: u32,
    /// The life that the journal has come to; 0 is that of the queue manager that the message came to first.
    pub(crate) life: u32,
    /// The offset in the file.
    pub(crate) offset: u64,
}

impl Place {
    fn checksum(self, kind: u32, body: &[u8]) -> u32 {
        let mut checksum = crc32fast::Hasher::new();
        // The record of a life says which one begins, whatever was before.
        let life = if kind == LIFE { 0 } else { self.life };
        checksum.update(&self.message.to_le_bytes());
        checksum.update(&life.to_le_bytes());
        checksum.update(&self.offset.to_le_bytes());
        checksum.update(&kind.to_le_bytes());
        checksum.update(body);
        checksum.finalize()
    }

    fn push(self, kind: u32, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.checksum(kind, body).to_le_bytes());
        out.extend_from_slice(body);
    }

    /// Appends the record of a recipient's state.
    pub(crate) fn push_mark(self, recipient: u32, state: RecipientState, out: &mut Vec<u8>) {
        let mut body = [0; 5];
        body[..4].copy_from_slice(&recipient.to_le_bytes());
        body[4] = state.byte();
        self.push(MARK, &body, out);
    }

    /// Appends the record that a life begins.
    pub(crate) fn push_life(self, life: u32, out: &mut Vec<u8>) {
        self.push(LIFE, &life.to_le_bytes(), out);
    }

    /// Takes the short record at the front of `bytes`, and how many bytes it took.
    pub(crate) fn take(self, bytes: &[u8]) -> Option<(Short, usize)> {
        let mut fields = Fields::new(bytes);
        let (kind, checksum) = (fields.u32()?, fields.u32()?);
        let size = match kind {
            MARK => MARK_SIZE,
            LIFE => LIFE_SIZE,
            _ => return None,
        };
        let body = fields.bytes(size - PREFIX)?;
        if self.checksum(kind, body) != checksum {
            return None;
        }
        let mut body = Fields::new(body);
        let number = body.u32()?;
        Some((if kind == LIFE { Short::Life(number) } else { Short::Mark(number, body.u8()?) }, size))
    }
}

/// A short record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// A recipient's number, and the byte of its state.
    Mark(u32, u8),
    /// A life begins.
    Life(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { message: 0x1234_5678, life: 7, offset: 4_321 };

    fn mark(place: Place) -> Vec<u8> {
        let mut bytes = Vec::new();
        place.push_mark(9, RecipientState::Done, &mut bytes);
        bytes
    }

    #[test]
    fn a_record_is_taken_where_it_was_written_and_nowhere_else() {
        let bytes = mark(PLACE);
        assert_eq!(PLACE.take(&bytes), Some((Short::Mark(9, b'D'), MARK_SIZE)));
        for other in
            [Place { message: 1, ..PLACE }, Place { life: 8, ..PLACE }, Place { offset: 4_322, ..PLACE }]
        {
            assert_eq!(other.take(&bytes), None, "{other:?}");
        }
    }

    #[test]
    fn a_life_begins_whichever_was_before_and_is_shorter_than_a_mark() {
        let mut bytes = Vec::new();
        PLACE.push_life(99, &mut bytes);
        assert_eq!(Place { life: 0, ..PLACE }.take(&bytes), Some((Short::Life(99), LIFE_SIZE)));
        assert!(bytes.len() < mark(PLACE).len());
    }

    #[test]
    fn a_torn_or_changed_record_is_none() {
        let bytes = mark(PLACE);
        for cut in 0..bytes.len() {
            assert_eq!(PLACE.take(&bytes[..cut]), None, "cut at {cut}");
            let rest = [&bytes[..cut], &vec![0; bytes.len() - cut]].concat();
            assert!(rest == bytes || PLACE.take(&rest).is_none(), "zeros from {cut}");
        }
        for place in 0..bytes.len() {
            for change in 1..=u8::MAX {
                let mut bytes = bytes.clone();
                bytes[place] ^= change;
                assert_eq!(PLACE.take(&bytes), None, "byte {place} ^ {change:#x}");
            }
        }
        assert_eq!(PLACE.take(&[0; 64]), None);
    }
}
