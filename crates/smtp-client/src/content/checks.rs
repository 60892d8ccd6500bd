//! `smtp_header_checks` and its relatives: the actions of header_checks(5) that make sense on the way out.

use config::{Param, param};
use ipc::log;
use lookup::{LookupError, Maps};
use mail::QueueId;
use mail::mime::Limits;

use crate::settings::Own;

/// The tables.
pub(crate) struct Checks {
    header: Named,
    mime_header: Named,
    nested_header: Named,
    body: Named,
    body_limit: usize,
    limits: Limits,
}

/// Tables and the parameter that lists them.
struct Named {
    parameter: String,
    maps: Maps,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Header,
    MimeHeader,
    NestedHeader,
    Body,
}

/// What a table wants to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pass,
    Drop,
    Replace(String),
    Prepend(String),
}

impl Checks {
    pub(crate) fn new(own: &Own<'_>) -> Result<Self, String> {
        let whole = |parameter| usize::try_from(own.config.get::<u64>(parameter)).unwrap_or(usize::MAX);
        let named = |parameter: Param<Vec<String>>| {
            let name = own.name(parameter);
            let maps = Maps::open(&own.get(parameter)).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>(Named { parameter: name, maps })
        };
        Ok(Self {
            header: named(param::SMTP_HEADER_CHECKS)?,
            mime_header: named(param::SMTP_MIME_HEADER_CHECKS)?,
            nested_header: named(param::SMTP_NESTED_HEADER_CHECKS)?,
            body: named(param::SMTP_BODY_CHECKS)?,
            body_limit: whole(param::BODY_CHECKS_SIZE_LIMIT),
            limits: Limits {
                boundary_length: whole(param::MIME_BOUNDARY_LENGTH_LIMIT),
                depth: whole(param::MIME_NESTING_LIMIT),
            },
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        [&self.header, &self.mime_header, &self.nested_header, &self.body]
            .into_iter()
            .all(|named| named.maps.is_empty())
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) const fn body_limit(&self) -> usize {
        self.body_limit
    }

    /// What is to be done about a field or line, and whether nothing else of the message is to be looked at.
    pub(super) fn action(&self, part: Part, text: &[u8], id: QueueId) -> Result<(Action, bool), LookupError> {
        let named = match part {
            Part::Header => &self.header,
            Part::MimeHeader => &self.mime_header,
            Part::NestedHeader => &self.nested_header,
            Part::Body => &self.body,
        };
        if named.maps.is_empty() {
            return Ok((Action::Pass, false));
        }
        let text = String::from_utf8_lossy(text.trim_ascii_end());
        let Some(value) = named.maps.get(&text)? else { return Ok((Action::Pass, false)) };
        Ok(Match { part, named, text: &text, id }.action(&value))
    }
}

/// A text that a table knows.
struct Match<'a> {
    part: Part,
    named: &'a Named,
    text: &'a str,
    id: QueueId,
}

impl Match<'_> {
    fn action(&self, value: &str) -> (Action, bool) {
        let (word, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
        let rest = rest.trim();
        let word = word.to_ascii_uppercase();
        let in_body = self.part == Part::Body;
        let fits = !rest.is_empty() && (in_body || mail::header::name(rest.as_bytes()).is_some());
        let action = match word.as_str() {
            "DUNNO" | "OK" => return (Action::Pass, false),
            "IGNORE" => return (Action::Drop, false),
            "STRIP" => Action::Drop,
            "WARN" | "INFO" | "PASS" => Action::Pass,
            "PREPEND" if fits => Action::Prepend(rest.to_owned()),
            "REPLACE" if fits => Action::Replace(rest.to_owned()),
            "PREPEND" | "REPLACE" => return self.complain(value, "its text must be a header field"),
            "BCC" | "DISCARD" | "FILTER" | "HOLD" | "REDIRECT" | "REJECT" => {
                return self.complain(value, "a message that leaves cannot be treated like this any more");
            }
            _ => return self.complain(value, "there is no such action"),
        };
        let shown = if word == "WARN" { "warning".to_owned() } else { word.to_ascii_lowercase() };
        self.log(&shown, rest);
        (action, word == "PASS")
    }

    fn complain(&self, value: &str, why: &str) -> (Action, bool) {
        log::warning!("{}: {}: action \"{value}\": {why}", self.id, self.named.parameter);
        (Action::Pass, false)
    }

    fn log(&self, word: &str, text: &str) {
        /// How much of a field or line is shown.
        const SHOWN: usize = 60;
        let part = if self.part == Part::Body { "body" } else { "header" };
        let shown = self.text.get(..self.text.floor_char_boundary(SHOWN)).unwrap_or_default();
        let separator = if text.is_empty() { "" } else { ": " };
        log::info!("{}: {word}: {part} {shown}{separator}{text}", self.id);
    }
}
