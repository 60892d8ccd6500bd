//! The access language: `smtpd_client_restrictions` and its relatives.
//!
//! A list is read once, when the server starts, into rules; each rule is a row of the table in `verbs` with its
//! argument. At each stage of a session the lists that are due are evaluated from left to right until one rule decides;
//! `permit` ends its list only, a refusal ends them all.
//!
//! A verb of Postfix's that this server does not know yet is in the table, too, with the reason why: it has no effect, and
//! [`verify`] says so loudly, at each start and in `postroad check`. A word that is no verb, class or table is an error.

mod access;
mod action;
mod address;
mod certificate;
mod class;
mod client;
pub(crate) mod dns_list;
mod evaluate;
mod existence;
mod generic;
mod helo;
mod judge;
mod login;
mod mx_backup;
mod open_relay;
mod parse;
mod policy;
mod server_access;
mod verbs;
mod verification;

use std::collections::HashMap;
use std::sync::Arc;

use config::{Config, Diagnostic, Param, Severity, param};
use lookup::OpenError;
use mail::Address;
use smtp_proto::{Fault, Reply};

use crate::names::HostNames;
use crate::policy::Instance;
use crate::refusal;
use crate::report::Subject;
use class::Class;
use evaluate::{Decision, Evaluation};
use judge::Judge;
use parse::{List, Parser, Problem};

/// The lists, in the order in which a session comes to them.
const LISTS: [(&str, Param<Vec<String>>); 8] = [
    ("smtpd_client_restrictions", param::SMTPD_CLIENT_RESTRICTIONS),
    ("smtpd_helo_restrictions", param::SMTPD_HELO_RESTRICTIONS),
    ("smtpd_sender_restrictions", param::SMTPD_SENDER_RESTRICTIONS),
    ("smtpd_relay_restrictions", param::SMTPD_RELAY_RESTRICTIONS),
    ("smtpd_recipient_restrictions", param::SMTPD_RECIPIENT_RESTRICTIONS),
    ("smtpd_data_restrictions", param::SMTPD_DATA_RESTRICTIONS),
    ("smtpd_end_of_data_restrictions", param::SMTPD_END_OF_DATA_RESTRICTIONS),
    ("smtpd_etrn_restrictions", param::SMTPD_ETRN_RESTRICTIONS),
];

/// What is to become of a message beside being taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Into the hold queue.
    pub(crate) hold: bool,
    /// Taken, and thrown away.
    pub(crate) discard: bool,
    /// `transport:destination` of the last `FILTER`.
    pub(crate) filter: Option<String>,
    /// The last `REDIRECT`: who gets it instead.
    pub(crate) redirect: Option<Address>,
    /// The last `BCC`: who gets it besides.
    pub(crate) bcc: Option<Address>,
    /// Headers of `PREPEND`, in their order.
    pub(crate) prepend: Vec<String>,
}

impl Effects {
    /// These, and what came later.
    fn add(&mut self, later: Self) {
        self.hold |= later.hold;
        self.discard |= later.discard;
        self.filter = later.filter.or(self.filter.take());
        self.redirect = later.redirect.or(self.redirect.take());
        self.bcc = later.bcc.or(self.bcc.take());
        self.prepend.extend(later.prepend);
    }
}

/// With `smtpd_delay_reject = no`, what the early lists have put off until a recipient is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Postponed {
    client: Option<Reply>,
    helo: Option<Reply>,
    sender: Option<Reply>,
}

impl Postponed {
    fn last(&self) -> Option<&Reply> {
        self.sender.as_ref().or(self.helo.as_ref()).or(self.client.as_ref())
    }
}

/// The restrictions of a service.
pub(crate) struct Restrictions {
    client: List,
    helo: List,
    sender: List,
    relay: List,
    recipient: List,
    data: List,
    end_of_data: List,
    etrn: List,
    local_header_rewrite_clients: List,
    judge: Judge,
    order: Order,
}

/// When the lists are evaluated, and what is asked beside them.
struct Order {
    /// `smtpd_delay_reject`: not before RCPT, so that the log shows what was refused.
    delay_reject: bool,
    relay_before_recipient: bool,
    reject_unlisted_recipient: bool,
    reject_unlisted_sender: bool,
}

impl Restrictions {
    /// Reads the lists and opens their tables.
    pub(crate) fn new(config: &Config, names: &Arc<HostNames>) -> Result<Self, OpenError> {
        let mut parser = Parser::new(config);
        let unchecked = config.get(param::RECEIVE_OVERRIDE_OPTIONS);
        let mut list = |parameter: Param<Vec<String>>| parser.list(&config.get(parameter));
        let restrictions = Self {
            client: list(param::SMTPD_CLIENT_RESTRICTIONS),
            helo: list(param::SMTPD_HELO_RESTRICTIONS),
            sender: list(param::SMTPD_SENDER_RESTRICTIONS),
            relay: list(param::SMTPD_RELAY_RESTRICTIONS),
            recipient: list(param::SMTPD_RECIPIENT_RESTRICTIONS),
            data: list(param::SMTPD_DATA_RESTRICTIONS),
            end_of_data: list(param::SMTPD_END_OF_DATA_RESTRICTIONS),
            etrn: list(param::SMTPD_ETRN_RESTRICTIONS),
            local_header_rewrite_clients: list(param::LOCAL_HEADER_REWRITE_CLIENTS),
            judge: Judge::new(config, Arc::clone(names))?,
            order: Order {
                delay_reject: config.get(param::SMTPD_DELAY_REJECT),
                relay_before_recipient: config.get(param::SMTPD_RELAY_BEFORE_RECIPIENT_RESTRICTIONS),
                reject_unlisted_recipient: config.get(param::SMTPD_REJECT_UNLISTED_RECIPIENT)
                    && !unchecked.iter().any(|option| option == "no_unknown_recipient_checks"),
                reject_unlisted_sender: config.get(param::SMTPD_REJECT_UNLISTED_SENDER),
            },
        };
        Ok(restrictions)
    }

    /// A client has connected.
    pub(crate) fn connect(&self, subject: &Subject<'_>, postponed: &mut Postponed) -> Option<Reply> {
        self.unless_delayed((&self.client, Class::Client), subject, None, &mut postponed.client).1
    }

    /// A client has named itself.
    pub(crate) fn helo(&self, subject: &Subject<'_>, postponed: &mut Postponed) -> Option<Reply> {
        let before = postponed.client.as_ref();
        self.unless_delayed((&self.helo, Class::Helo), subject, before, &mut postponed.helo).1
    }

    /// A sender to whom nothing could be returned because no mail system would take the address.
    pub(crate) fn malformed_sender(&self, sender: &Address) -> Option<Reply> {
        if sender.is_null() {
            return None;
        }
        match self.judge.is_malformed(sender) {
            Ok(true) => Some(Fault::SenderSyntax.reply("")),
            Ok(false) => None,
            Err(error) => Some(refusal::from_lookup(&error, sender.as_str())),
        }
    }

    /// A recipient that programs could take for an option, which no list is asked about.
    pub(crate) fn malformed_recipient(&self, recipient: &Address) -> Option<Reply> {
        let is_suspect = recipient.local_part().starts_with('-');
        match is_suspect.then(|| self.judge.is_malformed(recipient))? {
            Ok(true) => Some(Fault::RecipientSyntax.reply("")),
            Ok(false) => None,
            Err(error) => Some(refusal::from_lookup(&error, recipient.as_str())),
        }
    }

    /// A client has named a sender.
    pub(crate) fn mail(
        &self,
        subject: &Subject<'_>,
        effects: &mut Effects,
        postponed: &mut Postponed,
    ) -> Option<Reply> {
        let before = postponed.helo.as_ref().or(postponed.client.as_ref());
        let list = (&self.sender, Class::Sender);
        let (found, refused) = self.unless_delayed(list, subject, before, &mut postponed.sender);
        effects.add(found);
        if refused.is_some() || self.order.delay_reject {
            return refused;
        }
        self.unlisted_sender(&mut Evaluation::new(&self.judge, subject))
    }

    /// Evaluates a list at its own stage; what it puts off is left for RCPT.
    fn unless_delayed(
        &self,
        (list, class): (&List, Class),
        subject: &Subject<'_>,
        before: Option<&Reply>,
        postponed: &mut Option<Reply>,
    ) -> (Effects, Option<Reply>) {
        if self.order.delay_reject {
            return (Effects::default(), None);
        }
        let mut evaluation = Evaluation::new(&self.judge, subject).after(before);
        let refused = evaluation.list(list, class);
        *postponed = evaluation.postponed();
        (evaluation.effects, refused)
    }

    /// `smtpd_reject_unlisted_sender`: what follows the list of senders, whatever that permits.
    fn unlisted_sender(&self, evaluation: &mut Evaluation<'_>) -> Option<Reply> {
        let asks = self.order.reject_unlisted_sender && !evaluation.effects.discard;
        asks.then(|| evaluation.verb("reject_unlisted_sender", Class::Sender)).flatten()
    }

    /// A client has named a recipient.
    pub(crate) fn rcpt(
        &self,
        subject: &Subject<'_>,
        effects: &mut Effects,
        postponed: &Postponed,
    ) -> Option<Reply> {
        // Mail to the postmaster of this host is taken whoever sends it: RFC 5321 section 4.5.1.
        if subject.recipient.is_some_and(|recipient| recipient.as_str().eq_ignore_ascii_case("postmaster")) {
            return None;
        }
        // What is thrown away goes nowhere, whoever it is for.
        if effects.discard {
            return None;
        }
        let (relay, recipient) = ((&self.relay, Class::Recipient), (&self.recipient, Class::Recipient));
        let (first, second) =
            if self.order.relay_before_recipient { (relay, recipient) } else { (recipient, relay) };
        let early = [(&self.client, Class::Client), (&self.helo, Class::Helo), (&self.sender, Class::Sender)];
        let early = early.into_iter().filter(|_| self.order.delay_reject);
        let mut evaluation = Evaluation::new(&self.judge, subject).after(postponed.last());
        for (list, class) in early.chain([first, second]) {
            if class == Class::Helo && subject.helo.is_none() {
                continue;
            }
            let refused = evaluation.list(list, class);
            let unlisted = || self.unlisted_sender(&mut evaluation);
            if let Some(reply) = refused.or_else(|| (class == Class::Sender).then(unlisted).flatten()) {
                return Some(reply);
            }
            // What is thrown away needs no further judgement.
            if evaluation.effects.discard {
                effects.add(evaluation.effects);
                return None;
            }
        }
        let asks = self.order.reject_unlisted_recipient && !evaluation.effects.discard;
        let reply = evaluation.conclude(asks.then_some("reject_unlisted_recipient"), Class::Recipient);
        effects.add(evaluation.effects);
        reply
    }

    /// A client asks for the mail that waits for a domain.
    pub(crate) fn etrn(&self, subject: &Subject<'_>, postponed: &Postponed) -> Option<Reply> {
        let early = [(&self.client, Class::Client), (&self.helo, Class::Helo)];
        let early = early.into_iter().filter(|_| self.order.delay_reject);
        let mut evaluation = Evaluation::new(&self.judge, subject).after(postponed.last());
        for (list, class) in early.chain([(&self.etrn, Class::Etrn)]) {
            if class == Class::Helo && subject.helo.is_none() {
                continue;
            }
            if let Some(reply) = evaluation.list(list, class) {
                return Some(reply);
            }
        }
        evaluation.postponed()
    }

    /// A client wants to send content.
    pub(crate) fn data(&self, subject: &Subject<'_>, effects: &mut Effects) -> Option<Reply> {
        self.content(&self.data, Class::Data, subject, effects)
    }

    /// A client has sent all content.
    pub(crate) fn end_of_data(&self, subject: &Subject<'_>, effects: &mut Effects) -> Option<Reply> {
        self.content(&self.end_of_data, Class::EndOfData, subject, effects)
    }

    fn content(
        &self,
        list: &List,
        class: Class,
        subject: &Subject<'_>,
        effects: &mut Effects,
    ) -> Option<Reply> {
        let mut evaluation = Evaluation::new(&self.judge, subject);
        let reply = evaluation.list(list, class).or_else(|| evaluation.postponed());
        effects.add(evaluation.effects);
        reply
    }

    /// Whether headers of this client's mail are completed like those of local mail.
    pub(crate) fn rewrites_headers(&self, subject: &Subject<'_>) -> bool {
        let mut evaluation = Evaluation::new(&self.judge, subject);
        matches!(evaluation.decide(&self.local_header_rewrite_clients, Class::Client), Ok(Decision::Permit))
    }

    /// A transaction is over: policy services may be asked about another one.
    pub(crate) fn message_done(&self, instance: Instance) {
        self.judge.policy.release(instance);
    }

    /// The answer to VRFY: recipients are known to whom mail is taken.
    pub(crate) fn verify_address(&self, subject: &Subject<'_>, postponed: &Postponed) -> Option<Reply> {
        self.rcpt(subject, &mut Effects::default(), postponed)
    }
}

/// What is wrong with the restrictions of a configuration: for `postroad check` and for the log at each start.
///
/// Errors are lists that cannot work; warnings are verbs that have no effect yet, and a host that relays for everyone.
#[must_use]
pub fn verify(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let file = config.directory().join("main.cf");
    let mut report = |severity, text| found.push(Diagnostic { severity, file: file.clone(), line: 0, text });
    let mut lists = HashMap::new();
    for (name, parameter) in LISTS {
        let mut parser = Parser::new(config);
        lists.insert(name, parser.list(&config.get(parameter)));
        let mut told = HashMap::new();
        for problem in parser.problems {
            if told.insert(problem.to_string(), ()).is_none() {
                let severity = match problem {
                    Problem::NotImplemented { .. } => Severity::Warning,
                    Problem::Mistake(_) => Severity::Error,
                };
                report(severity, format!("{name}: {problem}"));
            }
        }
    }
    let early = ["smtpd_client_restrictions", "smtpd_sender_restrictions"].map(|name| &lists[name]);
    let late = ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"].map(|name| (name, &lists[name]));
    if !late.iter().any(|(_, list)| list.guards_relaying()) {
        let text = "smtpd_relay_restrictions or smtpd_recipient_restrictions must contain at least one of: \
                    reject_unauth_destination, defer_unauth_destination, reject, defer, defer_if_permit; \
                    without it anybody could send mail anywhere through this host";
        report(Severity::Error, text.to_owned());
    } else if let Some(text) = open_relay::way_of_strangers(config, &early, &late) {
        report(Severity::Warning, text);
    }
    found
}

/// A server that was started on a configuration that [`verify`] calls wrong refuses rather than lets in.
pub(crate) fn misconfigured() -> Reply {
    refusal::server_configuration()
}

#[cfg(test)]
mod tests;
