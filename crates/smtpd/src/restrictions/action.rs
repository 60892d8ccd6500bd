//! The actions of access(5): what entries of tables, and answers of policy services, say is to be done.

use ipc::log;
use lookup::LookupError;
use mail::{Address, Dsn};
use smtp_proto::Reply;

use super::class::{Class, refuse};
use super::evaluate::{Decision, Evaluation};
use super::parse::Parser;
use crate::report;

/// What is done with a message.
const ABOUT_MESSAGES: [&str; 6] = ["HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC", "PREPEND"];

/// Where there is none: the lists of clients and HELO without `smtpd_delay_reject`, and ETRN.
const PLACES_WITHOUT_MESSAGE: [&str; 4] = ["CONNECT", "HELO", "EHLO", "ETRN"];

/// An action, and where it comes from.
pub(super) struct Entry<'a> {
    /// The whole text.
    pub(super) value: &'a str,
    /// The table or policy service, for the log.
    pub(super) source: &'a str,
    pub(super) class: Class,
}

impl Entry<'_> {
    /// Does what the text says.
    pub(super) fn act(&self, e: &mut Evaluation<'_>) -> Result<Decision, LookupError> {
        let value = self.value.trim();
        let (word, text) =
            value.split_once(char::is_whitespace).map_or((value, ""), |(word, text)| (word, text.trim()));
        let codes = &e.judge.codes;
        let action = word.to_ascii_uppercase();
        if ABOUT_MESSAGES.contains(&action.as_str()) && PLACES_WITHOUT_MESSAGE.contains(&e.subject.place) {
            return Ok(
                self.unusable(&format!("is about a message, and there is none at {}", e.subject.place))
            );
        }
        Ok(match action.as_str() {
            "OK" | "RELAY" => self.permit(e, word),
            "DUNNO" => Decision::Dunno,
            "REJECT" => Decision::Refuse(self.refusal(e, codes.access_reject, text, "Access denied")),
            "DEFER" => Decision::Refuse(self.refusal(e, codes.access_defer, text, "Access denied")),
            "DEFER_IF_PERMIT" => {
                Decision::DeferIfPermit(self.refusal(e, codes.access_defer, text, "Service unavailable"))
            }
            "DEFER_IF_REJECT" => {
                Decision::DeferIfReject(self.refusal(e, codes.access_defer, text, "Service unavailable"))
            }
            "WARN" | "INFO" => {
                report::acted(&word.to_ascii_lowercase(), e.subject, &text);
                Decision::Dunno
            }
            "HOLD" => {
                e.effects.hold = true;
                self.note(e, "hold", text, "triggers HOLD action");
                Decision::Dunno
            }
            "DISCARD" => {
                e.effects.discard = true;
                self.note(e, "discard", text, "triggers DISCARD action");
                self.permit(e, word)
            }
            "FILTER" => self.filter(e, text),
            "REDIRECT" | "BCC" => self.copy(e, &action, text),
            "PREPEND" => self.prepend(e, text),
            _ if is_refusing_code(word) && !text.is_empty() => {
                let code = word.parse().unwrap_or(codes.access_reject);
                Decision::Refuse(self.refusal(e, code, text, "Access denied"))
            }
            // The form that address-based authorization schemes make, such as POP before SMTP.
            _ if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => self.permit(e, value),
            _ => return self.restrictions(e, value),
        })
    }

    fn permit(&self, e: &Evaluation<'_>, word: &str) -> Decision {
        e.permitted(word, self.class, &format!("from {}", self.source));
        Decision::Permit
    }

    /// `<name>: Sender address rejected: text`, with the enhanced code that the text may begin with.
    fn refusal(&self, e: &Evaluation<'_>, code: u16, text: &str, generic: &str) -> Reply {
        let class = self.class;
        if text.is_empty() {
            return refuse(e.subject, class, code, (7, 1), generic);
        }
        let status = if code < 500 { 4 } else { 5 };
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (dsn, text) = match first.parse::<Dsn>() {
            Ok(dsn) => (class.fitting(dsn.with_class(status)), rest.trim_start()),
            Err(_) => (Dsn::new(status, 7, 1), text),
        };
        let text = if text.is_empty() { generic } else { text };
        let name = class.name_in(e.subject);
        Reply::new(code, dsn, format!("<{name}>: {} rejected: {text}", class.words()))
    }

    fn note(&self, e: &Evaluation<'_>, action: &str, text: &str, generic: &str) {
        let text = if text.is_empty() { generic } else { text };
        let name = self.class.name_in(e.subject);
        report::acted(action, e.subject, &format_args!("<{name}>: {} {text}", self.class.words()));
    }

    /// An entry that cannot be obeyed does nothing but this, as in Postfix.
    fn unusable(&self, what: &str) -> Decision {
        log::warning!("{}: the entry \"{}\" {what}; it has no effect", self.source, self.value);
        Decision::Dunno
    }

    fn filter(&self, e: &mut Evaluation<'_>, text: &str) -> Decision {
        let Some((transport, _)) = text.split_once(':') else {
            return self.unusable("needs transport:destination after FILTER");
        };
        if transport.is_empty() {
            return self.unusable("needs a transport before the colon");
        }
        self.note(e, "filter", "", &format!("triggers FILTER {text}"));
        e.effects.filter = Some(text.to_owned());
        Decision::Dunno
    }

    fn copy(&self, e: &mut Evaluation<'_>, word: &str, text: &str) -> Decision {
        let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
        let address = Address::new(bare).ok().filter(|address| address.domain().is_some());
        let Some(address) = address else {
            return self.unusable("needs an address user@domain");
        };
        self.note(e, &word.to_ascii_lowercase(), "", &format!("triggers {word} {text}"));
        match word {
            "BCC" => e.effects.bcc = Some(address),
            _ => e.effects.redirect = Some(address),
        }
        Decision::Dunno
    }

    fn prepend(&self, e: &mut Evaluation<'_>, text: &str) -> Decision {
        let name = text.split_once(':').map(|(name, _)| name);
        if self.class == Class::EndOfData {
            return self.unusable("comes too late to PREPEND a header: the content is complete");
        }
        if name.is_none_or(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic())) {
            return self.unusable("needs a header \"name: text\" after PREPEND");
        }
        e.effects.prepend.push(text.to_owned());
        Decision::Dunno
    }

    /// An entry that names restrictions.
    fn restrictions(&self, e: &mut Evaluation<'_>, value: &str) -> Result<Decision, LookupError> {
        let list = Parser::names(&e.judge.config, value);
        if list.has_unknown() {
            log::warning!(
                "{}: entry \"{value}\" is no action and names no restriction; the request is deferred",
                self.source
            );
        }
        e.nested(&list, self.class)
    }
}

/// `4NN` or `5NN`.
fn is_refusing_code(word: &str) -> bool {
    word.len() == 3 && word.starts_with(['4', '5']) && word.bytes().all(|b| b.is_ascii_digit())
}
