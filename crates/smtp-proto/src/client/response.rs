//! What a server said, and how it is read off the wire.

use std::fmt;

use mail::Dsn;
use memchr::memchr;

/// What is kept of a line; the rest of it is read over. RFC 5321 section 4.5.3.1.5 allows 512, servers exceed it.
const MAX_LINE: usize = 2048;
/// What is kept of all lines of a reply.
const MAX_TEXT: usize = 32 * 1024;
/// A reply of more lines is none.
const MAX_LINES: usize = 1000;

/// A whole reply of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    code: u16,
    dsn: Dsn,
    lines: String,
}

impl Response {
    /// The three digits, of the last line.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code (RFC 2034). Where the server gave none, or one whose class contradicts the reply code, it is
    /// `X.0.0`.
    #[must_use]
    pub const fn dsn(&self) -> Dsn {
        self.dsn
    }

    /// The lines as they came, with their codes, printable, parted by `\n`.
    #[must_use]
    pub fn lines(&self) -> &str {
        &self.lines
    }

    /// The lines without their codes.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.split('\n').map(|line| line.get(4..).unwrap_or(""))
    }

    /// 2xx.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: the server wants more.
    #[must_use]
    pub const fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 5xx: to try again is of no use.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// 421: the server closes the connection (RFC 5321 section 3.8).
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.code == 421
    }
}

impl fmt::Display for Response {
    /// On one line, as Postfix logs it: `550-5.1.1 no such 550 5.1.1 user`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, line) in self.lines.split('\n').enumerate() {
            let separator = if place > 0 { " " } else { "" };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

/// What is wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// This line, the first that the server says, is not one of a reply.
    Line(String),
    /// It does not end.
    Endless,
}

/// Puts replies together from bytes that come in any pieces.
///
/// A server that begins with something else than a reply speaks another protocol. One that speaks SMTP may have a
/// program print between its replies: such lines are read over, as Postfix does.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// A whole reply has come.
    spoken: bool,
    line: Vec<u8>,
    lines: String,
    /// How many lines came since the last reply, and how many of them are of the one that comes.
    read: usize,
    count: usize,
    /// The enhanced code of an earlier line: of use where the last has none.
    earlier: Option<Dsn>,
}

impl Parser {
    /// Takes bytes from the front of `input` up to the end of one reply; none where the reply is not whole yet.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Option<Result<Response, Malformed>> {
        loop {
            let found = memchr(b'\n', input);
            let piece = &input[..found.unwrap_or(input.len())];
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            *input = &input[found.map_or(input.len(), |place| place + 1)..];
            found?;
            let line = std::mem::take(&mut self.line);
            match self.line_ended(&line) {
                Ok(None) => {}
                Ok(Some(response)) => {
                    *self = Self { spoken: true, ..Self::default() };
                    return Some(Ok(response));
                }
                Err(malformed) => return Some(Err(malformed)),
            }
        }
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<Option<Response>, Malformed> {
        let line = printable(line);
        self.read += 1;
        if self.read > MAX_LINES {
            return Err(Malformed::Endless);
        }
        let Some((code, last)) = code_of(&line) else {
            let may_pass = self.spoken || self.count > 0 || line.is_empty();
            return if may_pass { Ok(None) } else { Err(Malformed::Line(line)) };
        };
        self.count += 1;
        if self.count == 1 || self.lines.len() + line.len() < MAX_TEXT {
            let separator = if self.count > 1 { "\n" } else { "" };
            self.lines.push_str(separator);
            self.lines.push_str(&line);
        }
        let dsn = line.get(4..).and_then(|text| text.split(' ').next()).and_then(|word| word.parse().ok());
        if !last {
            self.earlier = self.earlier.or(dsn);
            return Ok(None);
        }
        let agrees = |dsn: &Dsn| u16::from(dsn.class()) == code / 100;
        let given = dsn.filter(agrees).or(self.earlier.filter(agrees));
        let derived = match code / 100 {
            2 => Dsn::new(2, 0, 0),
            4 => Dsn::new(4, 0, 0),
            5 => Dsn::new(5, 0, 0),
            // 3xx has none (RFC 2034 section 4). Where it is out of place, it is a protocol error that may pass; so is a code
            // of no class that there is.
            _ => Dsn::new(4, 5, 0),
        };
        Ok(Some(Response { code, dsn: given.unwrap_or(derived), lines: std::mem::take(&mut self.lines) }))
    }
}

/// The code of a line, and whether the reply ends with it.
fn code_of(line: &str) -> Option<(u16, bool)> {
    let digits = line.get(..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let code = digits.parse().ok()?;
    match line.as_bytes().get(3) {
        None | Some(b' ' | b'\t') => Some((code, true)),
        Some(b'-') => Some((code, false)),
        _ => None,
    }
}

/// The line for logs and reports: without carriage returns at its end, control characters as `?`.
fn printable(mut line: &[u8]) -> String {
    while let [rest @ .., b'\r'] = line {
        line = rest;
    }
    let text = String::from_utf8_lossy(line);
    text.trim_end_matches(' ').chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], step: usize) -> Option<Result<Response, Malformed>> {
        let mut parser = Parser::default();
        wire.chunks(step).find_map(|mut piece| parser.take(&mut piece))
    }

    fn dsn_of(wire: &str) -> String {
        read(wire.as_bytes(), 1).unwrap().unwrap().dsn().to_string()
    }

    #[test]
    fn replies_of_many_lines_come_together_however_they_are_cut() {
        let wire = b"550-5.1.1 no such\r\n550-here\n550 5.1.1 user\x07\r\n";
        for step in 1..=wire.len() {
            let response = read(wire, step).unwrap().unwrap();
            assert_eq!(response.to_string(), "550-5.1.1 no such 550-here 550 5.1.1 user?");
            assert_eq!(response.lines(), "550-5.1.1 no such\n550-here\n550 5.1.1 user?");
        }
        assert!(read(b"250-a\r\n", 3).is_none());
    }

    #[test]
    fn enhanced_codes_count_where_they_agree_with_the_reply() {
        for (wire, dsn) in [
            ("550 5.1.1 x\r\n", "5.1.1"),
            ("550 5.1.1\r\n", "5.1.1"),
            ("550 x 5.1.1\r\n", "5.0.0"),
            ("550 4.1.1 x\r\n", "5.0.0"),
            ("450 5.1\r\n", "4.0.0"),
            ("450 4.1.1234 x\r\n", "4.0.0"),
            ("450 4.1.1x\r\n", "4.0.0"),
            ("250-2.1.5 a\r\n250 b\r\n", "2.1.5"),
            ("250\r\n", "2.0.0"),
            ("354 3.0.0 go\r\n", "4.5.0"),
            ("550-4.2.2 a\r\n550 b\r\n", "5.0.0"),
            // Of no class that there is: as out of place as 3xx.
            ("099 5.1.1 x\r\n", "4.5.0"),
            ("600 x\r\n", "4.5.0"),
        ] {
            assert_eq!(dsn_of(wire), dsn, "{wire:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_said_to_be_none() {
        for line in ["hello\r\n", "25 x\r\n", "2500 x\r\n", "250+x\r\n", "٣٣٣ x\n"] {
            assert!(matches!(read(line.as_bytes(), 2), Some(Err(Malformed::Line(_)))), "{line:?}");
            let wire = format!("\r\n220 hi\r\n{line}\r\n250-a\r\n{line}250 b\r\n");
            let (mut parser, mut input) = (Parser::default(), wire.as_bytes());
            let replies = [(); 2].map(|()| parser.take(&mut input).unwrap().unwrap().to_string());
            assert_eq!(replies, ["220 hi", "250-a 250 b"], "{line:?}");
            assert_eq!(parser.take(&mut input), None);
        }
        for line in ["250-x\r\n", "\r\n"] {
            let endless = line.repeat(MAX_LINES + 1);
            assert_eq!(read(endless.as_bytes(), 100), Some(Err(Malformed::Endless)), "{line:?}");
        }
    }

    #[test]
    fn a_long_reply_is_kept_in_part() {
        let mut wire = b"550 ".to_vec();
        wire.extend(vec![b'x'; 1_000_000]);
        wire.extend_from_slice(b"\r\n");
        assert_eq!(read(&wire, 4096).unwrap().unwrap().lines().len(), MAX_LINE);
        let mut wire = [b"550-".as_slice(), &[b'x'; 1000], b"\r\n"].concat().repeat(500);
        wire.extend_from_slice(b"550 5.7.1 end\r\n");
        let response = read(&wire, 4096).unwrap().unwrap();
        assert!(response.lines().len() <= MAX_TEXT);
        assert_eq!(response.dsn(), Dsn::new(5, 7, 1));
    }
}
