//! What `tests/fuzz` reaches of this crate. No program uses it.

use crate::entry::Entry;

/// What is kept of an address, read and written again.
#[must_use]
pub fn entry(value: &str) -> Option<String> {
    Entry::from_value(value).map(|entry| entry.to_value())
}
