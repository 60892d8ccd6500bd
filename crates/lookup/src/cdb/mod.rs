//! The constant database that indexed tables are kept in: D. J. Bernstein's cdb format, which other tools read as well.
//!
//! ```text
//! 0     256 × { position, slots }     where the hash table of each of the 256 low bytes of a hash is, and its size
//! 2048  { key length, value length, key, value } …
//!       256 × hash table of { hash, position of the record }, empty slots being zero, searched from slot (hash / 256) mod slots
//! ```
//!
//! All numbers are 32 bits, little-endian; so a file holds at most 4 GiB. A database is never changed: it is written anew
//! and takes the place of the old one by `rename`, so that a reader sees the one or the other and needs no lock.

mod builder;
mod reader;
#[cfg(test)]
mod tests;

pub use builder::{Builder, Dropped, Keep, TooLarge};
pub use reader::{Cdb, Damage, Records};

/// The size of the table of tables at the head of the file.
const HEAD: usize = 2048;

/// The hash function of the format.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381u32, |hash, &byte| (hash << 5).wrapping_add(hash) ^ u32::from(byte))
}
