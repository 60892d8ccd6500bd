//! SCRAM (RFC 5802, RFC 7677): what both sides compute, and how its messages are read.

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Error, Mechanism, Secret, from_base64, push_base64};

/// The rounds that are made for new verifiers: RFC 7677 section 4 has 4096 as the least, today's processors make more.
pub const ITERATIONS: u32 = 10_000;
/// Fewer protect nothing (RFC 5802 section 5.1).
const MIN_ITERATIONS: u32 = 4096;
/// More are an attack upon the client.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Which hash a mechanism uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl Hash {
    /// The hash of a SCRAM mechanism, and whether that is bound to the channel.
    #[must_use]
    pub const fn of(mechanism: Mechanism) -> Option<(Self, bool)> {
        match mechanism {
            Mechanism::ScramSha1 => Some((Self::Sha1, false)),
            Mechanism::ScramSha1Plus => Some((Self::Sha1, true)),
            Mechanism::ScramSha256 => Some((Self::Sha256, false)),
            Mechanism::ScramSha256Plus => Some((Self::Sha256, true)),
            _ => None,
        }
    }

    /// The length of its results.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn digest(self, bytes: &[u8]) -> Secret {
        match self {
            Self::Sha1 => Secret::new(Sha1::digest(bytes).to_vec()),
            Self::Sha256 => Secret::new(Sha256::digest(bytes).to_vec()),
        }
    }

    pub(super) fn hmac(self, key: &[u8], bytes: &[u8]) -> Secret {
        match self {
            Self::Sha1 => mac::<Hmac<Sha1>>(key, bytes),
            Self::Sha256 => mac::<Hmac<Sha256>>(key, bytes),
        }
    }

    /// `Hi` of RFC 5802 section 2.2, which is PBKDF2.
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Secret {
        let mut made = vec![0; self.length()];
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, &mut made),
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut made),
        }
        Secret::new(made)
    }
}

/// A message authentication code. A key may have any length, so that there is nothing to fail.
pub(super) fn mac<M: Mac + KeyInit>(key: &[u8], bytes: &[u8]) -> Secret {
    M::new_from_slice(key).map_or_else(
        |_| Secret::default(),
        |mut mac| {
            mac.update(bytes);
            Secret::new(mac.finalize().into_bytes().to_vec())
        },
    )
}

/// What a server keeps of a password: enough to check it, too little to log in with elsewhere.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Random, for each user.
    pub salt: Vec<u8>,
    /// The rounds.
    pub iterations: u32,
    /// `H(ClientKey)`.
    pub stored: Secret,
    /// By which the server proves itself.
    pub server: Secret,
}

impl Keys {
    /// Those of a password.
    #[must_use]
    pub fn derive(hash: Hash, password: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        let salted = hash.salted(&prepared(password), &salt, iterations);
        let stored = hash.digest(&hash.hmac(&salted, b"Client Key"));
        let server = hash.hmac(&salted, b"Server Key");
        Self { salt, iterations, stored, server }
    }

    /// Keys that no password opens, always the same for a name: a client cannot tell that there is no such user.
    pub(super) fn decoy(hash: Hash, seed: &[u8], username: &str) -> Self {
        let salt = hash.hmac(seed, username.as_bytes())[..16].to_vec();
        let (stored, server) = (hash.hmac(seed, b"stored"), hash.hmac(seed, b"server"));
        Self { salt, iterations: ITERATIONS, stored, server }
    }

    /// Whether this is their password.
    #[must_use]
    pub fn open_with(&self, hash: Hash, password: &[u8]) -> bool {
        let tried = Self::derive(hash, password, self.salt.clone(), self.iterations);
        tried.stored.ct_eq(&self.stored).into()
    }

    /// Whether the proof is one for this exchange, and the server's own signature.
    pub(super) fn check(&self, hash: Hash, messages: &[u8], proof: &[u8]) -> Option<Secret> {
        let signature = hash.hmac(&self.stored, messages);
        if proof.len() != signature.len() {
            return None;
        }
        let client_key = xor(proof, &signature);
        let right: bool = hash.digest(&client_key).ct_eq(&self.stored).into();
        right.then(|| hash.hmac(&self.server, messages))
    }
}

/// SASLprep (RFC 4013), as RFC 5802 section 2.2 wants it; what it refuses is taken as it is.
fn prepared(password: &[u8]) -> Secret {
    let text = std::str::from_utf8(password).ok().filter(|text| !text.is_ascii());
    match text.and_then(|text| stringprep::saslprep(text).ok()) {
        Some(prepared) => Secret::from(prepared.into_owned()),
        None => Secret::new(password.to_vec()),
    }
}

fn xor(one: &[u8], other: &[u8]) -> Secret {
    Secret::new(one.iter().zip(other).map(|(a, b)| a ^ b).collect())
}

/// What ties an exchange to the TLS connection that it goes over (RFC 5929, RFC 9266).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBinding {
    /// `tls-exporter` or `tls-server-end-point`.
    pub kind: &'static str,
    /// The data of that kind.
    pub data: Vec<u8>,
}

/// The client's side, after its first message.
#[derive(Debug)]
pub(super) struct ClientFirst {
    hash: Hash,
    /// `n,,`, `y,,` or `p=KIND,,`, and the binding's data.
    header: Vec<u8>,
    bare: String,
    nonce: String,
}

/// What the server's last message must be.
#[derive(Debug)]
pub(super) struct Awaited(Secret);

impl ClientFirst {
    pub(super) fn new(hash: Hash, username: &str, nonce: String, binding: Option<&ChannelBinding>) -> Self {
        let mut header = match binding {
            Some(binding) => format!("p={},,", binding.kind),
            None => "n,,".to_owned(),
        }
        .into_bytes();
        let name =
            stringprep::saslprep(username).map_or_else(|_| username.to_owned(), |name| name.into_owned());
        let name = name.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        header.extend(binding.into_iter().flat_map(|binding| binding.data.iter().copied()));
        Self { hash, header, bare, nonce }
    }

    /// The first message.
    pub(super) fn message(&self) -> Secret {
        let end = self.header.iter().enumerate().filter(|(_, byte)| **byte == b',').nth(1);
        let end = end.map_or(self.header.len(), |(place, _)| place + 1);
        Secret::concat(&[&self.header[..end], self.bare.as_bytes()])
    }

    /// The second message, the answer to the server's first.
    pub(super) fn answer(&self, challenge: &[u8], password: &Secret) -> Result<(Secret, Awaited), Error> {
        let wrong = Error::Malformed("a challenge that is not one of SCRAM");
        let text = std::str::from_utf8(challenge).map_err(|_| wrong)?;
        let mut parts = text.split(',');
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(wrong)?;
        let salt = parts.next().and_then(|part| part.strip_prefix("s=")).ok_or(wrong)?;
        let iterations = parts.next().and_then(|part| part.strip_prefix("i=")).ok_or(wrong)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Error::Malformed("a challenge whose nonce does not continue the client's"));
        }
        let salt = from_base64(salt.as_bytes())?;
        let iterations: u32 = iterations.parse().map_err(|_| wrong)?;
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(Error::Iterations);
        }
        let mut last = b"c=".to_vec();
        push_base64(&self.header, &mut last);
        last.extend_from_slice(format!(",r={nonce}").as_bytes());
        let messages = [self.bare.as_bytes(), b",", challenge, b",", &last].concat();
        let salted = self.hash.salted(&prepared(password), &salt, iterations);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let signature = self.hash.hmac(&self.hash.digest(&client_key), &messages);
        last.extend_from_slice(b",p=");
        push_base64(&xor(&client_key, &signature), &mut last);
        let server_key = self.hash.hmac(&salted, b"Server Key");
        Ok((Secret::new(last), Awaited(self.hash.hmac(&server_key, &messages))))
    }
}

impl Awaited {
    /// Whether the server knows the password.
    pub(super) fn check(&self, message: &[u8]) -> Result<(), Error> {
        let proof = message.strip_prefix(b"v=").ok_or(Error::ServerNotProved)?;
        let proof = from_base64(proof.split(|byte| *byte == b',').next().unwrap_or(proof))?;
        if proof.ct_eq(&self.0).into() { Ok(()) } else { Err(Error::ServerNotProved) }
    }
}

/// A client's first message, as the server reads it.
#[derive(Debug)]
pub(super) struct Hello {
    /// All before the bare message.
    pub header: String,
    /// The kind of binding that the client uses.
    pub binding: Option<String>,
    /// The client could bind, and believes that the server cannot.
    pub could_bind: bool,
    pub authzid: String,
    pub username: String,
    pub nonce: String,
    pub bare: String,
}

impl Hello {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (flag, rest) = text.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        let binding = flag.strip_prefix("p=").map(str::to_owned);
        if binding.is_none() && flag != "n" && flag != "y" {
            return None;
        }
        let authzid = match authzid {
            "" => String::new(),
            named => name(named.strip_prefix("a=")?)?,
        };
        // A mandatory extension (`m=`) that is not known must be refused: it does not begin with `n=`.
        let mut parts = bare.split(',');
        let username = name(parts.next()?.strip_prefix("n=")?)?;
        let nonce = parts.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?.to_owned();
        let username =
            stringprep::saslprep(&username).map_or_else(|_| username.clone(), |name| name.into_owned());
        Some(Self {
            header: text[..text.len() - bare.len()].to_owned(),
            could_bind: flag == "y",
            binding,
            authzid,
            username,
            nonce,
            bare: bare.to_owned(),
        })
    }
}

/// A client's second message.
#[derive(Debug)]
pub(super) struct Last {
    /// The GS2 header and the binding's data.
    pub binding: Secret,
    pub nonce: String,
    pub proof: Secret,
    /// All before the proof.
    pub without_proof: String,
}

impl Last {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = from_base64(parts.next()?.strip_prefix("c=")?.as_bytes()).ok()?;
        let nonce = parts.next()?.strip_prefix("r=")?.to_owned();
        let proof = from_base64(proof.as_bytes()).ok()?;
        Some(Self { binding, nonce, proof, without_proof: without_proof.to_owned() })
    }
}

/// A name in which `=2C` and `=3D` stand for the signs.
pub(super) fn name(encoded: &str) -> Option<String> {
    let mut name = String::with_capacity(encoded.len());
    let mut parts = encoded.split('=');
    name.push_str(parts.next()?);
    for part in parts {
        let (sign, rest) = part.split_at_checked(2)?;
        name.push(match sign {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    (!name.is_empty() && !name.contains('\0')).then_some(name)
}

fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty()
        && nonce.len() <= 512
        && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}
