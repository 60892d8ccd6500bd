//! Enhanced status codes (RFC 3463).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An enhanced status code `class.subject.detail`, RFC 3463 section 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dsn {
    class: u8,
    subject: u16,
    detail: u16,
}

impl Dsn {
    /// `class` is 2 (success), 4 (try again) or 5 (permanent); subject and detail are below 1000.
    #[must_use]
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        assert!(matches!(class, 2 | 4 | 5) && subject < 1000 && detail < 1000);
        Self { class, subject, detail }
    }

    /// The first digit: 2, 4 or 5.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.class
    }

    /// The same subject and detail under another class, as `soft_bounce` turns 5 into 4.
    #[must_use]
    pub const fn with_class(self, class: u8) -> Self {
        Self::new(class, self.subject, self.detail)
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DsnError;

impl fmt::Display for DsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an enhanced status code (RFC 3463): expected something like 4.2.1")
    }
}

impl std::error::Error for DsnError {}

impl FromStr for Dsn {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        let mut parts = text.split('.');
        let mut number = |most: u16| -> Option<u16> {
            let part = parts.next()?;
            let plain = !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|n| plain && *n <= most)
        };
        let (class, subject, detail) = (number(5), number(999), number(999));
        match (class, subject, detail, parts.next()) {
            (Some(class @ (2 | 4 | 5)), Some(subject), Some(detail), None) => {
                Ok(Self { class: u8::try_from(class).map_err(|_| DsnError)?, subject, detail })
            }
            _ => Err(DsnError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_rfc_3463_parses() {
        assert_eq!("5.7.1".parse(), Ok(Dsn::new(5, 7, 1)));
        assert_eq!("4.100.999".parse(), Ok(Dsn::new(4, 100, 999)));
        for wrong in ["", "5", "5.7", "5.7.1.1", "3.1.1", "5.1000.1", "5.+1.1", "5..1", "6.1.1"] {
            assert_eq!(wrong.parse::<Dsn>(), Err(DsnError), "{wrong}");
        }
    }
}
