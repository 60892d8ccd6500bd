//! A client's session, SMTP or LMTP: orders in, replies matched to them out.
//!
//! The program hands what it reads to [`Session::receive`] and asks [`Session::next_event`] what to do; it writes
//! [`Session::output`] whenever it is told to read, and may before. [`Event::Idle`] asks for an order: [`Session::hello`],
//! [`Session::start_tls`], [`Session::authenticate`], [`Session::send`], [`Session::reset`], [`Session::noop`],
//! [`Session::quit`]. Each reply comes as [`Event::Reply`] with what it answers.
//!
//! ```text
//! Greeting ─→ Idle ─order→ its replies ─→ Idle
//!              │ send: RSET? XFORWARD* MAIL RCPT* DATA ─354→ Content ─end→ Ending ─→ Idle
//!              │                            └── BDAT ────────↗ (a chunk's refusal → Idle)
//!              └ start_tls ─220→ Handshake ─tls_started→ Idle, nothing known of the server
//! ```
//!
//! Commands of a transaction are pipelined where the server offers it, but never more than [`WINDOW`] bytes of them are
//! unanswered: they always fit into the socket's buffer, so that a program that writes before it reads cannot
//! deadlock with a server that does the same.
//!
//! After 421 ([`Response::closes`]) or an [`Error`] the session is over. What has no reply by then shares its fate.

mod commands;
mod content;
mod features;
mod response;
mod stage;
mod transfer;

use std::collections::VecDeque;
use std::fmt;

use crate::sasl;
pub use commands::{Forward, Probe, Transaction};
pub use content::{Encoder, Framing};
pub use features::Features;
pub use response::Response;
use response::{Malformed, Parser};
pub use stage::Stage;
use transfer::{Body, Transfer};

/// How many bytes of pipelined commands may be unanswered.
pub const WINDOW: usize = 8 * 1024;

/// The longest AUTH line that carries an initial response (RFC 4954 section 4); a longer one is sent when it is asked for.
const MAX_AUTH_LINE: usize = 512;

/// How many challenges a server may send in one exchange.
const MAX_CHALLENGES: u32 = 16;

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// What decides how sessions go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// `smtp_discard_ehlo_keywords`.
    pub discard_keywords: Vec<String>,
    /// `smtp_line_length_limit`, 0 for none.
    pub line_length_limit: usize,
}

/// What happened, or what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Write the output, then read.
    Read,
    /// Give an order.
    Idle,
    /// The reply to a command.
    Reply {
        /// What it answers.
        to: Stage,
        /// The server did what it was asked.
        accepted: bool,
        /// What it said.
        response: Response,
    },
    /// The exchange of AUTH ended because the client would not go on.
    AuthAbandoned(sasl::Error),
    /// Shake hands over the connection, then say [`Session::tls_started`].
    Handshake,
    /// At least one recipient was accepted: give content, to [`Session::content`] and [`Session::end_content`].
    Content,
    /// The server has closed or is about to: with this reply, if it came unasked for.
    Closed(Option<Response>),
}

/// What ends a session, other than a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server's fault: a line that is not one of a reply.
    Garbage {
        /// What it should have answered.
        stage: Stage,
        /// What it said, printable.
        said: String,
    },
    /// The server's fault: a reply without end.
    Endless(Stage),
    /// The server's fault: a reply to nothing.
    Unsolicited(Response),
    /// The program's fault: an order or content that was not asked for.
    OutOfTurn,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage { stage, said } => {
                write!(f, "Protocol error: not an SMTP reply: {said:.100} (in reply to {})", stage.request())
            }
            Self::Endless(stage) => {
                write!(f, "Protocol error: a reply without end (in reply to {})", stage.request())
            }
            Self::Unsolicited(response) => {
                let said = response.to_string();
                write!(f, "Protocol error: a reply to no command: {said:.100}")
            }
            Self::OutOfTurn => f.write_str("an order to a session that was busy"),
        }
    }
}

impl std::error::Error for Error {}

#[derive(Debug)]
enum State {
    /// A single command, or the greeting, whose reply leads to [`State::Idle`].
    Waiting(Stage),
    /// EHLO, HELO or LHLO by this name.
    Hello {
        name: String,
        extended: bool,
    },
    Idle,
    Handshake {
        told: bool,
    },
    Auth(Box<Auth>),
    Transfer(Box<Transfer>),
    Content(Body),
    /// Final replies are awaited, for LMTP for these recipients.
    Ending(VecDeque<Stage>),
    /// Content was sent to nobody, because the server asked for it: its reply is of no interest.
    Nobody,
    /// A chunk was refused: replies to those that were on their way.
    Draining(usize),
    Closed(Option<Response>),
}

#[derive(Debug)]
struct Auth {
    exchange: sasl::client::Exchange,
    /// An initial response that was too long for the line.
    held: Option<sasl::Secret>,
    challenges: u32,
    abandoned: Option<sasl::Error>,
}

/// A session with one server.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    parser: Parser,
    input: Vec<u8>,
    output: Vec<u8>,
    state: State,
    features: Features,
    /// The server may be within a transaction: RSET comes before the next.
    unfinished: bool,
}

impl Session {
    /// A session that waits for the greeting.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            parser: Parser::default(),
            input: Vec::new(),
            output: Vec::new(),
            state: State::Waiting(Stage::Greeting),
            features: Features::default(),
            unfinished: false,
        }
    }

    /// Takes bytes that were read. To bound memory, call [`Session::next_event`] until it says [`Event::Read`] or
    /// [`Event::Idle`] before reading more.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What is to be written, by the program, which empties it. With AUTH it holds secrets: it is not for a log.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What the server offers.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// SMTP or LMTP.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.settings.protocol
    }

    /// What the session waits for: it decides the timeout, and the words when it passes.
    #[must_use]
    pub fn awaits(&self) -> Stage {
        match &self.state {
            State::Waiting(stage) => *stage,
            State::Hello { extended, .. } => Stage::hello(self.settings.protocol, *extended),
            State::Handshake { .. } => Stage::StartTls,
            State::Auth(_) => Stage::Auth,
            State::Transfer(transfer) => transfer.awaits(),
            State::Content(_) | State::Draining(_) => Stage::Content,
            State::Ending(stages) => stages.front().copied().unwrap_or(Stage::End),
            State::Nobody => Stage::End,
            State::Idle | State::Closed(_) => Stage::Idle,
        }
    }

    /// Whether another order can be given, now or when it is asked for.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// What comes next.
    ///
    /// # Errors
    /// The server does not speak the protocol. The session is over.
    pub fn next_event(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.act() {
                return Ok(event);
            }
            match self.response() {
                Ok(None) => return Ok(self.without_response()),
                Ok(Some(response)) => match self.replied(response) {
                    Ok(Some(event)) => return Ok(event),
                    Ok(None) => {}
                    Err(error) => {
                        self.state = State::Closed(None);
                        return Err(error);
                    }
                },
                Err(error) => {
                    self.state = State::Closed(None);
                    return Err(error);
                }
            }
        }
    }

    /// Does what needs no reply; an event if that is for the program.
    fn act(&mut self) -> Option<Event> {
        match &mut self.state {
            State::Handshake { told } => {
                *told = true;
                // Nothing that came in clear may count as said under TLS.
                self.input.clear();
                self.parser = Parser::default();
                Some(Event::Handshake)
            }
            State::Closed(response) => Some(Event::Closed(response.take())),
            State::Transfer(transfer) => {
                transfer.write(&self.features, &mut self.output);
                if !transfer.is_done() {
                    return None;
                }
                self.state = transfer.content(self.settings.protocol, self.settings.line_length_limit);
                self.unfinished = true;
                if matches!(self.state, State::Nobody) {
                    self.output.extend_from_slice(b".\r\n");
                    if self.settings.protocol == Protocol::Lmtp {
                        // How many replies a server gives to that is anybody's guess (RFC 2033 section 4.2).
                        self.state = State::Closed(None);
                    }
                }
                self.act()
            }
            State::Ending(stages) if stages.is_empty() => {
                self.state = State::Idle;
                None
            }
            State::Draining(0) => {
                self.state = State::Idle;
                None
            }
            _ => None,
        }
    }

    /// The event where no reply is there.
    fn without_response(&self) -> Event {
        match &self.state {
            State::Idle => Event::Idle,
            State::Content(body) if body.may_go_on(self.features.pipelining) => Event::Content,
            _ => Event::Read,
        }
    }

    fn response(&mut self) -> Result<Option<Response>, Error> {
        let mut rest = self.input.as_slice();
        let found = self.parser.take(&mut rest);
        let used = self.input.len() - rest.len();
        self.input.drain(..used);
        let stage = self.awaits();
        match found {
            None => Ok(None),
            Some(Ok(response)) => Ok(Some(response)),
            Some(Err(Malformed::Line(said))) => Err(Error::Garbage { stage, said }),
            Some(Err(Malformed::Endless)) => Err(Error::Endless(stage)),
        }
    }

    /// Matches a reply with what is awaited.
    fn replied(&mut self, response: Response) -> Result<Option<Event>, Error> {
        // Some servers mean the one recipient; the others close the connection, which is seen then.
        let closes = response.closes() && !matches!(self.awaits(), Stage::Recipient(_));
        let state = std::mem::replace(&mut self.state, State::Idle);
        let event = match state {
            State::Waiting(stage) => {
                self.unfinished &= !(stage == Stage::Reset && response.is_positive());
                match stage {
                    Stage::StartTls if response.is_positive() => {
                        self.state = State::Handshake { told: false }
                    }
                    Stage::Quit => self.state = State::Closed(None),
                    _ => {}
                }
                Some(reply(stage, response))
            }
            State::Hello { name, extended } => self.hello_replied(name, extended, response),
            State::Auth(auth) => self.auth_replied(*auth, response),
            State::Transfer(mut transfer) => {
                let event = transfer.replied(response);
                self.unfinished &= !transfer.was_reset();
                self.state = State::Transfer(transfer);
                Some(event)
            }
            State::Ending(mut stages) => {
                let stage = stages.pop_front().unwrap_or(Stage::End);
                // After a refused chunk the server waits for RSET (RFC 3030 section 2); after a refused dot it does no harm.
                self.unfinished = !response.is_positive();
                self.state = State::Ending(stages);
                Some(reply(stage, response)).filter(|_| stage != Stage::Content || self.unfinished)
            }
            State::Nobody => None,
            State::Draining(left) => {
                self.state = State::Draining(left.saturating_sub(1));
                None
            }
            State::Content(mut body) if !closes && body.awaits_chunk() => {
                body.chunk_answered();
                if response.is_positive() {
                    self.state = State::Content(body);
                    return Ok(None);
                }
                self.state = State::Draining(body.unanswered());
                Some(reply(Stage::Content, response))
            }
            State::Content(_) if !closes && !response.is_positive() => {
                // No RFC lets a server refuse content while it comes; those that do go on to close.
                self.state = State::Closed(None);
                Some(reply(Stage::Content, response))
            }
            State::Idle | State::Content(_) | State::Handshake { .. } | State::Closed(_) if closes => {
                self.state = State::Closed(Some(response));
                return Ok(None);
            }
            State::Idle | State::Content(_) | State::Handshake { .. } | State::Closed(_) => {
                return Err(Error::Unsolicited(response));
            }
        };
        if closes {
            self.state = State::Closed(None);
        }
        Ok(event)
    }

    fn hello_replied(&mut self, name: String, extended: bool, response: Response) -> Option<Event> {
        let stage = Stage::hello(self.settings.protocol, extended);
        if response.is_positive() {
            let discard = &self.settings.discard_keywords;
            self.features = Features::from_response(&response, extended, discard);
        } else if stage == Stage::Ehlo && !response.closes() {
            // RFC 5321 section 4.1.4: a server without extensions refuses EHLO and takes HELO.
            self.say_hello(name, false);
            return None;
        }
        Some(reply(stage, response))
    }

    fn auth_replied(&mut self, mut auth: Auth, response: Response) -> Option<Event> {
        if let Some(error) = auth.abandoned {
            return Some(Event::AuthAbandoned(error));
        }
        if !response.is_intermediate() {
            // A server that has not proved that it knows the password has accepted nothing.
            return Some(match (response.is_positive(), auth.exchange.succeeded()) {
                (true, Err(error)) => Event::AuthAbandoned(error),
                _ => reply(Stage::Auth, response),
            });
        }
        match auth.answer(&response) {
            Ok(answer) => sasl::push_base64(&answer, &mut self.output),
            Err(error) => {
                auth.abandoned = Some(error);
                self.output.push(b'*');
            }
        }
        self.output.extend_from_slice(b"\r\n");
        self.state = State::Auth(Box::new(auth));
        None
    }

    fn say_hello(&mut self, name: String, extended: bool) {
        let verb = match Stage::hello(self.settings.protocol, extended) {
            Stage::Lhlo => "LHLO",
            Stage::Ehlo => "EHLO",
            _ => "HELO",
        };
        self.command(&format!("{verb} {name}"));
        self.state = State::Hello { name, extended };
    }

    fn command(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn turn(&self) -> Result<(), Error> {
        if matches!(self.state, State::Idle) { Ok(()) } else { Err(Error::OutOfTurn) }
    }
}

/// The orders.
impl Session {
    /// Introduces the client by this name: with EHLO, and with HELO if that is refused; over LMTP with LHLO.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`], also from the other orders.
    pub fn hello(&mut self, name: &str) -> Result<(), Error> {
        self.turn()?;
        self.say_hello(name.to_owned(), true);
        Ok(())
    }

    /// Introduces the client with HELO only (`smtp_never_send_ehlo`, or a greeting without `ESMTP` where
    /// `smtp_always_send_ehlo = no`).
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn plain_hello(&mut self, name: &str) -> Result<(), Error> {
        self.turn()?;
        self.say_hello(name.to_owned(), false);
        Ok(())
    }

    /// STARTTLS (RFC 3207). If it is accepted, [`Event::Handshake`] follows its reply.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn start_tls(&mut self) -> Result<(), Error> {
        self.single(Stage::StartTls, "STARTTLS")
    }

    /// TLS is established. What the server said before counts for nothing: introduce the client again.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn tls_started(&mut self) -> Result<(), Error> {
        if !matches!(self.state, State::Handshake { told: true }) {
            return Err(Error::OutOfTurn);
        }
        self.features = Features::default();
        self.state = State::Idle;
        Ok(())
    }

    /// AUTH (RFC 4954), with all its steps: one reply or [`Event::AuthAbandoned`] comes of it.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn authenticate(&mut self, mut exchange: sasl::client::Exchange) -> Result<(), Error> {
        self.turn()?;
        let initial = exchange.initial();
        let name = exchange.mechanism().name();
        self.output.extend_from_slice(format!("AUTH {name}").as_bytes());
        let fits = |secret: &sasl::Secret| name.len() + secret.len().div_ceil(3) * 4 + 8 <= MAX_AUTH_LINE;
        let (now, held) = match initial {
            Some(secret) if fits(&secret) => (Some(secret), None),
            held => (None, held),
        };
        if let Some(secret) = now {
            self.output.push(b' ');
            match secret.is_empty() {
                // An empty response cannot be told from none: RFC 4954 section 4.
                true => self.output.push(b'='),
                false => sasl::push_base64(&secret, &mut self.output),
            }
        }
        self.output.extend_from_slice(b"\r\n");
        self.state = State::Auth(Box::new(Auth { exchange, held, challenges: 0, abandoned: None }));
        Ok(())
    }

    /// Sends a message: the envelope, and, if a recipient is accepted, the content when [`Event::Content`] asks for it.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn send(&mut self, transaction: Transaction) -> Result<(), Error> {
        self.turn()?;
        let chunking = transaction.chunking && self.features.chunking;
        let transfer = Transfer::new(transaction, self.unfinished, chunking, self.features.pipelining);
        self.state = State::Transfer(Box::new(transfer));
        Ok(())
    }

    /// Takes a piece of content, with LF line ends.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn content(&mut self, content: &[u8]) -> Result<(), Error> {
        let State::Content(body) = &mut self.state else { return Err(Error::OutOfTurn) };
        body.encode(content, &mut self.output);
        Ok(())
    }

    /// Ends the content. One that cannot be ended because its rest cannot be read must not be: drop the connection.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn end_content(&mut self) -> Result<(), Error> {
        let State::Content(body) = &mut self.state else { return Err(Error::OutOfTurn) };
        if let Some(stages) = body.finish(&mut self.output) {
            self.state = State::Ending(stages);
        }
        Ok(())
    }

    /// RSET: forgets a transaction, or shows that the server is still there.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn reset(&mut self) -> Result<(), Error> {
        self.single(Stage::Reset, "RSET")
    }

    /// The next [`Session::send`] begins with RSET: it shows that the server is still there, and costs no round trip where
    /// commands are pipelined.
    pub const fn reset_first(&mut self) {
        self.unfinished = true;
    }

    /// NOOP.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn noop(&mut self) -> Result<(), Error> {
        self.single(Stage::Noop, "NOOP")
    }

    /// QUIT.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`].
    pub fn quit(&mut self) -> Result<(), Error> {
        self.single(Stage::Quit, "QUIT")
    }

    fn single(&mut self, stage: Stage, line: &str) -> Result<(), Error> {
        self.turn()?;
        self.command(line);
        self.state = State::Waiting(stage);
        Ok(())
    }
}

impl Auth {
    fn answer(&mut self, challenge: &Response) -> Result<sasl::Secret, sasl::Error> {
        self.challenges += 1;
        if self.challenges > MAX_CHALLENGES {
            return Err(sasl::Error::TooManySteps);
        }
        let text = challenge.texts().collect::<String>();
        let challenge = sasl::from_base64(text.trim().as_bytes())?;
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        self.exchange.respond(&challenge)
    }
}

fn reply(to: Stage, response: Response) -> Event {
    Event::Reply { to, accepted: response.is_positive(), response }
}
