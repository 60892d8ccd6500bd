//! The xtext encoding of RFC 3461 section 4, in which ENVID and ORCPT carry arbitrary text.

/// Decodes xtext; none where it is malformed or decodes to something that cannot stand in a header or a log line.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                decoded.push(high << 4 | low);
            }
            // RFC 6533 section 3 lets UTF-8 stand for itself (utf-8-addr-unitext) under SMTPUTF8.
            // The RFC keeps `=` out; there are mailers that do not encode it, and it does no harm.
            b'!'..=b'~' | 0x80.. => decoded.push(byte),
            _ => return None,
        }
    }
    let decoded = String::from_utf8(decoded).ok()?;
    decoded.chars().all(|c| !c.is_control()).then_some(decoded)
}

/// Encodes text as xtext. UTF-8 is left as it is: whoever sends it asks for SMTPUTF8 (RFC 6533 section 3).
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '+' | '=' => encoded.push_str(&format!("+{:02X}", u32::from(c))),
            c if c.is_ascii_graphic() || !c.is_ascii() => encoded.push(c),
            c => encoded.push_str(&format!("+{:02X}", u32::from(c))),
        }
    }
    encoded
}

/// A digit of the two that follow `+`: upper case by the RFC, either by custom.
fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn only_well_formed_printable_xtext_decodes() {
        assert_eq!(decode("a+2Bb+3Dc@x").as_deref(), Some("a+b=c@x"));
        assert_eq!(decode("a=b").as_deref(), Some("a=b"));
        assert_eq!(decode("a+20b").as_deref(), Some("a b"));
        assert_eq!(decode("jürgen@x").as_deref(), Some("jürgen@x"));
        for wrong in ["a+", "a+2", "a+2G", "a b", "a+0A", "a+00", "+FF"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        for text in ["a+b=c@x", "a b", "jürgen@x", "\"q\\\"@x"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        assert_eq!(encode("a b\r\n"), "a+20b+0D+0A");
    }
}
