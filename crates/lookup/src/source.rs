//! The text that tables are made of: logical lines, and the entries on them.
//!
//! A logical line starts in the first column and is continued by lines that start with white space. Empty lines and lines
//! whose first visible character is `#` do not count, even between a line and its continuation.

use std::io::{self, BufRead};

use crate::warning::warn;

/// The longest logical line, in bytes. A mailing list of some hundred thousand addresses on one line fits.
const LINE_LIMIT: usize = 16 * 1024 * 1024;

/// Reads logical lines.
pub struct LogicalLines<'a, R> {
    reader: R,
    /// What warnings call the text: usually the name of its file.
    name: &'a str,
    line: Vec<u8>,
    physical: usize,
}

/// One logical line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The number of the line that it starts on, from 1.
    pub number: usize,
    /// Its text, without ends of line and without white space at the end. It starts with a visible character.
    pub text: &'a [u8],
}

impl<'a, R: BufRead> LogicalLines<'a, R> {
    /// Reads `reader`; warnings call it `name`.
    pub fn new(reader: R, name: &'a str) -> Self {
        Self { reader, name, line: Vec::new(), physical: 0 }
    }

    /// The next logical line, or `None` at the end.
    ///
    /// # Errors
    /// Reading fails, or a logical line is longer than 16 MiB.
    #[allow(clippy::should_implement_trait)] // the line borrows the reader's buffer, which an Iterator cannot express
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut number = 0;
        while let Some(&first) = self.reader.fill_buf()?.first() {
            if !self.line.is_empty() && !first.is_ascii_whitespace() && first != b'#' {
                break;
            }
            let start = self.line.len();
            self.reader.read_until(b'\n', &mut self.line)?;
            self.physical += 1;
            if self.line.len() > LINE_LIMIT {
                let text = format!("line {} is longer than {LINE_LIMIT} bytes", self.physical);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            strip_line_end(&mut self.line);
            let piece = self.line.get(start..).unwrap_or_default();
            let visible = piece.trim_ascii_start();
            if visible.is_empty() || visible.starts_with(b"#") {
                self.line.truncate(start);
            } else if start > 0 {
                // A continuation.
            } else if first.is_ascii_whitespace() {
                let (name, at, shown) = (self.name, self.physical, excerpt(piece));
                warn(format_args!(
                    "{name}, line {at}: logical line must not start with whitespace: \"{shown}\""
                ));
                self.line.clear();
            } else {
                number = self.physical;
            }
        }
        let text = self.line.trim_ascii_end();
        Ok((!text.is_empty()).then_some(Line { number, text }))
    }
}

fn strip_line_end(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
}

/// The beginning of a line, fit for a warning.
pub(crate) fn excerpt(text: &[u8]) -> String {
    const LENGTH: usize = 30;
    let shown = String::from_utf8_lossy(text.get(..LENGTH).unwrap_or(text));
    let mut shown: String = shown.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.len() > LENGTH {
        shown.push_str("...");
    }
    shown
}

/// Which of the two grammars a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// `key whitespace value`, of postmap(1).
    Map,
    /// `name: value`, of aliases(5).
    Alias,
}

/// Splits a logical line into key and value; both borrow the line or, where a quoted alias name had to be unquoted,
/// `scratch`.
///
/// # Errors
/// The words that say what is wrong with the line; it is to be ignored.
pub fn split_entry<'a>(
    grammar: Grammar,
    line: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<(&'a [u8], &'a [u8]), String> {
    match grammar {
        Grammar::Map => split_map_entry(line),
        Grammar::Alias => split_alias_entry(line, scratch),
    }
}

/// A key ends at the first white space outside of `"…"`. The quotes stay part of the key, as an address with a quoted
/// local part is looked up with them.
fn split_map_entry(line: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut quoted = false;
    let mut bytes = line.iter().enumerate();
    let end = loop {
        match bytes.next() {
            None => break line.len(),
            Some((at, byte)) if byte.is_ascii_whitespace() && !quoted => break at,
            Some((_, b'"')) => quoted = !quoted,
            Some((_, b'\\')) => {
                bytes.next();
            }
            Some(_) => {}
        }
    };
    if quoted {
        return Err(format!("unbalanced '\"' in '{}'", excerpt(line)));
    }
    let (key, value) = line.split_at(end);
    let value = value.trim_ascii_start();
    if value.is_empty() {
        return Err("expected format: key whitespace value".to_owned());
    }
    Ok((key, value))
}

/// The name of an alias may be quoted, wholly or in part; it is stored without its quotes, which is how local(8) asks.
fn split_alias_entry<'a>(line: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<(&'a [u8], &'a [u8]), String> {
    const EXPECTED: &str = "expected format: name: value";
    scratch.clear();
    let mut quoted = false;
    let mut bytes = line.iter().enumerate();
    let colon = loop {
        match bytes.next() {
            None if quoted => return Err(format!("unbalanced '\"' in '{}'", excerpt(line))),
            None => return Err(EXPECTED.to_owned()),
            Some((at, b':')) if !quoted => break at,
            Some((_, b'"')) => quoted = !quoted,
            Some((_, b'\\')) => scratch.extend(bytes.next().map(|(_, &byte)| byte)),
            Some((_, &byte)) => scratch.push(byte),
        }
    };
    let verbatim = line.get(..colon).unwrap_or_default();
    let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
    let key: &[u8] = if verbatim.contains(&b'"') || verbatim.contains(&b'\\') { scratch } else { verbatim };
    let key = key.trim_ascii();
    if key.is_empty() || value.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String)> {
        let mut reader = LogicalLines::new(text.as_bytes(), "test");
        let mut lines = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            lines.push((line.number, String::from_utf8_lossy(line.text).into_owned()));
        }
        lines
    }

    fn entry(grammar: Grammar, line: &str) -> Result<(String, String), String> {
        let mut scratch = Vec::new();
        split_entry(grammar, line.as_bytes(), &mut scratch).map(|(key, value)| {
            (String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned())
        })
    }

    fn pair(key: &str, value: &str) -> Result<(String, String), String> {
        Ok((key.to_owned(), value.to_owned()))
    }

    #[test]
    fn a_line_goes_on_across_comments_and_empty_lines() {
        assert_eq!(
            lines("a 1\n  more\n# comment\n\n\tlast \r\nb 2\n   # comment\nc"),
            [(1, "a 1  more\tlast".to_owned()), (6, "b 2".to_owned()), (8, "c".to_owned())]
        );
        assert_eq!(lines(" lost\na 1"), [(2, "a 1".to_owned())]);
        assert_eq!(lines("\n#\n \n"), []);
    }

    #[test]
    fn quotes_keep_white_space_in_a_key_and_stay_part_of_it() {
        assert_eq!(entry(Grammar::Map, "a \t b c"), pair("a", "b c"));
        assert_eq!(entry(Grammar::Map, r#""a b" c"#), pair(r#""a b""#, "c"));
        assert_eq!(entry(Grammar::Map, r#""a\"b" c"#), pair(r#""a\"b""#, "c"));
        assert_eq!(entry(Grammar::Map, r#"a"b c"d e"#), pair(r#"a"b c"d"#, "e"));
        assert!(entry(Grammar::Map, r#""a b c"#).unwrap_err().starts_with("unbalanced"));
        assert_eq!(entry(Grammar::Map, "a").unwrap_err(), "expected format: key whitespace value");
    }

    #[test]
    fn an_alias_is_stored_without_its_quotes() {
        assert_eq!(entry(Grammar::Alias, "root: jane, joe"), pair("root", "jane, joe"));
        assert_eq!(entry(Grammar::Alias, "root :jane"), pair("root", "jane"));
        assert_eq!(entry(Grammar::Alias, r#""a: b\"c": "|cmd x:y""#), pair("a: b\"c", r#""|cmd x:y""#));
        assert_eq!(entry(Grammar::Alias, "root").unwrap_err(), "expected format: name: value");
        assert!(entry(Grammar::Alias, "root:").is_err());
        assert!(entry(Grammar::Alias, ": jane").is_err());
    }
}
