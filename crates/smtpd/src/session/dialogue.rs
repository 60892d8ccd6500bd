//! What is known of the client, and the answers to what it asks. A handler gives a reply, or none for the usual one.

use ipc::anvil::Offence;
use ipc::log;
use mail::{Address, Dsn};
use smtp_proto::path::{self, PathRules};
use smtp_proto::server::{Helo, Notice};
use smtp_proto::{Reply, Verb};

use super::transaction::{BARE_NEWLINE, MailState};
use super::xforward::Forwarded;
use crate::auth::Exchange;
use crate::client::Client;
use crate::limits::Happening;
use crate::report::{self, Subject};
use crate::restrictions::Postponed;
use crate::server::Server;

/// One client's side of the server.
pub(super) struct Dialogue<'a> {
    pub(super) server: &'a Server,
    pub(super) client: Client,
    /// EHLO keywords that are kept from this client, for the log.
    pub(super) discarded: String,
    pub(super) helo: Option<Helo>,
    pub(super) mail: MailState,
    pub(super) out_of_step: bool,
    pub(super) postponed: Postponed,
    /// AUTH that is under way.
    pub(super) exchange: Option<Exchange>,
    /// Whose message comes next, as XFORWARD has it.
    pub(super) forwarded: Option<Forwarded>,
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(server: &'a Server, client: Client) -> Self {
        Self {
            server,
            client,
            discarded: String::new(),
            helo: None,
            mail: MailState::default(),
            out_of_step: false,
            postponed: Postponed::default(),
            exchange: None,
            forwarded: None,
        }
    }

    pub(super) fn subject_at<'s>(&'s self, place: &'s str) -> Subject<'s> {
        Subject {
            queue_id: self.mail.queue_id,
            place,
            client: &self.client,
            helo: self.helo.as_ref().map(|helo| helo.name.as_str()),
            sender: self.mail.sender.as_ref(),
            recipient: None,
            recipients: self.mail.recipients,
            protocol: self.protocol(),
            out_of_step: self.out_of_step,
            size: self.mail.size,
            sasl_sender: &self.mail.sasl_sender,
            etrn_domain: None,
            instance: self.mail.instance,
        }
    }

    pub(super) fn protocol(&self) -> &'static str {
        if self.helo.as_ref().is_some_and(|helo| helo.extended) { "ESMTP" } else { "SMTP" }
    }

    pub(super) fn helo(&mut self, helo: &Helo) -> Option<Reply> {
        let before = self.helo.replace(helo.clone());
        let place = if helo.extended { "EHLO" } else { "HELO" };
        let subject = self.subject_at(place);
        let mut postponed = self.postponed.clone();
        let refused = self.server.restrictions.helo(&subject, &mut postponed);
        if let Some(reply) = &refused {
            self.log_refusal(&subject, reply);
            self.helo = before;
        } else {
            self.postponed = postponed;
            self.forget_transaction();
            if helo.extended && !self.discarded.is_empty() {
                log::info!("discarding EHLO keywords: {}", self.discarded);
            }
        }
        refused
    }

    pub(super) fn verify(&self, address: &Address) -> Option<Reply> {
        let subject = Subject { recipient: Some(address), ..self.subject_at("VRFY") };
        let refused = self.server.restrictions.verify_address(&subject, &self.postponed);
        if let Some(reply) = &refused {
            self.log_refusal(&subject, reply);
        }
        refused
    }

    /// A command that never became a question. Of those, Postfix logs wrong addresses, and limits that were met.
    pub(super) fn refused(&mut self, verb: Verb, arguments: &str, reply: &Reply) {
        if verb == Verb::Auth {
            return self.auth_aborted(reply);
        }
        let said = arguments.split_once(':').map_or("", |(_, rest)| path::split(rest.trim_start()).0);
        match (verb, reply.code()) {
            (Verb::Mail | Verb::Rcpt, 501) if reply.dsn().is_some_and(is_about_address) => {
                log::warning!(
                    "Illegal address syntax from {} in {} command: {said}",
                    self.client,
                    verb.name()
                );
            }
            (Verb::Mail, 552) => {
                let sender = path::parse(said, PathRules { allow_null: true, ..PathRules::default() }).ok();
                let subject = Subject { sender: sender.as_ref(), ..self.subject_at(verb.name()) };
                self.log_refusal(&subject, reply);
            }
            (Verb::Rcpt, 452) => {
                let recipient = path::parse(said, PathRules::default()).ok();
                let subject = Subject { recipient: recipient.as_ref(), ..self.subject_at(verb.name()) };
                self.log_refusal(&subject, reply);
            }
            (Verb::Bdat, _) => self.log_refusal(&self.subject_at(verb.name()), reply),
            _ => {}
        }
    }

    /// What the client is told is what the log shows.
    pub(super) fn log_refusal(&self, subject: &Subject<'_>, reply: &Reply) {
        if self.server.settings.soft_bounce {
            report::acted("reject", subject, &reply.clone().softened());
        } else {
            report::acted("reject", subject, reply);
        }
    }

    /// Counts for the rates of the client's network; a client that may name others by XCLIENT is not counted.
    pub(super) fn limit(&self, happening: Happening) -> Option<Reply> {
        let trusted = self.server.may_name_clients(&self.client);
        self.server.limits.happened(&self.client, happening, trusted)
    }

    /// A client that speaks another language than SMTP is sent away.
    pub(super) fn unknown(&self, word: &str, line: &str) -> Option<Reply> {
        let forbidden = match self.server.forbidden_commands.matches(word) {
            Ok(forbidden) => forbidden,
            Err(error) => {
                log::warning!("{error}");
                false
            }
        };
        if !forbidden && !smtp_proto::command::is_header(word) {
            return None;
        }
        self.server.limits.offended(&self.client, Offence::ProtocolError);
        let said: String = line.chars().take(100).collect();
        log::warning!("non-SMTP command from {}: {said}", self.client);
        Some(Reply::new(221, Dsn::new(2, 7, 0), "Error: I can break rules, too. Goodbye."))
    }

    pub(super) fn notice(&mut self, notice: &Notice, rejects_bare_newline: bool) {
        match notice {
            Notice::ImproperPipelining { after, said } => {
                log::info!("improper command pipelining after {after} from {}: {said}", self.client);
                self.out_of_step = true;
                self.server.limits.offended(&self.client, Offence::ProtocolError);
            }
            Notice::BareNewline { after } => {
                let action = if rejects_bare_newline { "reject" } else { "notify" };
                report::acted(action, &self.subject_at(after), &BARE_NEWLINE);
            }
        }
    }
}

/// X.1.3 and X.1.7 of RFC 3463: a bad address of a recipient or a sender.
fn is_about_address(dsn: Dsn) -> bool {
    let dsn = dsn.with_class(5);
    dsn == Dsn::new(5, 1, 3) || dsn == Dsn::new(5, 1, 7)
}
