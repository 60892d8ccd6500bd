//! An e-mail address in internal form: the local part without RFC 5321 quoting, `@`, the domain.
//!
//! Everything that compares, looks up or stores an address uses this form; quoting is added at the edges, where an
//! address is written into a command ([`Address::to_path`]) or a header.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// The longest address that is taken from anybody, in bytes. RFC 5321 section 4.5.3.1.3 asks for 256; Postfix's
/// `line_length_limit` of 2048 is what sites are used to.
const MAX_LENGTH: usize = 2048;

/// An address in internal (unquoted) form, or the empty one: the null sender of RFC 5321 section 4.5.5.
///
/// It is UTF-8 without NUL, CR and LF and at most 2048 bytes long, so that it can stand in a log line, a table key and
/// a header without a further look. The domain is what follows the last `@`; an address may lack one until it is
/// completed with `myorigin`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "&str")]
pub struct Address(Box<str>);

/// Why bytes are not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressError {
    /// Longer than 2048 bytes.
    TooLong,
    /// Contains NUL, CR or LF.
    ControlCharacter,
    /// Is not UTF-8.
    NotUtf8,
}

impl Address {
    /// Takes an address in internal form.
    ///
    /// # Errors
    /// Says what makes the text unfit: its length or a control character.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, AddressError> {
        let text = text.into();
        if text.len() > MAX_LENGTH {
            return Err(AddressError::TooLong);
        }
        if text.bytes().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
            return Err(AddressError::ControlCharacter);
        }
        Ok(Self(text))
    }

    /// Takes an address in internal form from bytes that should be UTF-8.
    ///
    /// # Errors
    /// As [`Address::new`], and for bytes that are not UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AddressError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| AddressError::NotUtf8)?)
    }

    /// The null sender, `<>`.
    #[must_use]
    pub fn null() -> Self {
        Self::default()
    }

    /// Whether this is the null sender.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole address in internal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the last `@`, or everything where there is none.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(local, _)| local)
    }

    /// What stands after the last `@`, as it was written.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.0.rsplit_once('@').map(|(_, domain)| domain)
    }

    /// The same address with another domain.
    ///
    /// # Errors
    /// As [`Address::new`].
    pub fn with_domain(&self, domain: &str) -> Result<Self, AddressError> {
        Self::new(format!("{}@{domain}", self.local_part()))
    }

    /// The form that goes between `<` and `>` in SMTP (RFC 5321 section 4.1.2): the local part is quoted where it is
    /// not a dot-string.
    #[must_use]
    pub fn to_path(&self) -> String {
        let local = self.local_part();
        let mut path = String::with_capacity(self.0.len() + 2);
        if is_dot_string(local) || self.is_null() {
            path.push_str(local);
        } else {
            push_quoted(&mut path, local);
        }
        if let Some(domain) = self.domain() {
            path.push('@');
            path.push_str(domain);
        }
        path
    }

    /// Whether every byte is ASCII, that is, whether it can go to a server without SMTPUTF8.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

/// RFC 5321 `Dot-string`, with the 8-bit characters of RFC 6531: atoms joined by single dots.
fn is_dot_string(local: &str) -> bool {
    !local.is_empty() && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// RFC 5321 `atext`, with every byte of a non-ASCII character (RFC 6531 section 3.3).
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Appends `text` as an RFC 5321 `Quoted-string`.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

impl fmt::Display for Address {
    /// The internal form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        Self::new(text)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.into()
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::new(text)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "address is longer than 2048 bytes",
            Self::ControlCharacter => "address contains a NUL, CR or LF",
            Self::NotUtf8 => "address is not UTF-8",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(internal: &str) -> String {
        Address::new(internal).unwrap().to_path()
    }

    #[test]
    fn a_local_part_is_quoted_only_where_it_must_be() {
        assert_eq!(path("jane.doe+x@example.com"), "jane.doe+x@example.com");
        assert_eq!(path("jane doe@example.com"), "\"jane doe\"@example.com");
        assert_eq!(path("a\"b\\c@example.com"), "\"a\\\"b\\\\c\"@example.com");
        assert_eq!(path("a..b@example.com"), "\"a..b\"@example.com");
        assert_eq!(path(".a@example.com"), "\".a\"@example.com");
        assert_eq!(path("a@b@example.com"), "\"a@b\"@example.com");
        assert_eq!(path("jürgen@example.com"), "jürgen@example.com");
        assert_eq!(path("@example.com"), "\"\"@example.com");
        assert_eq!(path(""), "");
    }

    #[test]
    fn the_domain_is_what_follows_the_last_at_sign() {
        let address = Address::new("a@b@c").unwrap();
        assert_eq!((address.local_part(), address.domain()), ("a@b", Some("c")));
        assert_eq!(Address::new("postmaster").unwrap().domain(), None);
    }

    #[test]
    fn control_characters_and_overlong_text_are_refused() {
        assert_eq!(Address::new("a\nb"), Err(AddressError::ControlCharacter));
        assert_eq!(Address::new("a\0b"), Err(AddressError::ControlCharacter));
        assert_eq!(Address::from_bytes(b"a\xffb"), Err(AddressError::NotUtf8));
        assert_eq!(Address::new("a".repeat(2049)), Err(AddressError::TooLong));
    }
}
