//! A server's session: who may say what when.
//!
//! The program reads into [`Session::input`], asks [`Session::next_event`] what happened, answers, and writes
//! [`Session::output`] when it is told to read on. Replies to pipelined commands gather in the output by themselves.
//!
//! ```text
//! greet ─→ Idle ─MAIL→ Mail ─DATA→ Content ─end→ Idle
//!            ↑           └──BDAT→ Content ─chunk→ Chunks ─BDAT→ Content …
//!            └──RSET, HELO, EHLO───┴────────────────┘
//! ```
//!
//! A question (HELO, MAIL, RCPT, the start and the end of content …) takes effect only when it is answered positively:
//! [`Session::accept`] or [`Session::answer`]. One that is left unanswered ends the session with 421: a program that
//! forgets must not let mail in.

mod auth;
mod commands;
mod content;
mod counters;
mod settings;
mod site;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use mail::Address;

pub use auth::AuthOffer;
pub use counters::Counters;
pub use settings::{Policy, Settings};
pub use site::{SAME_LINE, SiteRules};

use crate::command::Verb;
use crate::input::Input;
use crate::parameter::{Extensions, Mail, Rcpt};
use crate::reply::{Fault, Reply};
use crate::sasl::Secret;
use auth::Auth;
use content::Receiver;

/// How the client named itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helo {
    /// What it said, printable.
    pub name: String,
    /// By EHLO or LHLO, not HELO.
    pub extended: bool,
}

/// Everything up to the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The sender and what it asked for.
    pub mail: Mail,
    /// The recipients that were accepted, in their order.
    pub recipients: Vec<Rcpt>,
}

/// What happened. An event that says "to be answered" wants [`Session::accept`] or [`Session::answer`] before the next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing more can be understood: write the output, read more.
    Read,
    /// The client made many errors: write the output, wait `smtpd_error_sleep_time`.
    Delay,
    /// HELO, EHLO or LHLO; to be answered.
    Helo(&'a Helo),
    /// MAIL; to be answered.
    Mail(&'a Mail),
    /// RCPT; to be answered. The recipient is in [`Session::transaction`] only after it.
    Rcpt(&'a Rcpt),
    /// Content is about to come; to be answered: [`Session::accept`] lets it come, a refusal keeps it out.
    Begin(&'a Transaction),
    /// A slice of the content, with LF line ends.
    Content(&'a [u8]),
    /// The content is complete; to be answered, by [`Session::answer`] only.
    End {
        /// Whose content it was.
        transaction: &'a Transaction,
        /// The size of the message, if it came by BDAT.
        chunked: Option<u64>,
    },
    /// The transaction is over without a message, and so is content that had begun. If a reply is here, the client got
    /// it instead of a question to the program.
    Abandoned(Option<&'a Reply>),
    /// VRFY; to be answered.
    Verify(&'a Address),
    /// AUTH with a mechanism, and what followed it, which should be base64; to be answered, perhaps by
    /// [`Session::challenge`].
    Auth {
        /// In upper case.
        mechanism: &'a str,
        /// The initial response.
        initial: Option<&'a Secret>,
    },
    /// What the client says to a challenge, which should be base64; to be answered likewise.
    AuthResponse(&'a Secret),
    /// A command that is another module's: STARTTLS, XCLIENT, XFORWARD, ETRN; to be answered. [`Session::accept`]
    /// says that it is not offered.
    Other(Verb, &'a str),
    /// No command: its first word, and the line; to be answered. [`Session::accept`] says 500.
    Unknown(&'a str, &'a str),
    /// A command with these arguments failed without a question; the client got this reply.
    Refused(Verb, &'a str, &'a Reply),
    /// Something to be logged.
    Notice(Notice),
    /// Write the output and close.
    Close(Ending),
}

/// Something to be logged that has no reply of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The client did not wait where it must: after which command, and what it said.
    ImproperPipelining {
        /// The place, in the words of [`Session::place`].
        after: &'static str,
        /// The first bytes of what came too early, printable.
        said: String,
    },
    /// A line ended in a bare line feed, with `smtpd_forbid_bare_newline = note` or `reject`. (Content that is refused for
    /// it is [`Event::Abandoned`].)
    BareNewline {
        /// The place, in the words of [`Session::place`].
        after: &'static str,
    },
}

/// Why the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// `smtpd_hard_error_limit`.
    TooManyErrors,
    /// A reply that closes, or a violation of the protocol.
    Dropped,
}

/// Where the dialogue is.
#[derive(Debug)]
enum State {
    /// The greeting has not been sent.
    Connected,
    /// No transaction.
    Idle,
    /// The greeting refused the client: all it can do is go.
    Denied(String),
    /// MAIL was accepted.
    Mail(Transaction),
    /// Between the chunks of a message; without a receiver, one that cannot be saved.
    Chunks(Transaction, Option<Receiver>),
    /// Reading over an unwanted chunk.
    Skip {
        left: u64,
        reply: Reply,
        then: Box<State>,
    },
    /// Content is coming.
    Content(Transaction, Receiver),
    Closed(Ending),
}

/// What was asked of the program and is not answered yet.
#[derive(Debug)]
enum Question {
    Helo(Helo, Verb),
    Mail(Mail),
    Rcpt(Rcpt),
    Begin(Receiver),
    End(Transaction, Option<u64>),
    /// The address, and how it was written.
    Verify(Address, String),
    Auth(String, Option<Secret>),
    AuthResponse(Secret),
    Other(Verb, String),
    /// The first word, and the line.
    Unknown(String, String),
}

/// An event whose data is still where it came from.
enum Step {
    Read,
    Delay,
    Asked,
    Content(std::ops::Range<usize>),
    Bytes(&'static [u8]),
    Refused,
    Abandoned { replied: bool },
    Notice(Notice),
    Close(Ending),
}

/// A session with one client.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    policy: Policy,
    input: Input,
    output: Vec<u8>,
    state: State,
    helo: Option<Helo>,
    auth: Auth,
    question: Option<Question>,
    /// What the reply to come is counted for.
    verb: Verb,
    place: &'static str,
    counters: Counters,
    refusal: Reply,
    /// What stood after the verb that was refused.
    arguments: String,
    notices: VecDeque<Notice>,
    errors: u32,
    junk: u32,
    overshoot: u32,
    delay_owed: bool,
    /// A transaction is gone: the program is to be told.
    abandoned: bool,
    pipelining_noticed: bool,
    /// All that comes and goes is encrypted.
    encrypted: bool,
    site: Option<Arc<dyn SiteRules>>,
}

impl Session {
    /// A session that has not greeted. `storage` is the first read buffer; it must hold a line of `line_length_limit`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, policy: Policy, storage: Vec<u8>) -> Self {
        Self {
            settings,
            policy,
            input: Input::new(storage),
            output: Vec::new(),
            state: State::Connected,
            helo: None,
            auth: Auth::default(),
            question: None,
            verb: Verb::Unknown,
            place: "CONNECT",
            counters: Counters::default(),
            refusal: Reply::plain(250, ""),
            arguments: String::new(),
            notices: VecDeque::new(),
            errors: 0,
            junk: 0,
            overshoot: 0,
            delay_owed: false,
            abandoned: false,
            pipelining_noticed: false,
            encrypted: false,
            site: None,
        }
    }

    /// Sends the greeting. One that is negative lets the client do nothing but QUIT; `client` names it in the replies.
    ///
    /// A client that has spoken before it was greeted (RFC 5321 section 4.3.1) is out of step from the start.
    pub fn greet(&mut self, greeting: &Reply, client: &str) {
        // Who was dismissed in a handshake before it stays so.
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        self.state = State::Idle;
        self.say(greeting);
        if greeting.closes() {
            self.state = State::Closed(Ending::Dropped);
        } else if !greeting.is_positive() {
            self.state = State::Denied(client.to_owned());
        } else if !self.input.pending().is_empty() {
            self.out_of_step("CONNECT");
        }
    }

    /// Rules of the site for this client; none is the usual dialogue.
    pub fn set_site_rules(&mut self, rules: Option<Arc<dyn SiteRules>>) {
        self.site = rules;
    }

    /// Answers the question by beginning anew, as if the client had just connected: with another greeting, and what holds
    /// for the client that it turned out to be. A `helo` that is known already need not be said again.
    pub fn start_over(&mut self, greeting: &Reply, policy: Policy, client: &str, helo: Option<Helo>) {
        self.question = None;
        self.counters.count(self.verb, greeting.is_positive());
        self.policy = policy;
        self.helo = helo;
        self.drop_transaction();
        self.state = State::Idle;
        self.say(greeting);
        if greeting.closes() {
            self.state = State::Closed(Ending::Dropped);
        } else if !greeting.is_positive() {
            self.state = State::Denied(client.to_owned());
        }
    }

    /// TLS has begun: whatever was said or sent in clear counts no more (RFC 3207 section 4.2), and it is not offered again.
    pub fn encrypted(&mut self) {
        self.encrypted = true;
        self.input.clear();
        self.question = None;
        self.helo = None;
        self.policy.extensions = self.policy.extensions.without(Extensions::STARTTLS);
        self.pipelining_noticed = false;
        self.set_authenticated(false);
        self.drop_transaction();
    }

    /// Adds a last word of the program's own to the output.
    pub fn say_last(&mut self, reply: &Reply) {
        self.say(reply);
    }

    /// What comes next.
    pub fn next_event(&mut self) -> Event<'_> {
        if self.question.take().is_some() {
            let fault = Fault::Unanswered;
            self.refuse(&fault);
        }
        match self.step() {
            Step::Read => Event::Read,
            Step::Delay => Event::Delay,
            Step::Content(place) => Event::Content(self.input.at(place)),
            Step::Bytes(bytes) => Event::Content(bytes),
            Step::Refused => Event::Refused(self.verb, &self.arguments, &self.refusal),
            Step::Abandoned { replied } => Event::Abandoned(Some(&self.refusal).filter(|_| replied)),
            Step::Notice(notice) => Event::Notice(notice),
            Step::Close(ending) => Event::Close(ending),
            Step::Asked => match &self.question {
                Some(Question::Helo(helo, _)) => Event::Helo(helo),
                Some(Question::Mail(mail)) => Event::Mail(mail),
                Some(Question::Rcpt(rcpt)) => Event::Rcpt(rcpt),
                Some(Question::Begin(_)) => match &self.state {
                    State::Mail(transaction) => Event::Begin(transaction),
                    _ => Event::Read,
                },
                Some(Question::End(transaction, chunked)) => Event::End { transaction, chunked: *chunked },
                Some(Question::Verify(address, _)) => Event::Verify(address),
                Some(Question::Auth(mechanism, initial)) => {
                    Event::Auth { mechanism, initial: initial.as_ref() }
                }
                Some(Question::AuthResponse(response)) => Event::AuthResponse(response),
                Some(Question::Other(verb, arguments)) => Event::Other(*verb, arguments),
                Some(Question::Unknown(word, line)) => Event::Unknown(word, line),
                None => Event::Read,
            },
        }
    }

    fn step(&mut self) -> Step {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Step::Notice(notice);
            }
            if std::mem::take(&mut self.abandoned) {
                return Step::Abandoned { replied: false };
            }
            if std::mem::take(&mut self.delay_owed) {
                return Step::Delay;
            }
            let step = match &self.state {
                State::Closed(ending) => Some(Step::Close(*ending)),
                State::Connected => Some(Step::Read),
                State::Content(..) => self.receive(),
                State::Skip { .. } => self.skip_on(),
                _ if self.is_challenged() => self.auth_response(),
                _ => self.command(),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Answers the question with the usual positive reply, or, where there is none, with that of a command that is not
    /// known.
    pub fn accept(&mut self) {
        let reply = match &self.question {
            Some(Question::Helo(_, Verb::Helo)) => Reply::plain(250, self.settings.hostname.clone()),
            Some(Question::Helo(..)) => self.settings.ehlo_reply(&self.policy, self.auth_lines()),
            Some(Question::Mail(_)) => Reply::new(250, mail::Dsn::new(2, 1, 0), "Ok"),
            Some(Question::Rcpt(_)) => Reply::new(250, mail::Dsn::new(2, 1, 5), "Ok"),
            Some(Question::Begin(_)) => Reply::plain(354, "End data with <CR><LF>.<CR><LF>"),
            Some(Question::Verify(_, path)) => Reply::new(252, mail::Dsn::new(2, 0, 0), path.clone()),
            Some(Question::Other(verb, arguments)) => {
                commands::not_offered(*verb, arguments).reply(&self.settings.hostname)
            }
            Some(Question::Auth(..) | Question::AuthResponse(_)) => {
                Fault::AuthNotEnabled.reply(&self.settings.hostname)
            }
            Some(Question::Unknown(..)) => {
                let barred = self.barred(Verb::Unknown);
                barred.unwrap_or(Fault::NotRecognized).reply(&self.settings.hostname)
            }
            Some(Question::End(..)) => Fault::Unanswered.reply(&self.settings.hostname),
            None => return,
        };
        self.answer(&reply);
    }

    /// Answers the question. A positive reply gives it its effect.
    pub fn answer(&mut self, reply: &Reply) {
        let Some(question) = self.question.take() else { return };
        match question {
            Question::Begin(receiver) => return self.begin_answered(receiver, reply),
            Question::End(..) => return self.end_answered(reply),
            _ => self.answered(reply),
        }
        if !reply.is_positive() {
            return;
        }
        match question {
            Question::Helo(helo, _) => {
                self.helo = Some(helo);
                self.drop_transaction();
            }
            Question::Mail(mail) => {
                self.overshoot = 0;
                self.state = State::Mail(Transaction { mail, recipients: Vec::new() });
            }
            Question::Rcpt(rcpt) => {
                if let State::Mail(transaction) = &mut self.state {
                    transaction.recipients.push(rcpt);
                }
            }
            Question::Auth(..) | Question::AuthResponse(_) => self.set_authenticated(true),
            _ => {}
        }
    }

    /// Answers the question, or whatever was said last, and ends the session.
    pub fn dismiss(&mut self, reply: &Reply) {
        self.question = None;
        self.counters.count(self.verb, false);
        self.say(reply);
        self.close(Ending::Dropped);
    }

    /// Counts and sends the reply to the command of the moment.
    fn answered(&mut self, reply: &Reply) {
        self.counters.count(self.verb, reply.is_positive());
        if !reply.is_positive() {
            self.errors += 1;
        }
        self.say(reply);
        if reply.closes() {
            self.close(Ending::Dropped);
        }
    }

    /// The client did something wrong.
    fn refuse(&mut self, fault: &Fault) -> Step {
        self.refuse_with(fault.reply(&self.settings.hostname))
    }

    fn refuse_with(&mut self, reply: Reply) -> Step {
        self.answered(&reply);
        self.refusal = reply;
        Step::Refused
    }

    fn say(&mut self, reply: &Reply) {
        let mut reply = Cow::Borrowed(reply);
        if self.settings.soft_bounce && reply.code() >= 500 {
            reply = Cow::Owned(reply.into_owned().softened());
        }
        let site = self.site.as_ref().filter(|_| reply.code() >= 400);
        if let Some(footer) = site.and_then(|site| site.footer(&reply)) {
            reply = Cow::Owned(reply.into_owned().with_footer(&footer));
        }
        reply.write(&mut self.output, self.policy.extensions.contains(Extensions::ENHANCEDSTATUSCODES));
        self.delay_owed |= self.errors >= self.settings.soft_error_limit;
    }

    fn drop_transaction(&mut self) {
        self.abandoned |= self.transaction().is_some();
        if !matches!(self.state, State::Closed(_)) {
            self.state = State::Idle;
        }
    }

    fn close(&mut self, ending: Ending) {
        self.drop_transaction();
        self.state = State::Closed(ending);
    }

    /// Bytes have come that the client should have held back until it was answered (RFC 2920 section 3.1). Says whether
    /// that ends the session.
    fn out_of_step(&mut self, after: &'static str) -> bool {
        if std::mem::replace(&mut self.pipelining_noticed, true) {
            return false;
        }
        let said = if after == "AUTH" { b"..." } else { before_secrets(self.input.pending()) };
        let said = said.iter().take(100).flat_map(|b| b.escape_ascii()).map(char::from);
        self.notices.push_back(Notice::ImproperPipelining { after, said: said.collect() });
        if self.settings.forbid_unauth_pipelining {
            self.say(&Fault::OutOfStep.reply(&self.settings.hostname));
            self.close(Ending::Dropped);
        }
        self.settings.forbid_unauth_pipelining
    }

    /// Where the program reads to.
    pub fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    /// What is to be written, by the program, which empties it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// How the client named itself.
    #[must_use]
    pub fn helo(&self) -> Option<&Helo> {
        self.helo.as_ref()
    }

    /// `SMTP` until the client has said EHLO, then `ESMTP`: the word that Postfix logs after `proto=`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.helo.as_ref().is_some_and(|helo| helo.extended) { "ESMTP" } else { "SMTP" }
    }

    /// The transaction that is open.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        match &self.state {
            State::Mail(transaction) | State::Chunks(transaction, _) | State::Content(transaction, _) => {
                Some(transaction)
            }
            _ => None,
        }
    }

    /// Whether content is streaming in, so that a large buffer pays.
    #[must_use]
    pub const fn receives_content(&self) -> bool {
        matches!(self.state, State::Content(..))
    }

    /// Whether a command line has begun to arrive.
    #[must_use]
    pub fn is_within_line(&self) -> bool {
        !self.input.pending().is_empty()
    }

    /// Where the dialogue is, in the words of Postfix's log: `CONNECT`, a verb, `END-OF-MESSAGE`, or how much content came.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.state {
            State::Content(_, receiver) => format!("{} ({} bytes)", self.place, receiver.size()),
            _ => self.place.to_owned(),
        }
    }

    /// How often each verb came and succeeded.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What holds for this client.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How many commands failed since the last message was taken.
    #[must_use]
    pub const fn errors(&self) -> u32 {
        self.errors
    }
}

/// What may be logged of lines that have not been understood yet: up to AUTH, whose argument and next lines may be a password.
fn before_secrets(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let verb = line.trim_ascii_start().get(..4);
        if verb.is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH")) {
            let blanks = line.len() - line.trim_ascii_start().len();
            return &bytes[..end + blanks + 4];
        }
        end += line.len();
    }
    bytes
}

#[cfg(test)]
mod tests;
