//! Where the parts of a MIME message begin (RFC 2046): as much of the structure as checks of attached headers need.
//!
//! The caller feeds fields and lines in order and is told which of them are header. Nothing is decoded. Malformed
//! structure is no error: what is not seen to be header is body.

use crate::header::Field;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The header block of the message itself.
    Primary,
    /// The header block of a part of a multipart.
    Part,
    /// The header block of an attached message.
    Nested,
    /// Lines that are no header.
    Body,
}

/// More multiparts inside each other than are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

/// Follows the structure of one message.
#[derive(Clone, Debug)]
pub struct Structure {
    limits: Limits,
    place: Place,
    /// What the header block that is being read says of its body.
    content: Content,
    /// The multiparts that are open, the innermost last.
    open: Vec<Multipart>,
}

/// How much of a structure is followed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest boundary that is remembered; a longer one is compared up to here.
    pub boundary_length: usize,
    /// The most multiparts inside each other.
    pub depth: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Leaf,
    Message,
    Multipart(Multipart),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Multipart {
    boundary: Vec<u8>,
    /// A digest: its parts are messages unless they say otherwise (RFC 2046 section 5.1.5).
    digest: bool,
}

impl Structure {
    /// At the beginning of a message.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, place: Place::Primary, content: Content::Leaf, open: Vec::new() }
    }

    /// Where the next bytes belong.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// How many multiparts the place is in.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// A field of a header block.
    pub fn field(&mut self, field: &Field<'_>) {
        if field.is("Content-Type") {
            self.content = content_of(field.value(), self.limits.boundary_length);
        }
    }

    /// A header block has ended; `with_empty_line` says that it ended as it should.
    ///
    /// # Errors
    /// The body would be one multipart too many. It is then taken for plain body.
    pub fn end_headers(&mut self, with_empty_line: bool) -> Result<(), TooDeep> {
        self.place = Place::Body;
        match std::mem::replace(&mut self.content, Content::Leaf) {
            Content::Message if with_empty_line => self.place = Place::Nested,
            Content::Multipart(_) if self.open.len() >= self.limits.depth => return Err(TooDeep),
            Content::Multipart(multipart) => self.open.push(multipart),
            Content::Message | Content::Leaf => {}
        }
        Ok(())
    }

    /// A line of a body. It may be a boundary, after which a header block begins.
    pub fn line(&mut self, line: &[u8]) {
        let Some(text) = line.strip_prefix(b"--") else { return };
        let found = self.open.iter().rposition(|multipart| text.starts_with(&multipart.boundary));
        let Some(found) = found else { return };
        let ends = text[self.open[found].boundary.len()..].starts_with(b"--");
        // An inner multipart whose end is missing ends here, too.
        if ends {
            self.open.truncate(found);
            return;
        }
        self.open.truncate(found + 1);
        self.place = Place::Part;
        self.content = if self.open[found].digest { Content::Message } else { Content::Leaf };
    }
}

/// The type and subtype in the value of a `Content-Type` (RFC 2045 section 5.1), as they are written.
#[must_use]
pub fn media_type(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut tokens = Tokens { rest: value };
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(kind), Some(b"/"), Some(subtype)) => Some((kind, subtype)),
        _ => None,
    }
}

/// The first word of a value that may have comments, as that of `Content-Transfer-Encoding`.
#[must_use]
pub fn first_word(value: &[u8]) -> &[u8] {
    Tokens { rest: value }.next().unwrap_or_default()
}

/// Reads the value of a `Content-Type` (RFC 2045 section 5.1).
fn content_of(value: &[u8], boundary_length: usize) -> Content {
    let mut tokens = Tokens { rest: value };
    let (Some(kind), Some(b"/"), Some(subtype)) = (tokens.next(), tokens.next(), tokens.next()) else {
        return Content::Leaf;
    };
    if kind.eq_ignore_ascii_case(b"message") {
        let attached = subtype.eq_ignore_ascii_case(b"rfc822") || subtype.eq_ignore_ascii_case(b"global");
        return if attached { Content::Message } else { Content::Leaf };
    }
    if !kind.eq_ignore_ascii_case(b"multipart") {
        return Content::Leaf;
    }
    let digest = subtype.eq_ignore_ascii_case(b"digest");
    while let Some(token) = tokens.next() {
        if token == b";"
            && tokens.next().is_some_and(|name| name.eq_ignore_ascii_case(b"boundary"))
            && tokens.next() == Some(b"=")
            && let Some(value) = tokens.next()
        {
            let mut boundary = unquoted(value);
            boundary.truncate(boundary_length);
            // An empty boundary would make every line with two dashes one.
            return if boundary.is_empty() {
                Content::Leaf
            } else {
                Content::Multipart(Multipart { boundary, digest })
            };
        }
    }
    Content::Leaf
}

fn unquoted(token: &[u8]) -> Vec<u8> {
    let Some(inner) = token.strip_prefix(b"\"") else { return token.to_vec() };
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => text.extend(bytes.next()),
            b'\r' | b'\n' => {}
            byte => text.push(*byte),
        }
    }
    text
}

/// The tokens of RFC 2045 section 5.1, without comments and blanks.
struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest.trim_ascii_start();
            let length = match rest.first()? {
                b'(' => {
                    self.rest = &rest[delimited(rest, b'(', b')')..];
                    continue;
                }
                b'"' => delimited(rest, b'"', b'"'),
                b';' | b'/' | b'=' | b',' | b')' | b'<' | b'>' | b'@' | b':' | b'[' | b']' | b'?' => 1,
                _ => {
                    let ends = |b: &u8| b.is_ascii_whitespace() || b"()<>@,;:\"/[]?=".contains(b);
                    rest.iter().position(ends).unwrap_or(rest.len())
                }
            };
            let (token, rest) = rest.split_at(length);
            self.rest = rest;
            return Some(token);
        }
    }
}

/// The length of what begins with `open` and ends with its `close`; without one it runs to the end.
fn delimited(text: &[u8], open: u8, close: u8) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == b'\\' {
            at += 1;
        } else if *byte == close && depth > 0 {
            depth -= 1;
        } else if *byte == open {
            depth += 1;
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{self, Next};

    const LIMITS: Limits = Limits { boundary_length: 70, depth: 3 };

    /// Shows where each line of a message belongs: P, p, n or a dot.
    fn places(message: &str) -> String {
        let mut structure = Structure::new(LIMITS);
        let mut rest = message.as_bytes();
        let mut shown = String::new();
        while !rest.is_empty() {
            let length = if structure.place() == Place::Body {
                let end = rest.iter().position(|b| *b == b'\n').unwrap() + 1;
                structure.line(&rest[..end]);
                shown.push('.');
                end
            } else if let Next::Field(field) = header::next(rest, true) {
                shown.push(match structure.place() {
                    Place::Primary => 'P',
                    Place::Part => 'p',
                    Place::Nested => 'n',
                    Place::Body => '?',
                });
                structure.field(&field);
                field.bytes().len()
            } else {
                if structure.end_headers(rest[0] == b'\n').is_err() {
                    shown.push('!');
                }
                let empty = usize::from(rest[0] == b'\n');
                shown.push_str(&"_"[..empty]);
                empty
            };
            rest = &rest[length..];
        }
        shown
    }

    #[test]
    fn parts_and_attached_messages_have_headers() {
        let message = "A: b\nContent-Type: multipart/mixed; charset=x;\n boundary=\"a \\\"b\" (c)\n\npreamble\n\
                       --a \"b\nC-D: e\nContent-Type: message/rfc822\n\nSubject: x\n\nbody\n\
                       --a \"b\n\nplain\n--a \"b--\nepilogue\n--a \"b\nno: header\n";
        assert_eq!(places(message), "PP_..pp_n_.._.....");
    }

    #[test]
    fn a_digest_has_messages() {
        let message = "Content-Type: Multipart/Digest; BOUNDARY=x\n\n--x\n\nSubject: a\n\nbody\n--x--\n";
        assert_eq!(places(message), "P_._n_..");
    }

    #[test]
    fn an_outer_boundary_ends_inner_multiparts() {
        let message = "Content-Type: multipart/a; boundary=o\n\n--o\nContent-Type: multipart/b; boundary=i\n\n\
                       --i\nA: b\n\nbody\n--o\nC: d\n\n--i\nno: header\n--o--\n";
        assert_eq!(places(message), "P_.p_.p_..p_...");
    }

    #[test]
    fn depth_is_limited() {
        let mut message = String::new();
        for level in 0..4 {
            message.push_str(&format!("Content-Type: multipart/x; boundary=b{level}\n\n--b{level}\n"));
        }
        assert_eq!(places(&message), "P_.p_.p_.p!_.");
    }

    #[test]
    fn malformed_types_are_leaves() {
        for value in [
            "",
            "multipart",
            "multipart/",
            "multipart/x",
            "multipart/x;",
            "multipart/x; boundary",
            "(",
            "\"",
            "multipart/x; boundary=",
            "multipart/x; boundary=\"\"",
            "multipart/x; boundary=\"",
            "message/partial",
            "\\",
        ] {
            assert_eq!(content_of(value.as_bytes(), 70), Content::Leaf, "{value}");
        }
    }
}
