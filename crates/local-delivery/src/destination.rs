//! What stands on the right-hand side of an alias, in a `.forward` file and in a file that `:include:` names.
//!
//! Pure. The text is split by `mail::header_address`; here an item gets its meaning.

use std::path::PathBuf;

use mail::Address;
use mail::header_address::{Mailboxes, Unfit};

/// One place where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// `user`, `user@domain`: an address, as yet without a domain where none was written.
    Address(Address),
    /// `\user`: this user's mailbox, past aliases and `.forward`.
    Mailbox(String),
    /// `|command`.
    Command(String),
    /// `/file`, or `/folder/` for a Maildir.
    File(PathBuf),
    /// `~/file`, or `~/folder/`: the same, below the home directory of whoever wrote the list.
    HomeFile(PathBuf),
    /// `:include:/file`: the destinations that the file lists.
    Include(PathBuf),
    /// Something is meant that nothing here can work with.
    Unfit(Unfit),
}

impl Destination {
    /// Reads one item: `item` is its text with quotes taken off, as of `"|command argument"`, and `escaped` whether it
    /// was written with a backslash in front.
    #[must_use]
    fn from_item(item: Address, escaped: bool) -> Self {
        const INCLUDE: &str = ":include:";
        let text = item.as_str();
        if escaped && item.domain().is_none() {
            return Self::Mailbox(text.trim_start_matches('\\').to_owned());
        }
        match text.as_bytes().first() {
            Some(b'/') => Self::File(PathBuf::from(text)),
            Some(b'~') if text.starts_with("~/") => Self::HomeFile(PathBuf::from(&text[2..])),
            Some(b'|') => Self::Command(text[1..].trim().to_owned()),
            Some(b':') if text.get(..INCLUDE.len()).is_some_and(|t| t.eq_ignore_ascii_case(INCLUDE)) => {
                Self::Include(PathBuf::from(&text[INCLUDE.len()..]))
            }
            _ => Self::Address(item),
        }
    }
}

/// The destinations of one line, in their order; the first of what is unfit comes last.
#[must_use]
pub(crate) fn parse_line(line: &str) -> Vec<Destination> {
    let mut items = Mailboxes::new(line.as_bytes());
    let mut found: Vec<Destination> = items
        .by_ref()
        .map(|item| Destination::from_item(item.address, line.as_bytes()[item.range].starts_with(b"\\")))
        .collect();
    found.extend(items.unfit().map(Destination::Unfit));
    found
}

/// The destinations of a `.forward` or `:include:` file: lines with the syntax of an alias's right-hand side, and
/// comment lines that begin with `#`. A line longer than `line_limit` bytes is read in pieces of that size, so that
/// memory is bounded by it; `limit` bounds how many destinations are taken.
///
/// # Errors
/// [`TooMany`] where the file lists more than `limit`; none is delivered to then, as some would be left out.
pub(crate) fn parse_file(text: &[u8], line_limit: usize, limit: usize) -> Result<Vec<Destination>, TooMany> {
    let mut destinations = Vec::new();
    for line in text.split(|b| *b == b'\n').filter(|line| !line.starts_with(b"#")) {
        for piece in line.chunks(line_limit.max(1)) {
            destinations.extend(parse_line(&String::from_utf8_lossy(piece)));
            if destinations.len() > limit {
                return Err(TooMany);
            }
        }
    }
    Ok(destinations)
}

/// The list is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line of the table: an item's text, ` => `, and what it means.
    #[test]
    fn the_table_of_destinations() {
        let table = include_str!("../tests/destinations.table");
        for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (text, meaning) = line.split_once(" => ").unwrap_or_else(|| panic!("no => in {line}"));
            let found: Vec<String> = parse_line(text).iter().map(show).collect();
            assert_eq!(found.join("; "), meaning, "{text}");
        }
    }

    fn show(destination: &Destination) -> String {
        match destination {
            Destination::Address(address) => format!("address {address}"),
            Destination::Mailbox(user) => format!("mailbox {user}"),
            Destination::Command(command) => format!("command {command}"),
            Destination::File(path) => format!("file {}", path.display()),
            Destination::HomeFile(path) => format!("home file {}", path.display()),
            Destination::Include(path) => format!("include {}", path.display()),
            Destination::Unfit(why) => format!("unfit: {why}"),
        }
    }

    #[test]
    fn what_is_too_long_is_no_less_than_the_others() {
        let line = format!("alice, \"|/bin/x {}\", bob", "y".repeat(3000));
        let found: Vec<String> = parse_line(&line).iter().map(show).collect();
        assert_eq!(found[..2], ["address alice", "address bob"]);
        assert!(
            found[2].starts_with("unfit: address is longer than 2048 bytes: |/bin/x yyy"),
            "{}",
            found[2]
        );
    }

    #[test]
    fn a_file_has_comments_blank_lines_and_a_limit() {
        let text = b"# who\n\nalice, bob\n  carol\n\\dave\n";
        let found = parse_file(text, 2048, 4).unwrap();
        let shown: Vec<String> = found.iter().map(show).collect();
        assert_eq!(shown, ["address alice", "address bob", "address carol", "mailbox dave"]);
        assert_eq!(parse_file(text, 2048, 3), Err(TooMany));
        assert_eq!(parse_file(b"", 2048, 3), Ok(vec![]));
        assert!(parse_file(&[0xff; 5000], 2048, 3).unwrap().len() <= 3);
    }
}
