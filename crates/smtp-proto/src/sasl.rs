//! The mechanisms of AUTH (RFC 4954, RFC 4422): challenges in, responses out.
//!
//! Contract: pure, as the rest of the crate. Randomness, the data of channel bindings and the check of a password come from
//! the caller. What is secret is a [`Secret`]: it is wiped when it is dropped and never shown by `Debug`. Comparisons with
//! secrets take the same time whatever they find.

mod choice;
pub mod client;
pub mod scram;
pub mod server;

use std::fmt;
use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub use choice::{SecurityOptions, choose};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The longest challenge or response, decoded: RFC 4954 section 4 has 12288 bytes of base64 suffice for any mechanism.
pub const MAX_MESSAGE: usize = 12_288 / 4 * 3;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login.
    Login,
    /// RFC 2195.
    CramMd5,
    /// RFC 5802.
    ScramSha1,
    /// RFC 5802, bound to the TLS channel.
    ScramSha1Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677, bound to the TLS channel.
    ScramSha256Plus,
    /// RFC 4422 appendix A: who the client is has been shown by other means, its TLS certificate.
    External,
    /// Google's and Microsoft's, older than [`Mechanism::OAuthBearer`].
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

impl Mechanism {
    /// All of them; the stronger stand before the weaker.
    pub const ALL: [Self; 10] = [
        Self::External,
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::CramMd5,
        Self::OAuthBearer,
        Self::XOAuth2,
        Self::Plain,
        Self::Login,
    ];

    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::CramMd5 => "CRAM-MD5",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::External => "EXTERNAL",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The one with this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// Bytes that nobody else should see: wiped when dropped, hidden from `Debug`.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes over these bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As text, where it is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The parts put together in one piece of memory, so that no copy of them is left behind by growth.
    pub(crate) fn concat(parts: &[&[u8]]) -> Self {
        let mut whole = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Self(whole)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    /// In the same time for all secrets of a length.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why an exchange cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// What came is not base64, or too long.
    NotBase64,
    /// It is not what the mechanism has at this place.
    Malformed(&'static str),
    /// The other side asks once more after the exchange was complete.
    OutOfTurn,
    /// More steps than any mechanism has.
    TooManySteps,
    /// The server did not prove that it knows the password.
    ServerNotProved,
    /// The server asks for more rounds of hashing than anybody should do, or for so few that they protect nothing.
    Iterations,
    /// The mechanism cannot carry this name or password.
    Credentials(&'static str),
    /// A mechanism bound to the TLS channel, without the data to bind to.
    NoChannelBinding,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotBase64 => "the challenge is not base64 or too long",
            Self::Malformed(what) | Self::Credentials(what) => what,
            Self::OutOfTurn => "a challenge after the exchange was complete",
            Self::TooManySteps => "too many challenges",
            Self::ServerNotProved => "the server did not prove that it knows the password",
            Self::Iterations => "an iteration count out of bounds",
            Self::NoChannelBinding => "no data to bind the exchange to the TLS channel",
        })
    }
}

impl std::error::Error for Error {}

/// Appends the base64 form.
pub fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The slice has the length that the encoding has, so that it cannot fail.
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

/// Reads base64.
///
/// # Errors
/// [`Error::NotBase64`], also where it would be longer than [`MAX_MESSAGE`].
pub fn from_base64(text: &[u8]) -> Result<Secret, Error> {
    if text.len() > MAX_MESSAGE / 3 * 4 {
        return Err(Error::NotBase64);
    }
    STANDARD.decode(text).map(Secret).map_err(|_| Error::NotBase64)
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests;
