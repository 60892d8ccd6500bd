//! The message as the command reads it: with fields before it, other line ends, and lines changed that could be mistaken.

use std::io;

use ipc::agent::Request;
use service::DeliveryRecipient;

use crate::command::Input;
use crate::letter::Letter;

/// How much of the content is read at once.
const CHUNK: usize = 64 * 1024;

/// What of `flags=` and `eol=` is about the content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches, each a letter of flags=")]
pub(super) struct ContentFlags {
    /// `B`: a blank line at the end.
    pub(super) blank_line: bool,
    /// `D`: `Delivered-To:`.
    pub(super) delivered_to: bool,
    /// `F`: a `From ` line.
    pub(super) from_line: bool,
    /// `O`: `X-Original-To:`.
    pub(super) original_to: bool,
    /// `R`: `Return-Path:`.
    pub(super) return_path: bool,
    /// `.`: another dot before lines that begin with one.
    pub(super) dots: bool,
    /// `>`: this character before lines that begin with `From `.
    pub(super) quote_from: bool,
    /// `eol=`
    pub(super) eol: Vec<u8>,
}

impl Default for ContentFlags {
    fn default() -> Self {
        Self {
            blank_line: false,
            delivered_to: false,
            from_line: false,
            original_to: false,
            return_path: false,
            dots: false,
            quote_from: false,
            eol: b"\n".to_vec(),
        }
    }
}

impl ContentFlags {
    /// The lines that go before the content.
    pub(super) fn preamble(
        &self,
        request: &Request,
        null_sender: &str,
        recipient: &DeliveryRecipient,
        now: &jiff::Zoned,
    ) -> Vec<u8> {
        let path = request.sender.to_path();
        let sender = if path.is_empty() { null_sender } else { &path };
        let mut lines = Vec::new();
        if self.from_line {
            lines.push(format!("From {sender}  {}", now.strftime("%a %b %e %H:%M:%S %Y")));
        }
        if self.return_path {
            lines.push(format!("Return-Path: <{sender}>"));
        }
        if self.original_to {
            let original = recipient.original.as_ref().unwrap_or(&recipient.address);
            lines.push(format!("X-Original-To: {}", original.to_path()));
        }
        if self.delivered_to {
            lines.push(format!("Delivered-To: {}", recipient.address.to_path()));
        }
        let mut out = Vec::with_capacity(256);
        for line in lines {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(&self.eol);
        }
        out
    }

    fn changes_lines(&self) -> bool {
        self.dots || self.quote_from || self.eol != b"\n"
    }
}

/// The content on its way into the command, piece by piece.
pub(super) struct Content<'a> {
    flags: &'a ContentFlags,
    letter: &'a Letter<'a>,
    preamble: Vec<u8>,
    offset: u64,
    /// The next byte begins a line.
    line_begins: bool,
    ended: bool,
}

impl<'a> Content<'a> {
    pub(super) fn new(flags: &'a ContentFlags, preamble: Vec<u8>, letter: &'a Letter<'a>) -> Self {
        Self { flags, letter, preamble, offset: 0, line_begins: true, ended: false }
    }

    /// `piece` with what the flags ask for; a piece begins with a line or in the middle of one.
    fn change(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + piece.len() / 16);
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            if std::mem::replace(&mut self.line_begins, line.ends_with(b"\n")) {
                if self.flags.dots && line.starts_with(b".") {
                    out.push(b'.');
                }
                if self.flags.quote_from && line.starts_with(b"From ") {
                    out.push(b'>');
                }
            }
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    out.extend_from_slice(text);
                    out.extend_from_slice(&self.flags.eol);
                }
                None => out.extend_from_slice(line),
            }
        }
        out
    }

    /// What follows the content.
    fn end(&mut self) -> Vec<u8> {
        self.ended = true;
        let mut out = Vec::new();
        if !self.line_begins {
            out.extend_from_slice(&self.flags.eol);
        }
        if self.flags.blank_line {
            out.extend_from_slice(&self.flags.eol);
        }
        out
    }
}

impl Input for Content<'_> {
    fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        if !self.preamble.is_empty() {
            return Ok(std::mem::take(&mut self.preamble));
        }
        if self.ended {
            return Ok(Vec::new());
        }
        let mut piece = self.letter.read_at(self.offset, CHUNK)?;
        if piece.is_empty() {
            return Ok(self.end());
        }
        // A line that begins in this piece is told by five bytes: `From ` must not be cut.
        if piece.len() == CHUNK
            && let Some(last) = memchr::memrchr(b'\n', &piece)
            && piece.len() - (last + 1) < 5
        {
            piece.truncate(last + 1);
        }
        self.offset += piece.len() as u64;
        if self.flags.changes_lines() {
            return Ok(self.change(&piece));
        }
        self.line_begins = piece.ends_with(b"\n");
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(flags: &ContentFlags, text: &[u8]) -> Vec<u8> {
        let letter = Letter::open(&text).unwrap();
        let mut content = Content::new(flags, b"X: y\n".to_vec(), &letter);
        let mut out = Vec::new();
        loop {
            match content.next_piece().unwrap() {
                piece if piece.is_empty() => return out,
                piece => out.extend_from_slice(&piece),
            }
        }
    }

    #[test]
    fn the_content_is_as_it_was_where_nothing_is_asked() {
        let large: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).chain(*b"\n").collect();
        for text in [b"".as_slice(), b"a\n.\nFrom b\n", &large] {
            assert_eq!(all(&ContentFlags::default(), text), [b"X: y\n".as_slice(), text].concat());
        }
        assert_eq!(all(&ContentFlags::default(), b"no end"), b"X: y\nno end\n");
    }

    #[test]
    fn lines_are_changed_as_asked() {
        let flags = ContentFlags {
            dots: true,
            quote_from: true,
            blank_line: true,
            eol: b"\r\n".to_vec(),
            ..ContentFlags::default()
        };
        let text = b"From a\n.\n.b.c\n>From d\n From e\nFromf\nlast";
        let wanted = b"X: y\n>From a\r\n..\r\n..b.c\r\n>From d\r\n From e\r\nFromf\r\nlast\r\n\r\n";
        assert_eq!(all(&flags, text), wanted);
    }

    /// Wherever a piece ends, `From ` at the beginning of a line is seen.
    #[test]
    fn the_cuts_between_pieces_hide_nothing() {
        let flags = ContentFlags { quote_from: true, dots: true, ..ContentFlags::default() };
        for length in CHUNK - 8..CHUNK + 2 {
            let mut text = vec![b'x'; length];
            text.extend_from_slice(b"\nFrom here\n.dot\n");
            let mut wanted = b"X: y\n".to_vec();
            wanted.extend(vec![b'x'; length]);
            wanted.extend_from_slice(b"\n>From here\n..dot\n");
            assert!(all(&flags, &text) == wanted, "{length}");
        }
    }
}
