//! Message content off the wire: line ends become LF, stuffed dots go, and the end of a message is found.
//!
//! What ends a message decides whether one message can be smuggled in another: a server that takes `<LF>.<LF>` for the
//! end, behind a relay that does not, turns the rest of the content into commands of its own. So unless the operator says
//! `smtpd_forbid_bare_newline = no`, nothing ends content after DATA but `<CR><LF>.<CR><LF>` (RFC 5321 section 4.1.1.4); a
//! line that holds a lone dot in any other way is dropped, as Postfix drops it, so that this server does not pass it on
//! to one that is less careful.
//!
//! Both decoders work in place and give large slices: a message of a megabyte is a few calls, not a call per line.

use memchr::memchr;

/// With `smtpd_forbid_bare_newline = no`, all carriage returns before a line feed are part of the line end, as they are
/// for Postfix; a run of them is held back until what follows it is known, up to this many.
const MAX_HELD: usize = 64;

/// What [`Chunk`] gives back when carriage returns that ended one chunk turn out not to be part of a line end.
static CARRIAGE_RETURNS: [u8; MAX_HELD] = [b'\r'; MAX_HELD];

/// `smtpd_forbid_bare_newline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// `no`: a bare line feed is a line end, also around the final dot.
    Allow,
    /// `normalize` and `yes`: a bare line feed ends a line, but not the message.
    #[default]
    Normalize,
    /// `note`: the same, and it is logged.
    Note,
    /// `reject`: the message is refused at its end.
    Reject,
}

impl BareNewline {
    /// How many carriage returns belong to a line end at most. The others are content.
    const fn most_carriage_returns(self) -> usize {
        if matches!(self, Self::Allow) { MAX_HELD } else { 1 }
    }
}

/// What became of the bytes given to a decoder: the first `made` of them are content now, `used` of them are done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes were understood; the others must be given again, with more after them.
    pub used: usize,
    /// How many bytes of content stand at the front of the buffer.
    pub made: usize,
    /// The end of the content was found, at `used`.
    pub end: bool,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// After `<CR><LF>`, or at the very beginning.
    AfterCrLf,
    /// After a bare line feed.
    AfterBareLf,
    /// Within a line.
    InLine,
}

/// Content after DATA.
#[derive(Debug)]
pub struct Data {
    mode: BareNewline,
    position: Position,
    bare_newline: bool,
    size: u64,
}

impl Data {
    /// At the beginning of the content.
    #[must_use]
    pub const fn new(mode: BareNewline) -> Self {
        Self { mode, position: Position::AfterCrLf, bare_newline: false, size: 0 }
    }

    /// Whether a line ended in a line feed without carriage return.
    #[must_use]
    pub const fn bare_newline(&self) -> bool {
        self.bare_newline
    }

    /// The size so far as RFC 1870 section 5 counts it: line ends are two bytes, stuffed dots and the final one do not count.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Decodes `buffer` in place.
    pub fn decode(&mut self, buffer: &mut [u8]) -> Decoded {
        let most = self.mode.most_carriage_returns();
        let mut lines = Lines { buffer, read: 0, written: 0, most };
        while lines.read < lines.buffer.len() {
            if self.position != Position::InLine && lines.buffer[lines.read] == b'.' {
                match lone_dot(&lines.buffer[lines.read..], most) {
                    LoneDot::Undecided => break,
                    LoneDot::No => lines.read += 1,
                    LoneDot::Yes { length, carriage_returns } => {
                        lines.read += length;
                        if self.ends_here(carriage_returns) {
                            return lines.decoded(true);
                        }
                        self.line_ended(carriage_returns);
                        continue;
                    }
                }
            }
            match lines.pass_line() {
                Passed::Line { length, carriage_returns } => {
                    self.size += length + 2;
                    self.line_ended(carriage_returns);
                }
                Passed::Part(length) => {
                    self.size += length;
                    // A stuffed dot may have been all there was: the line has begun with it.
                    self.position = Position::InLine;
                    break;
                }
            }
        }
        lines.decoded(false)
    }

    fn ends_here(&self, carriage_returns: usize) -> bool {
        let standard = carriage_returns > 0 && self.position == Position::AfterCrLf;
        standard || self.mode == BareNewline::Allow
    }

    fn line_ended(&mut self, carriage_returns: usize) {
        self.bare_newline |= carriage_returns == 0;
        self.position = if carriage_returns > 0 { Position::AfterCrLf } else { Position::AfterBareLf };
    }
}

/// Content in BDAT chunks (RFC 3030), over all chunks of a message.
#[derive(Debug)]
pub struct Chunk {
    mode: BareNewline,
    bare_newline: bool,
    in_line: bool,
    /// Carriage returns at the end of a chunk, which the next may complete to a line end.
    held: usize,
    size: u64,
}

impl Chunk {
    /// At the beginning of the content.
    #[must_use]
    pub const fn new(mode: BareNewline) -> Self {
        Self { mode, bare_newline: false, in_line: false, held: 0, size: 0 }
    }

    /// Whether a line ended in a line feed without carriage return.
    #[must_use]
    pub const fn bare_newline(&self) -> bool {
        self.bare_newline
    }

    /// The size so far, by the count of [`Data::size`].
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Carriage returns that are owed from the chunk before, for all that is known of what follows them: content before what
    /// [`Chunk::decode`] makes of `next`, which it is given after this.
    pub fn owed(&mut self, next: &[u8]) -> &'static [u8] {
        let run = next.iter().take_while(|byte| **byte == b'\r').count();
        let kept = match next.get(run) {
            // A line end takes those that are next to its line feed, wherever chunks part them.
            Some(b'\n') | None => self.held.min(self.mode.most_carriage_returns().saturating_sub(run)),
            Some(_) => 0,
        };
        let owed = std::mem::replace(&mut self.held, kept).saturating_sub(kept);
        self.size += count(owed);
        &CARRIAGE_RETURNS[..owed]
    }

    /// Decodes `buffer` in place; `rest` is how many bytes of the chunk come after it.
    pub fn decode(&mut self, buffer: &mut [u8], rest: u64) -> Decoded {
        let mut lines = Lines { buffer, read: 0, written: 0, most: self.mode.most_carriage_returns() };
        while lines.read < lines.buffer.len() {
            match lines.pass_line() {
                Passed::Line { length, carriage_returns } => {
                    self.size += length + 2;
                    self.bare_newline |= carriage_returns + std::mem::take(&mut self.held) == 0;
                    self.in_line = false;
                }
                Passed::Part(length) => {
                    self.size += length;
                    self.in_line |= length > 0;
                    break;
                }
            }
        }
        if rest == 0 {
            self.held = (self.held + lines.buffer.len() - lines.read).min(MAX_HELD);
            lines.read = lines.buffer.len();
        }
        lines.decoded(false)
    }

    /// What the last chunk lacks to end in a line end.
    pub fn finish(&mut self) -> &'static [u8] {
        let owed = std::mem::take(&mut self.held);
        if !self.in_line && owed == 0 {
            return &[];
        }
        self.size += 2;
        b"\n"
    }
}

enum LoneDot {
    Yes { length: usize, carriage_returns: usize },
    No,
    Undecided,
}

/// Whether `bytes`, which begin with a dot, begin with a line that holds nothing else. Its end may have so many carriage
/// returns at most.
fn lone_dot(bytes: &[u8], most: usize) -> LoneDot {
    let carriage_returns = bytes[1..].iter().take(most).take_while(|b| **b == b'\r').count();
    match bytes.get(1 + carriage_returns) {
        Some(b'\n') => LoneDot::Yes { length: carriage_returns + 2, carriage_returns },
        None => LoneDot::Undecided,
        _ => LoneDot::No,
    }
}

/// What [`Lines::pass_line`] did.
enum Passed {
    /// A whole line of this length, its end not counted.
    Line { length: u64, carriage_returns: usize },
    /// Part of a line; what is still unread are carriage returns that may belong to its end.
    Part(u64),
}

/// A buffer whose lines are moved to its front as their ends shrink.
struct Lines<'a> {
    buffer: &'a mut [u8],
    read: usize,
    written: usize,
    /// How many carriage returns belong to a line end at most.
    most: usize,
}

impl Lines<'_> {
    fn pass_line(&mut self) -> Passed {
        let rest = &self.buffer[self.read..];
        let line_feed = memchr(b'\n', rest);
        let end = line_feed.unwrap_or(rest.len());
        let carriage_returns = rest[..end].iter().rev().take(self.most).take_while(|b| **b == b'\r').count();
        if line_feed.is_some() {
            let length = end - carriage_returns;
            self.pass(length);
            self.read += carriage_returns + 1;
            self.buffer[self.written] = b'\n';
            self.written += 1;
            return Passed::Line { length: count(length), carriage_returns };
        }
        // No more is held back than a line end may have: the buffer must never fill with what cannot be passed on.
        let length = end - carriage_returns;
        self.pass(length);
        Passed::Part(count(length))
    }

    fn pass(&mut self, length: usize) {
        if self.read != self.written {
            self.buffer.copy_within(self.read..self.read + length, self.written);
        }
        self.read += length;
        self.written += length;
    }

    const fn decoded(&self, end: bool) -> Decoded {
        Decoded { used: self.read, made: self.written, end }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `step` bytes; gives the content and, if the end was found, what came after it.
    fn decode_data(mode: BareNewline, wire: &[u8], step: usize) -> (Vec<u8>, Option<usize>, u64) {
        let (mut data, mut content, mut pending, mut done) = (Data::new(mode), Vec::new(), Vec::new(), 0);
        for piece in wire.chunks(step) {
            pending.extend_from_slice(piece);
            let decoded = data.decode(&mut pending);
            content.extend_from_slice(&pending[..decoded.made]);
            pending.drain(..decoded.used);
            done += decoded.used;
            if decoded.end {
                return (content, Some(done), data.size());
            }
        }
        (content, None, data.size())
    }

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        let wire = b"..a\r\n.b\r\nc\nd\r\r\n\0e\rf\r\n..\r\n\r\n.\r\r\ng\n.\nh\r\n.\r\nQUIT\r\n";
        for step in 1..=wire.len() {
            let (content, end, size) = decode_data(BareNewline::Normalize, wire, step);
            assert_eq!(content, b".a\nb\nc\nd\r\n\0e\rf\n.\n\n\r\ng\nh\n", "step {step}");
            assert_eq!(end, Some(wire.len() - 6));
            assert_eq!(size, 4 + 3 + 3 + 4 + 6 + 3 + 2 + 3 + 3 + 3);
        }
    }

    #[test]
    fn a_long_run_of_carriage_returns_is_passed_on() {
        let mut wire = vec![b'\r'; 5000];
        wire.extend_from_slice(b"x\r\n.\r\n");
        for step in [1, 63, 64, 65, 1000, 6000] {
            let (content, end, _) = decode_data(BareNewline::Normalize, &wire, step);
            assert_eq!(end, Some(wire.len()));
            assert_eq!(content.len(), 5002, "step {step}");
        }
    }

    #[test]
    fn a_message_may_be_empty() {
        assert_eq!(decode_data(BareNewline::Normalize, b".\r\n", 1), (vec![], Some(3), 0));
    }

    fn decode_chunks(chunks: &[&[u8]], step: usize) -> (Vec<u8>, bool) {
        decode_chunks_in(BareNewline::Normalize, chunks, step)
    }

    fn decode_chunks_in(mode: BareNewline, chunks: &[&[u8]], step: usize) -> (Vec<u8>, bool) {
        let (mut chunk, mut content) = (Chunk::new(mode), Vec::new());
        for bytes in chunks {
            let (mut pending, mut rest) = (Vec::new(), bytes.len());
            for piece in bytes.chunks(step) {
                pending.extend_from_slice(piece);
                rest -= piece.len();
                content.extend_from_slice(chunk.owed(&pending));
                let decoded = chunk.decode(&mut pending, rest as u64);
                content.extend_from_slice(&pending[..decoded.made]);
                pending.drain(..decoded.used);
            }
            assert!(pending.is_empty());
        }
        content.extend_from_slice(chunk.finish());
        (content, chunk.bare_newline())
    }

    #[test]
    fn carriage_returns_at_the_end_of_chunks_count() {
        let mut chunk = Chunk::new(BareNewline::Normalize);
        for _ in 0..100 {
            chunk.owed(b"\r");
            assert_eq!(chunk.decode(&mut [b'\r'], 0), Decoded { used: 1, made: 0, end: false });
        }
        assert_eq!(chunk.size(), 99);
        chunk.finish();
        assert_eq!(chunk.size(), 101);
    }

    #[test]
    fn chunks_may_part_a_line_end() {
        for step in 1..8 {
            let whole = decode_chunks(&[b"a\r", b"\n.\r\nb\r", b"c\r\n"], step);
            assert_eq!(whole, (b"a\n.\nb\rc\n".to_vec(), false), "step {step}");
            assert_eq!(decode_chunks(&[b"a\n"], step), (b"a\n".to_vec(), true));
            assert_eq!(decode_chunks(&[b"a"], step), (b"a\n".to_vec(), false));
            assert_eq!(decode_chunks(&[b"a\r"], step), (b"a\n".to_vec(), false));
            assert_eq!(decode_chunks(&[b"a\r", b"\r\nb\n"], step), (b"a\r\nb\n".to_vec(), true));
            assert_eq!(decode_chunks(&[b"a\r", b"\rb\n"], step), (b"a\r\rb\n".to_vec(), true));
        }
    }

    #[test]
    fn a_run_of_carriage_returns_is_the_same_wherever_it_is_parted() {
        for (run, content) in [(1, 0), (2, 0), (63, 0), (64, 0), (65, 1), (130, 66)] {
            for end in ["", "\n", "\nb\n", "b\n"] {
                let wire = [b"a", "\r".repeat(run).as_bytes(), end.as_bytes()].concat();
                let left = if end.starts_with('b') { run } else { content };
                let line_end = if end.is_empty() { "\n" } else { end };
                let expected = [b"a", "\r".repeat(left).as_bytes(), line_end.as_bytes()].concat();
                for (size, step) in [(1, 1), (1, 9), (2, 1), (40, 7), (64, 64), (65, 3), (200, 1), (200, 200)]
                {
                    let chunks: Vec<&[u8]> = wire.chunks(size).collect();
                    let decoded = decode_chunks_in(BareNewline::Allow, &chunks, step).0;
                    assert_eq!(decoded, expected, "{run} and {end:?} in chunks of {size}, cut at {step}");
                }
            }
        }
    }
}
