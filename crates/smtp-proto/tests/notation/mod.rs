//! How dialogues are written down.

/// `*` at the end stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => pattern == text,
    }
}

/// The bytes of a text with `\r`, `\n`, `\0` and `\xHH`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, if byte == b'\\' { bytes.next() } else { None }) {
            (_, Some(b'r')) => out.push(b'\r'),
            (_, Some(b'n')) => out.push(b'\n'),
            (_, Some(b'0')) => out.push(0),
            (_, Some(b'x')) => {
                let digits: Vec<_> = bytes.by_ref().take(2).collect();
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            (_, Some(other)) => out.push(other),
            (byte, None) => out.push(byte),
        }
    }
    out
}
