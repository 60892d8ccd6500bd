//! The lookup keys of a message: its headers, its body lines.

use std::io::{self, BufRead};

/// Reads a message and divides it into keys, as header_checks(5) and body_checks(5) are asked: a header with its
/// continuation lines is one key with ends of line in it, a body line is one.
pub(crate) struct MessageKeys<R> {
    reader: R,
    header: bool,
    body: bool,
    in_header: bool,
    key: Vec<u8>,
    /// The line after the key.
    line: Vec<u8>,
}

impl<R: BufRead> MessageKeys<R> {
    pub(crate) fn new(reader: R, header: bool, body: bool) -> Self {
        Self { reader, header, body, in_header: true, key: Vec::new(), line: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        while self.in_header {
            if self.next_header()? {
                if self.header {
                    return Ok(Some(&self.key));
                }
            } else {
                self.in_header = false;
                if self.body && !self.line.is_empty() {
                    std::mem::swap(&mut self.key, &mut self.line);
                    return Ok(Some(without_end(&self.key)));
                }
            }
        }
        self.key.clear();
        if !self.body || self.reader.read_until(b'\n', &mut self.key)? == 0 {
            return Ok(None);
        }
        Ok(Some(without_end(&self.key)))
    }

    /// Reads one header into `key` and the line after it into `line`; `false` if that line is the first of the body.
    fn next_header(&mut self) -> io::Result<bool> {
        if self.line.is_empty() {
            self.reader.read_until(b'\n', &mut self.line)?;
        }
        if !is_header(&self.line) {
            return Ok(false);
        }
        self.key.clear();
        self.key.extend_from_slice(without_end(&self.line));
        loop {
            self.line.clear();
            self.reader.read_until(b'\n', &mut self.line)?;
            if !self.line.starts_with(b" ") && !self.line.starts_with(b"\t") {
                return Ok(true);
            }
            self.key.push(b'\n');
            self.key.extend_from_slice(without_end(&self.line));
        }
    }
}

/// RFC 5322 section 2.2: a name of visible characters, then a colon. White space before it occurs and is let pass.
fn is_header(line: &[u8]) -> bool {
    line.iter().position(|&byte| byte == b':').is_some_and(|colon| {
        let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
        !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
    })
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::MessageKeys;

    fn keys(text: &str, header: bool, body: bool) -> Vec<String> {
        let mut keys = MessageKeys::new(text.as_bytes(), header, body);
        let mut found = Vec::new();
        while let Some(key) = keys.next().unwrap() {
            found.push(String::from_utf8_lossy(key).into_owned());
        }
        found
    }

    const MESSAGE: &str = "Subject: a\n b\nTo: q\n\nbody 1\n\nX: y\n";

    #[test]
    fn headers_are_unfolded_with_their_ends_of_line() {
        assert_eq!(keys(MESSAGE, true, false), ["Subject: a\n b", "To: q"]);
        assert_eq!(keys("not a header\nTo: q\n", true, false), Vec::<String>::new());
    }

    #[test]
    fn the_body_begins_with_the_first_line_that_is_no_header() {
        assert_eq!(keys(MESSAGE, false, true), ["", "body 1", "", "X: y"]);
        assert_eq!(keys("From x\nTo: q\n", true, true), ["From x", "To: q"]);
        assert_eq!(keys("To: q", true, true), ["To: q"]);
        assert_eq!(keys("", true, true), Vec::<String>::new());
    }
}
