//! Message content onto the wire: line ends become `<CR><LF>`, dots are stuffed, long lines are broken.
//!
//! What this sends must end for every server where it ends for this one: a line feed never goes out without a carriage
//! return before it, and no line that began in the content begins with an unstuffed dot. A carriage return that stands
//! alone in the content passes as it is: cleanup has replaced it unless the operator said
//! `cleanup_replace_stray_cr_lf = no`.

use memchr::memchr;

/// So many NULs are held back at the beginning of a line; a dot behind more is no threat that anybody has found.
const MAX_NULS: usize = 64;

/// How content is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After DATA: dots are stuffed, a lone dot ends it (RFC 5321 section 4.5.2).
    Dots,
    /// In BDAT chunks, whose length is told (RFC 3030): the bytes go as they are.
    Length,
}

/// Encodes the content of one message, which is given in pieces with LF line ends.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    /// `smtp_line_length_limit`; 0 for none.
    limit: usize,
    /// How long the line is so far; a stuffed dot does not count.
    column: usize,
    /// NULs at the beginning of a line, held back until what follows them is known.
    nuls: usize,
}

impl Encoder {
    /// At the beginning of a message. `line_length_limit` is 0 for none.
    #[must_use]
    pub const fn new(framing: Framing, line_length_limit: usize) -> Self {
        Self { framing, limit: line_length_limit, column: 0, nuls: 0 }
    }

    /// Encodes a piece of content.
    pub fn encode(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        out.reserve(content.len() + content.len() / 32);
        while !content.is_empty() {
            let line_feed = memchr(b'\n', content);
            let (line, rest) = match line_feed {
                Some(place) => (&content[..place], &content[place + 1..]),
                None => (content, &[][..]),
            };
            self.line(line, out);
            if line_feed.is_some() {
                self.end_line(out);
            }
            content = rest;
        }
    }

    /// Ends the last line, if the content did not, and the message.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.column + self.nuls > 0 {
            self.end_line(out);
        }
        if self.framing == Framing::Dots {
            out.extend_from_slice(b".\r\n");
        }
    }

    fn line(&mut self, mut line: &[u8], out: &mut Vec<u8>) {
        while !line.is_empty() {
            if self.limit > 0 && self.column >= self.limit {
                // A blank after the break keeps a broken header field one field.
                out.extend_from_slice(b"\r\n ");
                self.column = 1;
            }
            if self.column == 0 && self.framing == Framing::Dots {
                line = self.begin_line(line, out);
                if line.is_empty() {
                    return;
                }
            }
            let room =
                if self.limit > 0 { (self.limit - self.column.min(self.limit)).max(1) } else { line.len() };
            let (now, later) = line.split_at(line.len().min(room));
            out.extend_from_slice(now);
            self.column += now.len();
            line = later;
        }
    }

    /// Stuffs a dot where the line begins with one, perhaps behind NULs: there are servers that read over NULs and would
    /// then see a lone dot. A dot before any line is undone by the receiver. Gives what is left of the line.
    fn begin_line<'a>(&mut self, line: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let most = MAX_NULS - self.nuls;
        let nuls = line.iter().take(most).take_while(|byte| **byte == 0).count();
        self.nuls += nuls;
        let line = &line[nuls..];
        match line.first() {
            None => return line,
            Some(b'.') => out.push(b'.'),
            Some(_) => {}
        }
        self.release(out);
        line
    }

    /// Writes the NULs that were held back.
    fn release(&mut self, out: &mut Vec<u8>) {
        self.column += self.nuls;
        out.resize(out.len() + std::mem::take(&mut self.nuls), 0);
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        self.release(out);
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(framing: Framing, limit: usize, content: &[u8], step: usize) -> String {
        let (mut encoder, mut out) = (Encoder::new(framing, limit), Vec::new());
        content.chunks(step).for_each(|piece| encoder.encode(piece, &mut out));
        encoder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        let content = b".a\n..\n.\nb.\n\n .c\n.";
        for step in 1..=content.len() {
            let dots = "..a\r\n...\r\n..\r\nb.\r\n\r\n .c\r\n..\r\n.\r\n";
            assert_eq!(encode(Framing::Dots, 998, content, step), dots);
            let plain = ".a\r\n..\r\n.\r\nb.\r\n\r\n .c\r\n.\r\n";
            assert_eq!(encode(Framing::Length, 998, content, step), plain);
        }
        assert_eq!(encode(Framing::Dots, 998, b"", 1), ".\r\n");
        assert_eq!(encode(Framing::Length, 998, b"", 1), "");
    }

    #[test]
    fn long_lines_are_broken_before_a_blank() {
        for step in 1..12 {
            assert_eq!(
                encode(Framing::Dots, 4, b"abcd\nabcdefghij\n", step),
                "abcd\r\nabcd\r\n efg\r\n hij\r\n.\r\n"
            );
            assert_eq!(encode(Framing::Dots, 4, b"....\n", step), ".....\r\n.\r\n");
            assert_eq!(encode(Framing::Dots, 4, b"abcd.fgh.", step), "abcd\r\n .fg\r\n h.\r\n.\r\n");
            assert_eq!(encode(Framing::Dots, 0, &[b'x'; 5000], step).len(), 5005);
        }
    }
}
