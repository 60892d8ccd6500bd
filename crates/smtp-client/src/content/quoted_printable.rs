//! The encoding of RFC 2045 section 6.7, for lines that end with LF.

/// A line that is longer goes on in the next: with three more bytes and the `=` of a soft break it has 76 (RFC 2045). Where
/// to break is a matter of taste, and this is Postfix's, so that what both send can be compared.
const LONG: usize = 72;

/// Encodes the lines of one body, given whole or in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Encoder {
    column: usize,
}

impl Encoder {
    /// Encodes a line with its LF, or a piece of one.
    pub(super) fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let (text, ends) = match piece.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (piece, false),
        };
        for (place, byte) in text.iter().enumerate() {
            // A blank that ends a line would be lost on the way; the end of a piece may become one.
            let is_last = place + 1 == text.len();
            let plain = match byte {
                b' ' | b'\t' => !is_last,
                b'=' => false,
                byte => byte.is_ascii_graphic(),
            };
            self.push(*byte, plain, out);
        }
        if ends {
            out.push(b'\n');
            self.column = 0;
        }
    }

    fn push(&mut self, byte: u8, plain: bool, out: &mut Vec<u8>) {
        if self.column > LONG {
            out.extend_from_slice(b"=\n");
            self.column = 0;
        }
        if plain {
            out.push(byte);
            self.column += 1;
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'=', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            self.column += 3;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> String {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        text.split_inclusive('\n').for_each(|line| encoder.encode(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(encode("Grüße = a\tb \n"), "Gr=C3=BC=C3=9Fe =3D a\tb=20\n");
        assert_eq!(encode("\n.\n\t\n"), "\n.\n=09\n");
        assert_eq!(encode("a\rb\u{7f}"), "a=0Db=7F");
    }

    #[test]
    fn lines_are_no_longer_than_76() {
        let text = "ü".repeat(100) + &"x".repeat(200) + "\nend\n";
        let encoded = encode(&text);
        assert!(encoded.lines().all(|line| line.len() <= 76), "{encoded}");
        assert_eq!(encoded.replace("=\n", ""), "=C3=BC".repeat(100) + &"x".repeat(200) + "\nend\n");
    }
}
