//! Checks of the body: of its lines, and of the headers of what is attached.

use ipc::cleanup::Refusal;
use ipc::log;
use mail::Dsn;
use mail::fields;
use mail::header::{self, Field, Next};
use mail::mime::Place;
use memchr::memchr;

use crate::checks::Part;
use crate::message::{Left, Message, Sink};

/// The longest body line that is looked at as a whole, as in Postfix; what is longer is looked at in pieces.
const MAX_LINE: usize = 2048;

impl Message<'_> {
    /// A field of the message's own header tells how its body is built.
    pub(crate) fn note_structure(&mut self, field: &Field<'_>) {
        if self.inspects && self.rules.checks.follow_structure() {
            self.structure.field(field);
        }
    }

    /// Looks at a piece of the body, and passes it on. The beginning of a line or field whose end has not come yet waits
    /// in memory.
    pub(crate) fn inspect(&mut self, content: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        let mut bytes = std::mem::take(&mut self.buffers.line);
        bytes.extend_from_slice(content);
        let mut at = 0;
        while !self.discards {
            let length = self.inspect_next(&bytes[at..], false, sink)?;
            if length == 0 {
                break;
            }
            at += length;
        }
        bytes.drain(..at);
        self.buffers.line = bytes;
        Ok(())
    }

    /// Looks at what still waits: nothing follows it.
    pub(crate) fn inspect_rest(&mut self, sink: &mut impl Sink) -> Result<(), Refusal> {
        let bytes = std::mem::take(&mut self.buffers.line);
        let mut at = 0;
        while at < bytes.len() && !self.discards {
            at += self.inspect_next(&bytes[at..], true, sink)?;
        }
        Ok(())
    }

    /// Looks at the line or field at the beginning of `bytes`. The result is its length, 0 while its end is not there.
    fn inspect_next(&mut self, bytes: &[u8], last: bool, sink: &mut impl Sink) -> Result<usize, Refusal> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.structure.place() == Place::Body {
            return self.inspect_line(bytes, last, sink);
        }
        let limit = self.rules.header_size_limit;
        match header::next(bytes, last) {
            Next::Incomplete if bytes.len() <= limit => Ok(0),
            Next::Field(field) => {
                self.inspect_field(&field, sink)?;
                Ok(field.bytes().len())
            }
            // A field beyond all measure is looked at and passed on as a body is.
            Next::End | Next::Incomplete => {
                let with_empty_line = bytes.first() == Some(&b'\n');
                self.end_headers_of_part(with_empty_line)?;
                let length = usize::from(with_empty_line);
                self.append(&bytes[..length], sink)?;
                if length == 0 { self.inspect_line(bytes, last, sink) } else { Ok(length) }
            }
        }
    }

    /// A field in the header of a part or of an attached message.
    fn inspect_field(&mut self, field: &Field<'_>, sink: &mut impl Sink) -> Result<(), Refusal> {
        self.structure.field(field);
        let nested = self.structure.place() == Place::Nested;
        let part = match Part::of(fields::find(field.name())) {
            Part::Header if nested => Part::NestedHeader,
            _ => Part::MimeHeader,
        };
        let action = self.action(part, field.bytes())?;
        let left = self.apply(&action, sink)?;
        self.pass_on(&left, field.bytes(), sink)
    }

    /// A header block has ended, of the message itself or of a part.
    pub(crate) fn end_headers_of_part(&mut self, with_empty_line: bool) -> Result<(), Refusal> {
        self.inspected = 0;
        self.structure.end_headers(with_empty_line).map_err(|_| {
            log::warning!("{}: reject: MIME nesting exceeds mime_nesting_limit", self.id);
            Refusal::Rejected(Dsn::new(5, 6, 0), "MIME nesting exceeds safety limit".into())
        })
    }

    fn inspect_line(&mut self, bytes: &[u8], last: bool, sink: &mut impl Sink) -> Result<usize, Refusal> {
        let window = &bytes[..bytes.len().min(MAX_LINE)];
        let length = match memchr(b'\n', window) {
            Some(end) => end + 1,
            None if window.len() == MAX_LINE || last => window.len(),
            None => return Ok(0),
        };
        let line = &bytes[..length];
        self.structure.line(line);
        if self.inspected >= self.rules.checks.body_limit {
            self.append(line, sink)?;
            return Ok(length);
        }
        self.inspected += length;
        let action = self.action(Part::Body, line)?;
        let left = self.apply(&action, sink)?;
        self.pass_on(&left, line, sink)?;
        Ok(length)
    }

    fn pass_on(&mut self, left: &Left<'_>, text: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        // What a check prepended.
        self.flush(sink)?;
        match left {
            Left::Nothing => Ok(()),
            Left::Same => self.append(text, sink),
            Left::Other(other) => self.append(format!("{other}\n").as_bytes(), sink),
        }
    }
}
