//! Where the header of a message ends and its body begins.

use std::io::{self, Write};
use std::ops::Range;

use queue::Content;

use super::{ShowError, read_failed};

const BUFFER: usize = 64 * 1024;

/// Writes the header, the body, or both. The body begins with the first line that is no header line: usually the
/// empty one.
pub(super) fn write(
    content: &Content,
    header: bool,
    body: bool,
    out: &mut impl Write,
) -> Result<(), ShowError> {
    let size = content.size();
    if header && body {
        return copy(content, 0..size, out);
    }
    let end = header_size(content).map_err(|error| read_failed(&error))?;
    copy(content, if header { 0..end } else { end..size }, out)
}

fn copy(content: &Content, range: Range<u64>, out: &mut impl Write) -> Result<(), ShowError> {
    let mut buffer = vec![0; BUFFER];
    let mut at = range.start;
    while at < range.end {
        let wanted = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let read = content.read_at(&mut buffer[..wanted], at).map_err(|error| read_failed(&error))?;
        out.write_all(&buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}

/// Where in a line of the header the scan is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Name,
    /// White space between name and colon, which old mail has.
    Blank,
    Value,
}

/// The offset of the first line that is neither `name: value` nor the continuation of one (RFC 5322 section 2.2).
fn header_size(content: &Content) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let (mut at, mut line, mut offset) = (At::Start, 0, 0);
    loop {
        let read = content.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(if matches!(at, At::Name | At::Blank) { line } else { offset });
        }
        for byte in &buffer[..read] {
            offset += 1;
            at = match (at, byte) {
                (At::Value, b'\n') => {
                    line = offset;
                    At::Start
                }
                (At::Value, _) | (At::Name | At::Blank, b':') => At::Value,
                (At::Start, b' ' | b'\t') if offset > 1 => At::Value,
                (At::Name | At::Blank, b' ' | b'\t') => At::Blank,
                (At::Start | At::Name, b'!'..=b'~') if *byte != b':' => At::Name,
                _ => return Ok(line),
            };
        }
    }
}
