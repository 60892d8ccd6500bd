//! Header and body checks: tables of patterns over header fields and body lines, and the actions they name.

use config::{Config, param};
use ipc::cleanup::Refusal;
use ipc::log;
use lookup::{LookupError, Maps};
use mail::fields::{Kind, Role};
use mail::mime::Limits;
use mail::{Address, Dsn, Envelope, Origin, QueueId};

use crate::rules::maps;

/// The tables.
pub(crate) struct Checks {
    header: Maps,
    mime_header: Maps,
    nested_header: Maps,
    body: Maps,
    pub(crate) body_limit: usize,
    /// How much of the structure of a message is followed.
    pub(crate) limits: Limits,
    /// Headers of attachments are body.
    without_mime: bool,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Header,
    MimeHeader,
    NestedHeader,
    Body,
}

impl Part {
    /// The part that a header field belongs to.
    pub(crate) const fn of(known: Option<(Kind, Role)>) -> Self {
        if matches!(known, Some((Kind::Mime, _))) { Self::MimeHeader } else { Self::Header }
    }
}

/// What a table wants to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Pass,
    /// No further checks of this message.
    PassAll,
    Drop,
    Replace(String),
    Prepend(String),
    Hold,
    Discard,
    /// `transport:nexthop`
    Filter(String),
    Redirect(Address),
    Bcc(Address),
    Reject(Refusal),
}

/// The message that is looked at, for the log.
pub(crate) struct Subject<'a> {
    pub(crate) id: QueueId,
    pub(crate) envelope: &'a Envelope,
}

impl Checks {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let whole = |parameter| usize::try_from(config.get::<u64>(parameter)).unwrap_or(usize::MAX);
        Ok(Self {
            header: maps(config, param::HEADER_CHECKS)?,
            mime_header: maps(config, param::MIME_HEADER_CHECKS)?,
            nested_header: maps(config, param::NESTED_HEADER_CHECKS)?,
            body: maps(config, param::BODY_CHECKS)?,
            body_limit: whole(param::BODY_CHECKS_SIZE_LIMIT),
            limits: Limits {
                boundary_length: whole(param::MIME_BOUNDARY_LENGTH_LIMIT),
                depth: whole(param::MIME_NESTING_LIMIT),
            },
            without_mime: config.get(param::DISABLE_MIME_INPUT_PROCESSING),
        })
    }

    /// Whether there is nothing to look at the body for.
    pub(crate) fn ignore_body(&self) -> bool {
        let no_headers = self.mime_header.is_empty() && self.nested_header.is_empty();
        self.body.is_empty() && (self.without_mime || no_headers)
    }

    /// Whether it matters how a body is built.
    pub(crate) fn follow_structure(&self) -> bool {
        !self.without_mime && !self.ignore_body()
    }

    /// What is to be done about a field or line, which is logged where its action says so.
    pub(crate) fn action(
        &self,
        part: Part,
        text: &[u8],
        subject: &Subject<'_>,
    ) -> Result<Action, LookupError> {
        let (maps, parameter) = match part {
            Part::Header => (&self.header, param::HEADER_CHECKS.name()),
            Part::MimeHeader => (&self.mime_header, param::MIME_HEADER_CHECKS.name()),
            Part::NestedHeader => (&self.nested_header, param::NESTED_HEADER_CHECKS.name()),
            Part::Body => (&self.body, param::BODY_CHECKS.name()),
        };
        if maps.is_empty() {
            return Ok(Action::Pass);
        }
        let text = String::from_utf8_lossy(text.trim_ascii_end());
        let Some(value) = maps.get(&text)? else { return Ok(Action::Pass) };
        Ok(Match { part, parameter, text: &text, subject }.action(&value))
    }
}

/// A text that a table knows.
struct Match<'a> {
    part: Part,
    parameter: &'static str,
    text: &'a str,
    subject: &'a Subject<'a>,
}

fn names_a_transport(filter: &str) -> bool {
    filter.split_once(':').is_some_and(|(transport, _)| !transport.is_empty())
}

impl Match<'_> {
    fn action(&self, value: &str) -> Action {
        let (word, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
        let rest = rest.trim();
        let logged = |word, action| {
            self.log(word, rest);
            action
        };
        match word.to_ascii_uppercase().as_str() {
            "DUNNO" | "OK" => Action::Pass,
            "IGNORE" => Action::Drop,
            "STRIP" => logged("strip", Action::Drop),
            "WARN" => logged("warning", Action::Pass),
            "INFO" => logged("info", Action::Pass),
            "PASS" => logged("pass", Action::PassAll),
            "HOLD" => logged("hold", Action::Hold),
            "DISCARD" => logged("discard", Action::Discard),
            "REJECT" => self.reject(rest),
            "PREPEND" if self.begins_well(rest) => logged("prepend", Action::Prepend(rest.to_owned())),
            "REPLACE" if self.begins_well(rest) => logged("replace", Action::Replace(rest.to_owned())),
            "REDIRECT" => self.addressed("redirect", rest, Action::Redirect),
            "BCC" => self.addressed("bcc", rest, Action::Bcc),
            "PREPEND" | "REPLACE" => {
                self.complain(value, "its text must begin with a header name and a colon");
                Action::Pass
            }
            "FILTER" if names_a_transport(rest) => logged("filter", Action::Filter(rest.to_owned())),
            "FILTER" => {
                self.complain(value, "it needs transport:destination");
                Action::Pass
            }
            _ => {
                self.complain(value, "there is no such action");
                Action::Pass
            }
        }
    }

    /// New text among header fields must be one.
    fn begins_well(&self, text: &str) -> bool {
        let in_body = self.part == Part::Body;
        in_body || mail::header::name(text.as_bytes()).is_some()
    }

    /// The text may begin with an enhanced status code.
    fn reject(&self, rest: &str) -> Action {
        let (first, text) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let (dsn, text) = match first.parse::<Dsn>() {
            Ok(dsn) if dsn.class() != 2 => (dsn, text.trim()),
            _ => (Dsn::new(5, 7, 1), rest),
        };
        let text = if text.is_empty() { "message content rejected" } else { text };
        self.log("reject", &format!("{dsn} {text}"));
        Action::Reject(Refusal::Rejected(dsn, text.to_owned()))
    }

    fn addressed(&self, word: &str, rest: &str, action: fn(Address) -> Action) -> Action {
        let address = mail::header_address::parse_first(rest).ok().flatten();
        match address.filter(|address| address.domain().is_some()) {
            Some(address) => {
                self.log(word, rest);
                action(address)
            }
            None => {
                self.complain(rest, "it needs an address with a domain");
                Action::Pass
            }
        }
    }

    fn complain(&self, value: &str, why: &str) {
        log::warning!("{}: {}: action \"{value}\": {why}", self.subject.id, self.parameter);
    }

    /// The line that log tools read.
    fn log(&self, word: &str, text: &str) {
        /// How much of a field or line is shown.
        const SHOWN: usize = 200;
        let envelope = self.subject.envelope;
        let part = if self.part == Part::Body { "body" } else { "header" };
        let shown = self.text.get(..self.text.floor_char_boundary(SHOWN)).unwrap_or_default();
        let origin = match envelope.origin {
            Origin::Smtp { .. } => format!("{}[{}]", envelope.client.name, envelope.client.address),
            Origin::Local { .. } => "local".to_owned(),
            Origin::Internal => "internal".to_owned(),
        };
        let mut line = format!("{word}: {part} {shown} from {origin}; from=<{}>", envelope.sender.to_path());
        if let Some(recipient) = envelope.recipients.first() {
            line.push_str(&format!(" to=<{}>", recipient.address.to_path()));
        }
        for (name, value) in [("proto", &envelope.client.protocol), ("helo", &envelope.client.helo)] {
            if !value.is_empty() {
                let (open, close) = if name == "helo" { ("<", ">") } else { ("", "") };
                line.push_str(&format!(" {name}={open}{value}{close}"));
            }
        }
        let separator = if text.is_empty() { "" } else { ": " };
        log::info!("{}: {line}{separator}{text}", self.subject.id);
    }
}
