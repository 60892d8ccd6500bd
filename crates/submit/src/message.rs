//! A message as programs hand it to `sendmail`, made ready for the queue while it streams by.
//!
//! What happens to the bytes: leading `From ` lines are dropped, line ends become LF, a line with a lone dot ends the
//! message unless `-i` was given, the last line gets its line end. Everything else stays as it is. The header is held
//! in memory (up to a limit), because the envelope comes before the content and may depend on it; the rest is not.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use mail::Address;
use mail::header_address::{Mailboxes, Unfit};

/// How much is read at a time, and the longest line that is looked at as a whole.
pub(crate) const CHUNK: usize = 64 * 1024;

/// How much is read at first: most messages. Memory that is not touched need not be made.
const FIRST: usize = 8 * 1024;

/// `sendmail_fix_line_endings`: when CR LF becomes LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEndings {
    /// At each line end.
    Always,
    /// At all line ends if the first line has it.
    Strict,
    /// Never.
    Never,
}

/// How a message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// When CR LF becomes LF.
    pub(crate) line_endings: LineEndings,
    /// A line with a lone dot ends the message.
    pub(crate) dot_ends: bool,
}

/// A message that is being read.
#[derive(Debug)]
pub(crate) struct Message<R> {
    input: R,
    buffer: Vec<u8>,
    /// What of the buffer was read from the input and not yet handed out.
    filled: Range<usize>,
    /// No line end before this place.
    searched: usize,
    end_of_input: bool,
    ended: bool,
    dot_ends: bool,
    /// Not known before the first line where the rule is [`LineEndings::Strict`].
    strip_cr: Option<bool>,
    /// Nothing but `From ` lines so far.
    at_start: bool,
    /// The piece before this one was a part of the same line.
    inside_line: bool,
}

/// A line, or part of one that is longer than the buffer.
struct Piece {
    range: Range<usize>,
    /// A line end follows it.
    has_end: bool,
    /// It is the last of the input.
    is_last: bool,
}

impl<R: Read> Message<R> {
    /// Will read from `input`.
    pub(crate) fn new(input: R, rules: Rules) -> Self {
        Self {
            input,
            buffer: vec![0; FIRST],
            filled: 0..0,
            searched: 0,
            end_of_input: false,
            ended: false,
            dot_ends: rules.dot_ends,
            strip_cr: match rules.line_endings {
                LineEndings::Always => Some(true),
                LineEndings::Strict => None,
                LineEndings::Never => Some(false),
            },
            at_start: true,
            inside_line: false,
        }
    }

    /// Reads the header and the line that ends it, or a little more than `limit` bytes of a longer one.
    ///
    /// # Errors
    /// What reading says.
    pub(crate) fn read_header(&mut self, limit: usize) -> io::Result<Header> {
        let mut header = Header { bytes: Vec::with_capacity(1024), length: 0, is_whole: true };
        while header.length <= limit {
            let (start, continues) = (header.bytes.len(), self.inside_line);
            if !self.read_piece(&mut header.bytes)? {
                return Ok(header);
            }
            let line = &header.bytes[start..];
            let is_folded =
                header.length > 0 && line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
            // A line that was dropped leaves nothing; a line of the header is at least a name and a colon.
            let belongs = line.is_empty() || continues || is_folded || field_name(line).is_some();
            if !belongs {
                return Ok(header);
            }
            header.length = header.bytes.len();
        }
        header.is_whole = false;
        Ok(header)
    }

    /// Appends more of the message to `out` until that holds `enough` bytes; `false` at the end of the message.
    ///
    /// # Errors
    /// What reading says.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>, enough: usize) -> io::Result<bool> {
        while out.len() < enough {
            if !self.read_piece(out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends the next line or part of one; `false` at the end of the message.
    fn read_piece(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(piece) = self.next_piece()? else { return Ok(false) };
        let mut text = &self.buffer[piece.range];
        let is_whole_line = piece.has_end && !self.inside_line;
        if self.at_start && is_whole_line && is_mbox_separator(text) {
            return Ok(true);
        }
        self.at_start = false;
        if piece.has_end {
            let strip = *self.strip_cr.get_or_insert_with(|| text.ends_with(b"\r"));
            while let (true, Some(stripped)) = (strip, text.strip_suffix(b"\r")) {
                text = stripped;
            }
        }
        if self.dot_ends && text == b"." && (is_whole_line || (piece.is_last && !self.inside_line)) {
            self.ended = true;
            return Ok(false);
        }
        out.extend_from_slice(text);
        if piece.has_end || piece.is_last {
            out.push(b'\n');
        }
        self.inside_line = !piece.has_end && !piece.is_last;
        Ok(true)
    }

    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if self.ended || (self.end_of_input && self.filled.is_empty() && !self.inside_line) {
                return Ok(None);
            }
            if let Some(at) = position_of(b'\n', &self.buffer[self.searched..self.filled.end]) {
                let range = self.filled.start..self.searched + at;
                self.filled.start = range.end + 1;
                self.searched = self.filled.start;
                return Ok(Some(Piece { range, has_end: true, is_last: false }));
            }
            self.searched = self.filled.end;
            if self.end_of_input || self.filled.len() == CHUNK {
                return Ok(Some(self.take_part()));
            }
            self.fill()?;
        }
    }

    /// All that is in the buffer. A CR at its end stays behind: it may belong to a line end.
    fn take_part(&mut self) -> Piece {
        let mut range = self.filled.clone();
        if !self.end_of_input && range.len() > 1 && self.buffer[range.end - 1] == b'\r' {
            range.end -= 1;
        }
        self.filled.start = range.end;
        Piece { range, has_end: false, is_last: self.end_of_input }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.filled.end == self.buffer.len() && self.buffer.len() < CHUNK {
            self.buffer.resize(CHUNK, 0);
        } else if self.filled.end == self.buffer.len() {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.searched -= self.filled.start;
            self.filled = 0..self.filled.len();
        }
        match self.input.read(&mut self.buffer[self.filled.end..]) {
            Ok(0) => self.end_of_input = true,
            Ok(read) => self.filled.end += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Where the byte is first. The C library searches: the crate for that would ask the processor what it can at each start,
/// which takes longer than to search a usual message.
fn position_of(byte: u8, bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let end = rest.skip_until(byte).ok()?.checked_sub(1)?;
    (bytes.get(end) == Some(&byte)).then_some(end)
}

/// The first line of a message in an mbox file, or one that UUCP has quoted (`>From `, also more than once).
fn is_mbox_separator(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    line[quotes..].starts_with(b"From ")
}

/// The beginning of a message: its header, and what was read to find the end of it.
#[derive(Debug)]
pub(crate) struct Header {
    /// The header and perhaps the line behind it.
    pub(crate) bytes: Vec<u8>,
    /// How much of it is the header.
    length: usize,
    /// The header ended before the limit.
    pub(crate) is_whole: bool,
}

impl Header {
    /// Whether there is such a field; the name is in lower case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields().any(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The recipients that `-t` asks for. Where a message was resent, they are those of the resending.
    ///
    /// # Errors
    /// One whose address nothing can work with.
    pub(crate) fn recipients(&self) -> Result<Vec<Address>, Unfit> {
        let is_resent = self.fields().any(|(name, _)| is_any(name, RESENT_RECIPIENTS));
        let wanted = if is_resent { RESENT_RECIPIENTS } else { RECIPIENTS };
        let mut recipients = Vec::new();
        for (_, value) in self.fields().filter(|(name, _)| is_any(name, wanted)) {
            let mut mailboxes = Mailboxes::new(value);
            recipients.extend(mailboxes.by_ref().map(|mailbox| mailbox.address));
            mailboxes.unfit().map_or(Ok(()), Err)?;
        }
        Ok(recipients)
    }

    /// Name and value of each field; the value has its line ends and what folds it.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.bytes[..self.length];
        std::iter::from_fn(move || {
            let (mut end, mut line_start) = (0, true);
            // To the line end that no folded line follows.
            while line_start && end < rest.len() {
                end += position_of(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
                line_start = rest.get(end).is_some_and(|byte| matches!(byte, b' ' | b'\t'));
            }
            if end == 0 {
                return None;
            }
            let (field, after) = rest.split_at(end);
            rest = after;
            let name = field_name(field).unwrap_or_default();
            let value = position_of(b':', field).map_or(&[][..], |colon| &field[colon + 1..]);
            Some((name, value))
        })
    }
}

const RECIPIENTS: [&str; 3] = ["to", "cc", "bcc"];
const RESENT_RECIPIENTS: [&str; 3] = ["resent-to", "resent-cc", "resent-bcc"];

fn is_any(name: &[u8], names: [&str; 3]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// RFC 5322 section 2.2 `field-name`, with the blanks before the colon that section 4.5 still takes.
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let length = line.iter().take_while(|byte| byte.is_ascii_graphic() && **byte != b':').count();
    let (name, rest) = line.split_at(length);
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    (length > 0 && rest.get(blanks) == Some(&b':')).then_some(name)
}

#[cfg(test)]
mod tests;
