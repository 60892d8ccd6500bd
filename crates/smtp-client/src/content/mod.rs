//! From the queue file's content to what goes over the wire: mostly as it is, in large pieces; field by field and line by
//! line where addresses are mapped, checks ask for it, or the server takes no 8-bit content.
//!
//! Line ends are LF on both sides: the protocol's encoder makes them CRLF and stuffs dots.

mod checks;
mod quoted_printable;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _};

use lookup::{Generic, LookupError};
use mail::header::{self, Field, Next};
use mail::mime::{self, Place, Structure};
use mail::{QueueId, fields, header_address};
use memchr::memchr;
use queue::Content;

pub(crate) use checks::Checks;
use checks::{Action, Part};

/// How much is read and handed on at a time.
const PIECE: usize = 64 * 1024;

/// The longest header field that is looked at as one; what is longer is passed on as a body is. cleanup has cut or
/// warned of what exceeds `header_size_limit`.
const MAX_FIELD: usize = 1024 * 1024;

/// The longest body line that is looked at as a whole.
const MAX_LINE: usize = 2048;

/// Why content did not go out.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// The queue file could not be read.
    Read(io::Error),
    /// A table could not be asked.
    Lookup(LookupError),
    /// The receiver of the pieces failed.
    Send(E),
}

/// What is done to content on its way.
pub(crate) struct Transformer<'a> {
    pub(crate) id: QueueId,
    pub(crate) generic: &'a Generic,
    pub(crate) checks: &'a Checks,
    /// Bodies that are declared to be 8-bit become quoted-printable (RFC 6152 section 3).
    pub(crate) to_seven_bits: bool,
}

impl Transformer<'_> {
    /// Whether the bytes stay as they are.
    fn changes_nothing(&self) -> bool {
        self.generic.is_empty() && self.checks.is_empty() && !self.to_seven_bits
    }

    /// Gives all of the content to `send`, piece by piece.
    pub(crate) fn run<E>(
        &self,
        content: &mut Content,
        mut send: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        content.rewind();
        let size = usize::try_from(content.size()).unwrap_or(PIECE).clamp(1, PIECE);
        let mut buffer = vec![0; size];
        let mut passage = Passage::new(self);
        loop {
            let read = match content.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(Failure::Read)?,
            };
            if self.changes_nothing() {
                if read == 0 {
                    return Ok(());
                }
                send(&buffer[..read]).map_err(Failure::Send)?;
                continue;
            }
            passage.take(&buffer[..read], read == 0).map_err(Failure::Lookup)?;
            send(&passage.out).map_err(Failure::Send)?;
            passage.out.clear();
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// The whole of a small message, for who has it in memory.
impl Transformer<'_> {
    #[doc(hidden)]
    pub(crate) fn transformed<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
        let mut passage = Passage::new(self);
        for piece in pieces {
            passage.take(piece, false).ok()?;
        }
        passage.take(b"", true).ok()?;
        Some(passage.out)
    }
}

/// One message on its way.
struct Passage<'a> {
    rules: &'a Transformer<'a>,
    structure: Structure,
    /// The beginning of a field or line whose end has not come.
    waiting: Vec<u8>,
    out: Vec<u8>,
    /// What the header block that is being read says of its body.
    announced: Announced,
    /// The lines of the body become quoted-printable.
    encodes: Option<quoted_printable::Encoder>,
    /// PASS was said: no checks any more.
    unchecked: bool,
    /// How much of this body the checks have seen.
    inspected: usize,
}

#[derive(Clone, Copy, Default)]
struct Announced {
    /// `8bit` or `binary`.
    eight_bit: bool,
    kind: MediaKind,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum MediaKind {
    #[default]
    Leaf,
    /// Its parts are converted one by one.
    Composite,
    /// `message/partial` and `message/external-body`, which must not be encoded (RFC 2046 section 5.2).
    Untouchable,
}

impl<'a> Passage<'a> {
    fn new(rules: &'a Transformer<'a>) -> Self {
        Self {
            rules,
            structure: Structure::new(rules.checks.limits()),
            waiting: Vec::new(),
            out: Vec::with_capacity(PIECE),
            announced: Announced::default(),
            encodes: None,
            unchecked: false,
            inspected: 0,
        }
    }

    /// Takes the next bytes; `last` says that there are no more.
    fn take(&mut self, bytes: &[u8], last: bool) -> Result<(), LookupError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(bytes);
        let mut at = 0;
        while at < waiting.len() {
            let length = self.next(&waiting[at..], last)?;
            if length == 0 {
                break;
            }
            at += length;
        }
        waiting.drain(..at);
        self.waiting = waiting;
        if last && self.structure.place() != Place::Body {
            // A message that is all header.
            self.end_headers(false);
        }
        Ok(())
    }

    /// Takes the field or line at the beginning of `bytes`: its length, 0 while its end is not there.
    fn next(&mut self, bytes: &[u8], last: bool) -> Result<usize, LookupError> {
        if self.structure.place() == Place::Body {
            return self.body(bytes, last);
        }
        match header::next(bytes, last) {
            Next::Field(field) => {
                let length = field.bytes().len();
                self.field(&field)?;
                Ok(length)
            }
            Next::Incomplete if bytes.len() <= MAX_FIELD => Ok(0),
            Next::End | Next::Incomplete => {
                let empty_line = bytes.first() == Some(&b'\n');
                self.end_headers(empty_line);
                if empty_line {
                    self.out.push(b'\n');
                    return Ok(1);
                }
                self.body(bytes, last)
            }
        }
    }

    fn field(&mut self, field: &Field<'_>) -> Result<(), LookupError> {
        let place = self.structure.place();
        let known = fields::find(field.name());
        let part = match (known, place) {
            (Some((fields::Kind::Mime, _)), _) | (_, Place::Part) => Part::MimeHeader,
            (_, Place::Nested) => Part::NestedHeader,
            _ => Part::Header,
        };
        let action = self.action(part, field.bytes())?;
        match action {
            Action::Pass => self.kept_field(field, place, known),
            Action::Drop => Ok(()),
            Action::Prepend(text) => {
                self.push_line(text.as_bytes());
                self.kept_field(field, place, known)
            }
            Action::Replace(text) => {
                let line = format!("{text}\n");
                match header::next(line.as_bytes(), true) {
                    Next::Field(other) => self.kept_field(&other, place, fields::find(other.name())),
                    _ => Ok(()),
                }
            }
        }
    }

    /// A field that goes out, with its addresses mapped.
    fn kept_field(
        &mut self,
        field: &Field<'_>,
        place: Place,
        known: Option<(fields::Kind, fields::Role)>,
    ) -> Result<(), LookupError> {
        let is_type = field.is("Content-Type");
        // What is encoded as a whole has no parts.
        if !(is_type && self.rules.to_seven_bits && is_global(field.value())) {
            self.structure.field(field);
        }
        if is_type {
            self.announced.kind = media_kind(field.value());
        } else if field.is("Content-Transfer-Encoding") {
            let word = mime::first_word(field.value());
            self.announced.eight_bit =
                word.eq_ignore_ascii_case(b"8bit") || word.eq_ignore_ascii_case(b"binary");
            if self.converts() {
                // Said anew when the header block ends.
                return Ok(());
            }
        }
        let has_addresses = known.is_some_and(|(_, role)| role != fields::Role::Other);
        if place != Place::Primary || !has_addresses || self.rules.generic.is_empty() {
            self.push_line(field.bytes());
            return Ok(());
        }
        self.out.extend_from_slice(field.label());
        let generic = self.rules.generic;
        header_address::rewrite(field.value(), &mut self.out, |address| generic.map(address))?;
        if self.out.last() != Some(&b'\n') {
            self.out.push(b'\n');
        }
        Ok(())
    }

    fn converts(&self) -> bool {
        let Announced { eight_bit, kind } = self.announced;
        self.rules.to_seven_bits && eight_bit && kind != MediaKind::Untouchable
    }

    fn end_headers(&mut self, empty_line: bool) {
        if self.converts() {
            let composite = self.announced.kind == MediaKind::Composite;
            let encoding = if composite { "7bit" } else { "quoted-printable" };
            self.push_line(format!("Content-Transfer-Encoding: {encoding}").as_bytes());
            self.encodes = (!composite).then(quoted_printable::Encoder::default);
        } else {
            self.encodes = None;
        }
        self.announced = Announced::default();
        self.inspected = 0;
        // Deeper than is followed is plain body: cleanup lets none of that in unless told to.
        let _ = self.structure.end_headers(empty_line);
    }

    fn body(&mut self, bytes: &[u8], last: bool) -> Result<usize, LookupError> {
        let window = &bytes[..bytes.len().min(MAX_LINE)];
        let length = match memchr(b'\n', window) {
            Some(end) => end + 1,
            None if window.len() == MAX_LINE || last => window.len(),
            None => return Ok(0),
        };
        let line = &bytes[..length];
        let depth = self.structure.depth();
        self.structure.line(line);
        if self.structure.place() != Place::Body || self.structure.depth() < depth {
            // A boundary: what follows is a header, or text that belongs to no part.
            self.encodes = None;
        }
        let action = if self.inspected < self.rules.checks.body_limit() {
            self.inspected += length;
            self.action(Part::Body, line)?
        } else {
            Action::Pass
        };
        match action {
            Action::Pass => self.push_body(line),
            Action::Drop => {}
            Action::Prepend(text) => {
                self.push_body(format!("{text}\n").as_bytes());
                self.push_body(line);
            }
            Action::Replace(text) => self.push_body(format!("{text}\n").as_bytes()),
        }
        Ok(length)
    }

    fn action(&mut self, part: Part, text: &[u8]) -> Result<Action, LookupError> {
        if self.unchecked {
            return Ok(Action::Pass);
        }
        let (action, pass_all) = self.rules.checks.action(part, text, self.rules.id)?;
        self.unchecked |= pass_all;
        Ok(action)
    }

    fn push_body(&mut self, line: &[u8]) {
        match &mut self.encodes {
            Some(encoder) => encoder.encode(line, &mut self.out),
            None => self.out.extend_from_slice(line),
        }
    }

    fn push_line(&mut self, line: &[u8]) {
        self.out.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            self.out.push(b'\n');
        }
    }
}

/// `message/global`: its header is UTF-8 like its body, and it may be encoded as a whole (RFC 6532 section 3.7).
fn is_global(value: &[u8]) -> bool {
    mime::media_type(value).is_some_and(|(kind, subtype)| {
        kind.eq_ignore_ascii_case(b"message") && subtype.eq_ignore_ascii_case(b"global")
    })
}

fn media_kind(value: &[u8]) -> MediaKind {
    let Some((kind, subtype)) = mime::media_type(value) else { return MediaKind::Leaf };
    let is = |name: &str| subtype.eq_ignore_ascii_case(name.as_bytes());
    if kind.eq_ignore_ascii_case(b"multipart") {
        return MediaKind::Composite;
    }
    match kind.eq_ignore_ascii_case(b"message") {
        true if is("rfc822") => MediaKind::Composite,
        true if is("partial") || is("external-body") => MediaKind::Untouchable,
        _ => MediaKind::Leaf,
    }
}
