//! Making a database.

use super::{HEAD, hash};

/// Collects records and lays them out as a database in memory.
pub struct Builder {
    /// The file so far: room for the head, then the records.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    nul: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    position: u32,
    /// Where the record comes from, for a message about it.
    line: u32,
}

/// Which of two records with the same key stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The one that was added first.
    First,
    /// The one that was added last.
    Last,
}

/// A record that gave way to another with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The key of both.
    pub key: Vec<u8>,
    /// The line of the record that was added later.
    pub line: u32,
}

/// The database would be larger than the format's 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// One slot of a hash table. Position 0 is an empty slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    position: u32,
    entry: u32,
}

impl Builder {
    /// An empty database; with `nul`, keys and values are stored with a NUL at their end.
    #[must_use]
    pub fn new(nul: bool) -> Self {
        Self { bytes: vec![0; HEAD], entries: Vec::new(), nul }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The database is full.
    pub fn add(&mut self, key: &[u8], value: &[u8], line: u32) -> Result<(), TooLarge> {
        let nul: &[u8] = if self.nul { b"\0" } else { b"" };
        let position = u32::try_from(self.bytes.len()).map_err(|_| TooLarge)?;
        let length = |text: &[u8]| u32::try_from(text.len() + nul.len()).map_err(|_| TooLarge);
        let (key_length, value_length) = (length(key)?, length(value)?);
        self.bytes.extend_from_slice(&key_length.to_le_bytes());
        self.bytes.extend_from_slice(&value_length.to_le_bytes());
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(nul);
        let hash = hash(self.bytes.get(key_start..).unwrap_or_default());
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(nul);
        self.entries.push(Entry { hash, position, line });
        Ok(())
    }

    /// The bytes of the finished file, and the records that are not in it because their key occurred twice, by line.
    ///
    /// # Errors
    /// The database would be too large.
    pub fn finish(mut self, keep: Keep) -> Result<(Vec<u8>, Vec<Dropped>), TooLarge> {
        let records_end = self.bytes.len();
        let losers = self.append_tables(keep)?;
        if losers.is_empty() {
            return Ok((self.bytes, Vec::new()));
        }
        self.bytes.truncate(records_end);
        let mut dropped: Vec<Dropped> = losers
            .iter()
            .map(|&(loser, later)| {
                let key = self.key(self.entries[loser].position);
                let key = if self.nul { key.strip_suffix(b"\0").unwrap_or(key) } else { key };
                Dropped { key: key.to_vec(), line: self.entries[later].line }
            })
            .collect();
        dropped.sort_by_key(|dropped| dropped.line);
        let mut lost = vec![false; self.entries.len()];
        for (loser, _) in losers {
            lost[loser] = true;
        }
        Ok((self.without(&lost)?, dropped))
    }

    /// Lays out the hash tables behind the records and fills the head in. Returns pairs of entries with one key: the one
    /// that is to go, and the later of the two. If there are any, the layout has wasted slots and is to be made again.
    fn append_tables(&mut self, keep: Keep) -> Result<Vec<(usize, usize)>, TooLarge> {
        let mut losers = Vec::new();
        let (order, starts) = sorted_by_table(&self.entries);
        let mut slots: Vec<Slot> = Vec::new();
        for table in 0..256 {
            let members = &order[starts[table]..starts[table + 1]];
            slots.clear();
            slots.resize(members.len() * 2, Slot::default());
            for &index in members {
                if let Some(loser) = self.place(&mut slots, index, keep) {
                    losers.push(loser);
                }
            }
            let position = u32::try_from(self.bytes.len()).map_err(|_| TooLarge)?;
            let count = u32::try_from(slots.len()).map_err(|_| TooLarge)?;
            let head = &mut self.bytes[table * 8..table * 8 + 8];
            head[..4].copy_from_slice(&position.to_le_bytes());
            head[4..].copy_from_slice(&count.to_le_bytes());
            for slot in &slots {
                self.bytes.extend_from_slice(&slot.hash.to_le_bytes());
                self.bytes.extend_from_slice(&slot.position.to_le_bytes());
            }
        }
        u32::try_from(self.bytes.len()).map(|_| losers).map_err(|_| TooLarge)
    }

    /// Puts an entry into the first free slot from the one that its hash names, unless its key is there already.
    fn place(&self, slots: &mut [Slot], index: u32, keep: Keep) -> Option<(usize, usize)> {
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let entry = self.entries[number(index)];
        let new = Slot { hash: entry.hash, position: entry.position, entry: index };
        let mut at = number(entry.hash >> 8) % slots.len();
        loop {
            let old = slots[at];
            if old.position == 0 {
                slots[at] = new;
                return None;
            }
            if old.hash == new.hash && self.key(old.position) == self.key(new.position) {
                let later = number(index);
                if keep == Keep::First {
                    return Some((later, later));
                }
                slots[at] = new;
                return Some((number(old.entry), later));
            }
            at = (at + 1) % slots.len();
        }
    }

    /// The finished file without the entries that are marked in `lost`.
    fn without(&self, lost: &[bool]) -> Result<Vec<u8>, TooLarge> {
        let mut rest = Self { bytes: vec![0; HEAD], entries: Vec::new(), nul: self.nul };
        let ends = self.entries.iter().skip(1).map(|next| next.position);
        let last = u32::try_from(self.bytes.len()).map_err(|_| TooLarge)?;
        for ((entry, end), lost) in self.entries.iter().zip(ends.chain([last])).zip(lost) {
            if !lost {
                let position = u32::try_from(rest.bytes.len()).map_err(|_| TooLarge)?;
                rest.bytes.extend_from_slice(&self.bytes[range(entry.position, end)]);
                rest.entries.push(Entry { position, ..*entry });
            }
        }
        rest.append_tables(Keep::First)?;
        Ok(rest.bytes)
    }

    /// The key of the record at `position`.
    fn key(&self, position: u32) -> &[u8] {
        let record = &self.bytes[range(position, u32::MAX).start..];
        let (length, rest) = record.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let length = range(u32::from_le_bytes(*length), u32::MAX).start;
        rest.get(4..4 + length).unwrap_or_default()
    }
}

fn range(start: u32, end: u32) -> std::ops::Range<usize> {
    usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX)
}

/// The numbers of the entries, those of one hash table side by side and in the order in which they were added (a counting
/// sort); and where each table's begin.
fn sorted_by_table(entries: &[Entry]) -> (Vec<u32>, [usize; 257]) {
    let table_of = |entry: &Entry| usize::from(entry.hash.to_le_bytes()[0]);
    let mut starts = [0usize; 257];
    for entry in entries {
        starts[table_of(entry) + 1] += 1;
    }
    for table in 0..256 {
        starts[table + 1] += starts[table];
    }
    let mut next = starts;
    let mut order = vec![0u32; entries.len()];
    for (index, entry) in (0u32..).zip(entries) {
        let place = &mut next[table_of(entry)];
        order[*place] = index;
        *place += 1;
    }
    (order, starts)
}
