//! The client's side of the mechanisms.

use hmac::Hmac;
use md5::Md5;

use super::scram::{self, Awaited, ChannelBinding, ClientFirst, Hash};
use super::{Error, Mechanism, Secret, push_hex};

/// What a client shows to be let in.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whose mailbox it is.
    pub username: String,
    /// The password; for OAUTHBEARER and XOAUTH2 the access token.
    pub password: Secret,
}

/// One exchange with a server.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    credentials: Credentials,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was sent.
    Start,
    /// LOGIN: the name was sent.
    Password,
    Scram(ClientFirst),
    /// SCRAM: the server is to prove itself.
    Awaiting(Awaited),
    /// The server is to decide.
    Sent,
    /// OAuth: the server has said why not; an empty response ends it.
    Refused,
}

impl Exchange {
    /// Begins one. `nonce` is printable ASCII without commas that was never used before, of at least 128 random bits;
    /// `binding` ties the -PLUS mechanisms to the TLS connection.
    ///
    /// # Errors
    /// The mechanism cannot carry these credentials, or lacks the data to bind to.
    pub fn new(
        mechanism: Mechanism,
        credentials: Credentials,
        nonce: String,
        binding: Option<&ChannelBinding>,
    ) -> Result<Self, Error> {
        if credentials.username.contains('\0') || credentials.password.contains(&0) {
            return Err(Error::Credentials("a name or password with a NUL"));
        }
        let state = match Hash::of(mechanism) {
            Some((_, true)) if binding.is_none() => return Err(Error::NoChannelBinding),
            Some((hash, plus)) => {
                State::Scram(ClientFirst::new(hash, &credentials.username, nonce, binding.filter(|_| plus)))
            }
            None => State::Start,
        };
        Ok(Self { mechanism, credentials, state })
    }

    /// Which mechanism it is.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What the client says first; none where the server does.
    pub fn initial(&mut self) -> Option<Secret> {
        let (name, password) = (self.credentials.username.as_bytes(), &*self.credentials.password);
        let initial = match (self.mechanism, &self.state) {
            (_, State::Scram(first)) => return Some(first.message()),
            (Mechanism::Plain, _) => Secret::concat(&[b"\0", name, b"\0", password]),
            (Mechanism::External, _) => Secret::concat(&[name]),
            (Mechanism::XOAuth2, _) => {
                Secret::concat(&[b"user=", name, b"\x01auth=Bearer ", password, b"\x01\x01"])
            }
            (Mechanism::OAuthBearer, _) => {
                Secret::concat(&[b"n,a=", &gs2_name(name), b",\x01auth=Bearer ", password, b"\x01\x01"])
            }
            _ => return None,
        };
        self.state = State::Sent;
        Some(initial)
    }

    /// Answers a challenge.
    ///
    /// # Errors
    /// The exchange cannot go on: cancel it.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Error> {
        let (answer, state) = match (self.mechanism, &self.state) {
            (_, State::Scram(first)) => {
                let (answer, awaited) = first.answer(challenge, &self.credentials.password)?;
                (answer, State::Awaiting(awaited))
            }
            (_, State::Awaiting(awaited)) => {
                awaited.check(challenge)?;
                (Secret::default(), State::Sent)
            }
            (Mechanism::Login, State::Start) => {
                (Secret::from(self.credentials.username.as_str()), State::Password)
            }
            (Mechanism::Login, State::Password) => (self.credentials.password.clone(), State::Sent),
            (Mechanism::CramMd5, State::Start) => {
                let digest = scram::mac::<Hmac<Md5>>(&self.credentials.password, challenge);
                let mut answer = format!("{} ", self.credentials.username).into_bytes();
                push_hex(&digest, &mut answer);
                (Secret::new(answer), State::Sent)
            }
            (Mechanism::OAuthBearer, State::Sent) => (Secret::new(vec![1]), State::Refused),
            (Mechanism::XOAuth2, State::Sent) => (Secret::default(), State::Refused),
            _ => return Err(Error::OutOfTurn),
        };
        self.state = state;
        Ok(answer)
    }

    /// The server says that it lets the client in.
    ///
    /// # Errors
    /// [`Error::ServerNotProved`] where the mechanism has the server prove itself first, or was not through.
    pub const fn succeeded(&self) -> Result<(), Error> {
        match self.state {
            State::Sent => Ok(()),
            _ => Err(Error::ServerNotProved),
        }
    }
}

/// RFC 5801 section 4: commas and equals signs in a name are encoded.
fn gs2_name(name: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b',' => encoded.extend_from_slice(b"=2C"),
            b'=' => encoded.extend_from_slice(b"=3D"),
            other => encoded.push(*other),
        }
    }
    encoded
}
