//! The client's side of the mechanisms.

use super::{Error, Mechanism, Secret};

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
    /// The server is to decide.
    Sent,
    /// OAuth: the server has said why not; an empty response ends it.
    Refused,
}

impl Exchange {
    /// Begins one.
    ///
    /// # Errors
    /// The mechanism cannot carry these credentials.
    pub fn new(mechanism: Mechanism, credentials: Credentials) -> Result<Self, Error> {
        let has_nul = credentials.username.contains('\0') || credentials.password.contains(&0);
        if has_nul {
            return Err(Error::Credentials("a name or password with a NUL"));
        }
        Ok(Self { mechanism, credentials, state: State::Start })
    }

    /// Which mechanism it is.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What the client says first; none where the server does.
    pub fn initial(&mut self) -> Option<Secret> {
        let (name, password) = (self.credentials.username.as_bytes(), &*self.credentials.password);
        let initial = match self.mechanism {
            Mechanism::Plain => Secret::concat(&[b"\0", name, b"\0", password]),
            Mechanism::External => Secret::concat(&[name]),
            Mechanism::XOAuth2 => {
                Secret::concat(&[b"user=", name, b"\x01auth=Bearer ", password, b"\x01\x01"])
            }
            Mechanism::OAuthBearer => {
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
        let _ = challenge;
        match (self.mechanism, &self.state) {
            (Mechanism::Login, State::Start) => {
                self.state = State::Password;
                Ok(Secret::from(self.credentials.username.as_str()))
            }
            (Mechanism::Login, State::Password) => {
                self.state = State::Sent;
                Ok(self.credentials.password.clone())
            }
            (Mechanism::OAuthBearer, State::Sent) => {
                self.state = State::Refused;
                Ok(Secret::new(vec![1]))
            }
            (Mechanism::XOAuth2, State::Sent) => {
                self.state = State::Refused;
                Ok(Secret::default())
            }
            _ => Err(Error::OutOfTurn),
        }
    }

    /// The server says that it lets the client in.
    ///
    /// # Errors
    /// [`Error::ServerNotProved`] where the mechanism has the server prove itself first.
    pub fn succeeded(&self) -> Result<(), Error> {
        match self.state {
            State::Sent => Ok(()),
            _ => Err(Error::ServerNotProved),
        }
    }
}

/// RFC 5801 section 4: commas and equals signs in a name are encoded.
pub(super) fn gs2_name(name: &[u8]) -> Vec<u8> {
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
