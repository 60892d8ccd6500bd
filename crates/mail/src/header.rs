//! The header block of a message, field by field, over bytes that may not all be there yet.
//!
//! A field is a line that begins with a name and a colon, and the lines after it that begin with a blank (RFC 5322
//! section 2.2.3). The first line that is neither ends the block, whether it is empty or not. Lines end with LF.

use memchr::memchr;

/// What stands at the beginning of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A field.
    Field(Field<'a>),
    /// No field: the block has ended.
    End,
    /// More bytes are needed to tell, or to see the end of the field.
    Incomplete,
}

/// A header field, with its folding and its last LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    bytes: &'a [u8],
    name_length: usize,
    colon: usize,
}

/// Reads the field at the beginning of `bytes`. `last` says that nothing follows them.
#[must_use]
pub fn next(bytes: &[u8], last: bool) -> Next<'_> {
    let Some(first_line) = line_length(bytes, 0, last) else {
        // A line may be longer than any buffer: whether it begins a field can be known earlier.
        return if is_beginning_of_name(bytes) { Next::Incomplete } else { Next::End };
    };
    let Some((name_length, colon)) = name_and_colon(&bytes[..first_line]) else { return Next::End };
    let mut end = first_line;
    loop {
        match bytes.get(end) {
            Some(b' ' | b'\t') => match line_length(bytes, end, last) {
                Some(length) => end += length,
                None => return Next::Incomplete,
            },
            None if !last => return Next::Incomplete,
            _ => return Next::Field(Field { bytes: &bytes[..end], name_length, colon }),
        }
    }
}

/// The name of the field that a line begins; `None` for a line that begins none.
#[must_use]
pub fn name(line: &[u8]) -> Option<&[u8]> {
    name_and_colon(line).map(|(length, _)| &line[..length])
}

/// The length of the line at `start` with its LF.
fn line_length(bytes: &[u8], start: usize, last: bool) -> Option<usize> {
    match memchr(b'\n', &bytes[start..]) {
        Some(position) => Some(position + 1),
        None if last => Some(bytes.len() - start),
        None => None,
    }
}

/// The length of the name and the place of the colon. Blanks between them are the obsolete syntax of RFC 5322
/// section 4.5; a name is printable ASCII.
fn name_and_colon(line: &[u8]) -> Option<(usize, usize)> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let right = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let blanks = line[name.len()..colon].iter().all(|b| matches!(b, b' ' | b'\t'));
    (right && blanks).then_some((name.len(), colon))
}

/// Whether a line of which only the beginning is known may still be a field.
fn is_beginning_of_name(bytes: &[u8]) -> bool {
    if memchr(b':', bytes).is_some() {
        return name_and_colon(bytes).is_some();
    }
    let name = bytes.trim_ascii_end();
    name.iter().all(u8::is_ascii_graphic) && (bytes.is_empty() || !name.is_empty())
}

impl<'a> Field<'a> {
    /// The name as it is written.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.bytes.split_at(self.name_length).0
    }

    /// Whether it has this name, in any case.
    #[must_use]
    pub const fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// The whole field, its last LF included where there is one.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The name, blanks and the colon: what comes before [`Field::value`].
    #[must_use]
    pub const fn label(&self) -> &'a [u8] {
        self.bytes.split_at(self.colon + 1).0
    }

    /// What follows the colon: folded, with the LF at the end.
    #[must_use]
    pub const fn value(&self) -> &'a [u8] {
        self.bytes.split_at(self.colon + 1).1
    }

    /// The value without the blanks and line ends around it; folding inside it remains.
    #[must_use]
    pub const fn trimmed_value(&self) -> &'a [u8] {
        self.value().trim_ascii()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(block: &str) -> (Vec<(String, String)>, &str) {
        let mut found = Vec::new();
        let mut rest = block;
        while let Next::Field(field) = next(rest.as_bytes(), true) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            found.push((text(field.name()), text(field.trimmed_value())));
            assert_eq!(field.label().len() + field.value().len(), field.bytes().len());
            rest = &rest[field.bytes().len()..];
            if rest.is_empty() {
                break;
            }
        }
        (found, rest)
    }

    #[test]
    fn fields_end_where_no_blank_begins_the_next_line() {
        let (found, rest) = fields("Subject: a\n b\n\tc\nTo : x\nX-Empty:\n\nbody: no\n");
        let expected = [("Subject", "a\n b\n\tc"), ("To", "x"), ("X-Empty", "")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(rest, "\nbody: no\n");
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_block() {
        for line in [
            "From joe Thu Jan 1\n",
            " folded\n",
            "no colon\n",
            ": x\n",
            "a b: c\n",
            "é: x\n",
            "\n",
            "a\x01b: c\n",
        ] {
            assert_eq!(next(line.as_bytes(), true), Next::End, "{line:?}");
            assert_eq!(name(line.as_bytes()), None);
        }
        assert_eq!(next(b"", true), Next::End);
    }

    #[test]
    fn what_is_not_all_there_is_incomplete() {
        for part in
            ["", "Sub", "Subject", "Subject ", "Subject:", "Subject: x", "Subject: x\n", "Subject: x\n y"]
        {
            assert_eq!(next(part.as_bytes(), false), Next::Incomplete, "{part:?}");
        }
        for part in ["a b", " ", "\n", "é", "Subject: x\nT"] {
            assert_ne!(next(part.as_bytes(), false), Next::Incomplete, "{part:?}");
        }
        assert!(matches!(next(b"Subject: x", true), Next::Field(_)));
    }
}
