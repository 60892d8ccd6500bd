//! Reading a Maildir.

use std::fs;
use std::path::Path;

/// The messages in `new/` and `cur/` of a Maildir, in the order of their names; none where there is no Maildir.
#[must_use]
pub fn messages(maildir: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = ["new", "cur"]
        .iter()
        .filter_map(|folder| fs::read_dir(maildir.join(folder)).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files.iter().filter_map(|path| fs::read(path).ok()).collect()
}
