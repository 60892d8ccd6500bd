use super::*;

const USUAL: Rules = Rules { line_endings: LineEndings::Always, dot_ends: true };

/// Gives its bytes in pieces of a certain size, as a pipe may.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn read(input: &[u8], rules: Rules) -> Vec<u8> {
    let read_in = |size| {
        let mut message = Message::new(Trickle(input, size), rules);
        let mut out = message.read_header(1 << 20).unwrap().bytes;
        let mut part = Vec::new();
        while message.read(&mut part, CHUNK).unwrap() {
            out.append(&mut part);
        }
        out.append(&mut part);
        out
    };
    let whole = read_in(usize::MAX);
    assert!(whole == read_in(7), "the result must not depend on how the input comes");
    whole
}

fn text(input: &str, rules: Rules) -> String {
    String::from_utf8(read(input.as_bytes(), rules)).unwrap()
}

fn header(input: &str) -> Header {
    Message::new(input.as_bytes(), USUAL).read_header(4096).unwrap()
}

fn recipients(input: &str) -> Vec<String> {
    header(input).recipients().unwrap().iter().map(Address::to_string).collect()
}

#[test]
fn line_ends_become_lf_as_the_parameter_says() {
    let crlf = "A: b\r\n\r\nx\r\r\ny\n";
    assert_eq!(text(crlf, USUAL), "A: b\n\nx\ny\n");
    let never = Rules { line_endings: LineEndings::Never, ..USUAL };
    assert_eq!(text(crlf, never), crlf);
    let strict = Rules { line_endings: LineEndings::Strict, ..USUAL };
    assert_eq!(text(crlf, strict), "A: b\n\nx\ny\n");
    assert_eq!(text("A: b\n\nx\r\n", strict), "A: b\n\nx\r\n");
    assert_eq!(text("a\rb\r", USUAL), "a\rb\r\n");
}

#[test]
fn a_lone_dot_ends_the_message_unless_told_otherwise() {
    assert_eq!(text("A: b\n\nx\n..\n.x\n.\nlost\n", USUAL), "A: b\n\nx\n..\n.x\n");
    assert_eq!(text("A: b\n\nx\r\n.\r\nlost\n", USUAL), "A: b\n\nx\n");
    assert_eq!(text("A: b\n.\nlost\n", USUAL), "A: b\n");
    assert_eq!(text("A: b\n\nx\n.", USUAL), "A: b\n\nx\n");
    let ignored = Rules { dot_ends: false, ..USUAL };
    assert_eq!(text("A: b\n\n.\nkept\n", ignored), "A: b\n\n.\nkept\n");
}

#[test]
fn mbox_separators_are_dropped_at_the_beginning_only() {
    assert_eq!(text("From x y\n>>From z\nA: b\n\nFrom here\n", USUAL), "A: b\n\nFrom here\n");
    assert_eq!(text("From x\r\nA: b\n", USUAL), "A: b\n");
}

#[test]
fn the_last_line_gets_its_end_and_nothing_stays_nothing() {
    assert_eq!(text("A: b\n\nx", USUAL), "A: b\n\nx\n");
    assert_eq!(text("", USUAL), "");
}

#[test]
fn a_line_longer_than_the_buffer_stays_whole() {
    let mut long = vec![b'x'; 3 * CHUNK];
    for at in [CHUNK - 1, CHUNK, 2 * CHUNK - 1] {
        long[at] = b'\r';
    }
    let input = [b"A: b\n\n".as_slice(), &long, b"\r\n.\r\nlost\n"].concat();
    let expected = [b"A: b\n\n".as_slice(), &long, b"\n"].concat();
    assert!(read(&input, USUAL) == expected);
    assert!(read(&b"z".repeat(2 * CHUNK), USUAL).ends_with(b"z\n"));
    // A dot that ends such a line is not alone.
    let input = [&b"y".repeat(CHUNK)[..], b".\nkept\n"].concat();
    assert!(read(&input, USUAL) == input);
}

#[test]
fn recipients_come_from_the_header_and_from_there_alone() {
    let message =
        "To: x y <a@b> (c), \"j d\"@e,\n folded@f\ncC : d@e\nBCC: secret@h\nErrors-To: no\n\nTo: body@x\n";
    assert_eq!(recipients(message), ["a@b", "j d@e", "folded@f", "d@e", "secret@h"]);
    assert_eq!(recipients("no header\nTo: x\n"), [""; 0]);
    assert_eq!(recipients("To: undisclosed-recipients:;\n"), [""; 0]);
    assert_eq!(recipients("To: a\n\tb\n"), ["a", "b"]);
}

#[test]
fn a_resent_message_goes_to_those_it_is_resent_to() {
    assert_eq!(recipients("Resent-To: q\nTo: a\nBcc: c\n\n"), ["q"]);
    assert_eq!(recipients("Resent-From: q\nTo: a\nBcc: c\n\n"), ["a", "c"]);
}

#[test]
fn fields_are_found_whatever_their_case() {
    assert!(header("FROM: x\n\n").has("from"));
    assert!(header("X: y\n from: z\nFrom\t: x\n").has("from"));
    assert!(!header("X: y\n from: z\n\nFrom: x\n").has("from"));
}

#[test]
fn a_header_has_a_limit() {
    let endless = "A: b\n".repeat(1000);
    let header = Message::new(endless.as_bytes(), USUAL).read_header(1000).unwrap();
    assert!(!header.is_whole && header.bytes.len() == 1005);
}
