//! The server's side of the mechanisms.

use hmac::Hmac;
use md5::Md5;
use subtle::ConstantTimeEq;

use super::scram::{self, ChannelBinding, Hash, Hello, Keys, Last};
use super::{Mechanism, Secret, push_base64, push_hex};

/// Whoever knows the passwords, or whom to ask.
pub trait Verifier {
    /// Whether this is the user's password (PLAIN, LOGIN).
    ///
    /// # Errors
    /// It cannot be found out for now.
    fn check(&mut self, username: &str, password: &Secret) -> Result<bool, Unavailable>;

    /// What is kept of the user's password for SCRAM; none for a user without.
    ///
    /// # Errors
    /// It cannot be found out for now.
    fn scram_keys(&mut self, hash: Hash, username: &str) -> Result<Option<Keys>, Unavailable>;

    /// The password itself (CRAM-MD5); none for a user without, or where only a hash of it is kept.
    ///
    /// # Errors
    /// It cannot be found out for now.
    fn password(&mut self, username: &str) -> Result<Option<Secret>, Unavailable>;

    /// Whether the token lets this user in (OAUTHBEARER, XOAUTH2).
    ///
    /// # Errors
    /// It cannot be found out for now.
    fn check_token(&mut self, username: &str, token: &Secret) -> Result<bool, Unavailable>;
}

/// The verifier does not answer, and why: for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// What an exchange needs of the world.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The server's name, in the challenge of CRAM-MD5.
    pub hostname: String,
    /// Printable ASCII without commas that was never used before, of at least 128 random bits.
    pub nonce: String,
    /// What the -PLUS mechanisms can be bound to.
    pub bindings: Vec<ChannelBinding>,
    /// The -PLUS mechanisms were offered: a client that could bind and does not know so was lied to (RFC 5802 section 6).
    pub plus_offered: bool,
    /// Who the client is by other means (EXTERNAL).
    pub external: Option<String>,
    /// Secret and lasting: what answers for users that do not exist are made of.
    pub decoy_seed: Secret,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Send this and bring the answer.
    Challenge(Secret),
    /// The client is this user.
    Accepted(String),
    /// It is not, or cannot be believed.
    Refused(Refusal),
}

/// Why a client was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who it said it was, as far as it got.
    pub username: Option<String>,
    /// The reason.
    pub reason: Reason,
}

/// Whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name, the password, the token or the proof is not right.
    Credentials,
    /// The client wants to act as somebody else.
    NotAuthorized,
    /// It does not speak the mechanism.
    Malformed,
    /// The channel is not the one that the client believes it is.
    ChannelBinding,
    /// The verifier does not answer.
    Unavailable(String),
}

impl From<Unavailable> for Reason {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable.0)
    }
}

/// One exchange with a client.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    context: Context,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The client's first message is awaited.
    Start,
    /// LOGIN: the name is known.
    Password(String),
    /// CRAM-MD5: this was the challenge.
    Challenged(String),
    Scram(Box<Scram>),
    /// All is proved; the client has to acknowledge the server's own proof.
    Proved(String),
    /// OAuth: the client was told why not and has to acknowledge it.
    Told(Refusal),
    Over,
}

#[derive(Debug)]
struct Scram {
    hash: Hash,
    hello: Hello,
    keys: Keys,
    /// The binding's data.
    bound: Vec<u8>,
    nonce: String,
    /// The server's first message.
    message: String,
}

impl Exchange {
    /// Begins one.
    #[must_use]
    pub const fn new(mechanism: Mechanism, context: Context) -> Self {
        Self { mechanism, context, state: State::Start }
    }

    /// Which mechanism it is.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the client's response; none where AUTH came without one.
    pub fn step(&mut self, response: Option<&Secret>, verifier: &mut dyn Verifier) -> Step {
        let state = std::mem::replace(&mut self.state, State::Over);
        let Some(response) = response else { return self.begin() };
        let taken = match state {
            State::Start => self.first(response, verifier),
            State::Password(username) => check(username, response, verifier),
            State::Challenged(challenge) => cram_md5(&challenge, response, verifier),
            State::Scram(scram) => scram.last(response).map(|(username, proof)| {
                self.state = State::Proved(username);
                Step::Challenge(proof)
            }),
            State::Proved(username) if response.is_empty() => Ok(Step::Accepted(username)),
            State::Told(refusal) => Err(refusal),
            State::Proved(_) | State::Over => Err(refusal(None, Reason::Malformed)),
        };
        taken.unwrap_or_else(Step::Refused)
    }

    /// AUTH without initial response: the mechanisms in which the client speaks first ask for it with nothing.
    fn begin(&mut self) -> Step {
        let (challenge, state) = match self.mechanism {
            Mechanism::Login => ("Username:".to_owned(), State::Start),
            Mechanism::CramMd5 => {
                let challenge = format!("<{}@{}>", self.context.nonce, self.context.hostname);
                (challenge.clone(), State::Challenged(challenge))
            }
            _ => (String::new(), State::Start),
        };
        self.state = state;
        Step::Challenge(Secret::from(challenge))
    }

    fn first(&mut self, response: &Secret, verifier: &mut dyn Verifier) -> Result<Step, Refusal> {
        let malformed = || refusal(None, Reason::Malformed);
        match self.mechanism {
            Mechanism::Plain => {
                let mut parts = response.splitn(3, |byte| *byte == 0);
                let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
                let (Some(authzid), Some(username), Some(password)) = (text(), text(), text()) else {
                    return Err(malformed());
                };
                acts_as_itself(authzid, username)?;
                if password.contains('\0') {
                    return Err(refusal(Some(username), Reason::Malformed));
                }
                check(username.to_owned(), &Secret::from(password), verifier)
            }
            Mechanism::Login => {
                let username = response.as_str().filter(|name| !name.contains('\0')).ok_or_else(malformed)?;
                self.state = State::Password(username.to_owned());
                Ok(Step::Challenge(Secret::from("Password:")))
            }
            Mechanism::External => {
                let wanted = response.as_str().ok_or_else(malformed)?;
                let known = self.context.external.clone();
                let known = known.ok_or_else(|| refusal(Some(wanted), Reason::Credentials))?;
                acts_as_itself(wanted, &known)?;
                Ok(Step::Accepted(known))
            }
            Mechanism::XOAuth2 | Mechanism::OAuthBearer => self.token(response, verifier),
            // The server speaks first: an initial response is out of place (RFC 4954 section 4).
            Mechanism::CramMd5 => Err(malformed()),
            _ => self.scram(response, verifier),
        }
    }

    fn token(&mut self, response: &Secret, verifier: &mut dyn Verifier) -> Result<Step, Refusal> {
        let text = response.as_str().ok_or_else(|| refusal(None, Reason::Malformed))?;
        let (username, token) =
            bearer(self.mechanism, text).ok_or_else(|| refusal(None, Reason::Malformed))?;
        match verifier.check_token(&username, &token) {
            Ok(true) => Ok(Step::Accepted(username)),
            Ok(false) => {
                self.state = State::Told(refusal(Some(&username), Reason::Credentials));
                Ok(Step::Challenge(Secret::from(r#"{"status":"invalid_token","schemes":"bearer"}"#)))
            }
            Err(unavailable) => Err(refusal(Some(&username), unavailable.into())),
        }
    }

    fn scram(&mut self, response: &Secret, verifier: &mut dyn Verifier) -> Result<Step, Refusal> {
        let malformed = || refusal(None, Reason::Malformed);
        let (hash, plus) = Hash::of(self.mechanism).ok_or_else(malformed)?;
        let hello = Hello::parse(response).ok_or_else(malformed)?;
        let username = hello.username.clone();
        acts_as_itself(&hello.authzid, &username)?;
        let wrong_channel = || refusal(Some(&username), Reason::ChannelBinding);
        let lied_to = hello.could_bind && self.context.plus_offered;
        let bound = match &hello.binding {
            Some(kind) if plus => {
                let mut bindings = self.context.bindings.iter();
                let binding = bindings.find(|binding| binding.kind == kind).ok_or_else(wrong_channel)?;
                binding.data.clone()
            }
            None if !(plus || lied_to) => Vec::new(),
            _ => return Err(wrong_channel()),
        };
        let keys = verifier
            .scram_keys(hash, &username)
            .map_err(|unavailable| refusal(Some(&username), unavailable.into()))?
            .unwrap_or_else(|| Keys::decoy(hash, &self.context.decoy_seed, &username));
        let nonce = format!("{}{}", hello.nonce, self.context.nonce);
        let mut message = format!("r={nonce},s=").into_bytes();
        push_base64(&keys.salt, &mut message);
        message.extend_from_slice(format!(",i={}", keys.iterations).as_bytes());
        let message = String::from_utf8(message).map_err(|_| malformed())?;
        let challenge = Secret::from(message.as_str());
        self.state = State::Scram(Box::new(Scram { hash, hello, keys, bound, nonce, message }));
        Ok(Step::Challenge(challenge))
    }
}

impl Scram {
    /// Checks the client's second message; gives who it is, and the server's proof.
    fn last(&self, response: &Secret) -> Result<(String, Secret), Refusal> {
        let username = Some(self.hello.username.as_str());
        let last = Last::parse(response).ok_or_else(|| refusal(username, Reason::Malformed))?;
        let binding = [self.hello.header.as_bytes(), &self.bound].concat();
        if last.nonce != self.nonce {
            return Err(refusal(username, Reason::Malformed));
        }
        if *last.binding != *binding {
            return Err(refusal(username, Reason::ChannelBinding));
        }
        let messages = format!("{},{},{}", self.hello.bare, self.message, last.without_proof);
        let proof = self
            .keys
            .check(self.hash, messages.as_bytes(), &last.proof)
            .ok_or_else(|| refusal(username, Reason::Credentials))?;
        let mut message = b"v=".to_vec();
        push_base64(&proof, &mut message);
        Ok((self.hello.username.clone(), Secret::new(message)))
    }
}

fn refusal(username: Option<&str>, reason: Reason) -> Refusal {
    Refusal { username: username.map(str::to_owned), reason }
}

/// Nobody may act as somebody else: there is no table of who may.
fn acts_as_itself(authzid: &str, username: &str) -> Result<(), Refusal> {
    if authzid.is_empty() || authzid == username {
        Ok(())
    } else {
        Err(refusal(Some(username), Reason::NotAuthorized))
    }
}

fn check(username: String, password: &Secret, verifier: &mut dyn Verifier) -> Result<Step, Refusal> {
    match verifier.check(&username, password) {
        Ok(true) => Ok(Step::Accepted(username)),
        Ok(false) => Err(refusal(Some(&username), Reason::Credentials)),
        Err(unavailable) => Err(refusal(Some(&username), unavailable.into())),
    }
}

fn cram_md5(challenge: &str, response: &Secret, verifier: &mut dyn Verifier) -> Result<Step, Refusal> {
    let text = response.as_str().and_then(|text| text.rsplit_once(' '));
    let (username, digest) = text.ok_or_else(|| refusal(None, Reason::Malformed))?;
    let password =
        verifier.password(username).map_err(|unavailable| refusal(Some(username), unavailable.into()))?;
    let mut right = Vec::new();
    push_hex(
        &scram::mac::<Hmac<Md5>>(password.as_deref().unwrap_or_default(), challenge.as_bytes()),
        &mut right,
    );
    let same: bool = right.ct_eq(digest.to_ascii_lowercase().as_bytes()).into();
    if same && password.is_some() {
        Ok(Step::Accepted(username.to_owned()))
    } else {
        Err(refusal(Some(username), Reason::Credentials))
    }
}

/// The name and the token of `user=NAME^Aauth=Bearer TOKEN^A^A` and of `n,a=NAME,^A…^Aauth=Bearer TOKEN^A^A`.
fn bearer(mechanism: Mechanism, text: &str) -> Option<(String, Secret)> {
    let mut parts = text.split('\x01');
    let first = parts.next()?;
    let username = match mechanism {
        Mechanism::XOAuth2 => first.strip_prefix("user=").map(str::to_owned)?,
        _ => scram::name(first.strip_prefix("n,a=")?.strip_suffix(',')?)?,
    };
    let token = parts.find_map(|part| part.strip_prefix("auth="))?;
    let (scheme, token) = token.split_once(' ')?;
    let valid = scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty() && !username.is_empty();
    valid.then(|| (username, Secret::from(token)))
}
