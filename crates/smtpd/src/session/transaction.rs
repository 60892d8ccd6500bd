//! A message on its way in: MAIL, RCPT, the content, and its end.

use std::fmt::Write as _;

use ipc::anvil::Offence;
use ipc::log;
use mail::{Address, Client as MailClient, Dsn, QueueId};
use smtp_proto::parameter::{Mail, Rcpt};
use smtp_proto::server::Transaction;
use smtp_proto::{Fault, Reply};

use super::dialogue::Dialogue;
use super::xforward::Forwarded;
use crate::limits::Happening;
use crate::policy::{Instance, next_instance};
use crate::refusal;
use crate::report::{self, Subject};
use crate::restrictions::Effects;
use crate::transfer::{Source, Transfer};

/// What the log says of a line without carriage return, and the end of the reply to it.
pub(super) const BARE_NEWLINE: &str = "bare <LF> received";

/// What is known of the transaction.
pub(super) struct MailState {
    /// Distinguishes this transaction from others, for policy services.
    pub(super) instance: Instance,
    pub(super) sender: Option<Address>,
    /// How many recipients were accepted, and the first of them.
    pub(super) recipients: usize,
    first_recipient: Option<Address>,
    effects: Effects,
    pub(super) queue_id: Option<QueueId>,
    transfer: Option<Transfer>,
    /// What SIZE of MAIL announced, then what came.
    pub(super) size: u64,
    pub(super) sasl_sender: String,
}

impl Default for MailState {
    fn default() -> Self {
        Self {
            instance: next_instance(),
            sender: None,
            recipients: 0,
            first_recipient: None,
            effects: Effects::default(),
            queue_id: None,
            transfer: None,
            size: 0,
            sasl_sender: String::new(),
        }
    }
}

impl Dialogue<'_> {
    pub(super) fn mail(&mut self, mail: &Mail) -> Option<Reply> {
        let forwarded = self.forwarded.take();
        self.forget_transaction();
        self.forwarded = forwarded;
        if let Some(reply) = self.too_much_mail() {
            return Some(reply);
        }
        self.mail.sender = Some(mail.sender.clone());
        self.mail.size = mail.size.unwrap_or(0);
        self.mail.sasl_sender = mail.auth.clone().unwrap_or_default();
        let subject = self.subject_at("MAIL");
        let restrictions = &self.server.restrictions;
        if let Some(reply) = restrictions.malformed_sender(&mail.sender) {
            log::warning!("Illegal address syntax from {} in MAIL command: <{}>", self.client, mail.sender);
            self.mail.sender = None;
            return Some(reply);
        }
        let mut postponed = self.postponed.clone();
        let mut effects = Effects::default();
        let mut refused = restrictions.mail(&subject, &mut effects, &mut postponed);
        if refused.is_none() && !self.server.space.suffices() {
            refused = Some(refusal::no_space());
        }
        if let Some(reply) = &refused {
            self.log_refusal(&subject, reply);
            self.mail.sender = None;
        } else {
            self.postponed = postponed;
            self.mail.effects = effects;
        }
        refused
    }

    pub(super) fn rcpt(&mut self, rcpt: &Rcpt) -> Option<Reply> {
        if let Some(reply) = self.limit(Happening::Recipient) {
            return Some(reply);
        }
        if let Some(reply) = self.server.restrictions.malformed_recipient(&rcpt.recipient) {
            log::warning!(
                "Illegal address syntax from {} in RCPT command: <{}>",
                self.client,
                rcpt.recipient
            );
            return Some(reply);
        }
        let mut effects = self.mail.effects.clone();
        let subject = Subject { recipient: Some(&rcpt.recipient), ..self.subject_at("RCPT") };
        let mut refused = self.server.restrictions.rcpt(&subject, &mut effects, &self.postponed);
        if refused.is_none() {
            refused = self.spend(0, 1);
        }
        match &refused {
            Some(reply) => {
                self.log_refusal(&subject, reply);
                if reply.code() >= 500 && reply.dsn() == Some(Dsn::new(5, 1, 1)) {
                    self.server.limits.offended(&self.client, Offence::UnknownRecipient);
                }
            }
            None => {
                self.mail.recipients += 1;
                self.mail.effects = effects;
                self.mail.first_recipient.get_or_insert_with(|| rcpt.recipient.clone());
            }
        }
        refused
    }

    pub(super) fn begin(&mut self, transaction: &Transaction) -> Option<Reply> {
        let mut effects = self.mail.effects.clone();
        let subject = self.content_subject("DATA");
        if let Some(reply) = self.server.restrictions.data(&subject, &mut effects) {
            self.log_refusal(&subject, &reply);
            return Some(reply);
        }
        let source = self.source(transaction, &subject);
        self.mail.effects = effects;
        match Transfer::begin(self.server, transaction, source, &self.mail.effects) {
            Ok(transfer) => {
                self.mail.size = 0;
                self.mail.queue_id = Some(transfer.id);
                self.mail.transfer = Some(transfer);
                None
            }
            Err(reply) => Some(reply),
        }
    }

    /// Why no message may begin: the client sends too many, or the user has sent too many.
    fn too_much_mail(&self) -> Option<Reply> {
        self.limit(Happening::Message).or_else(|| self.spend(1, 0))
    }

    /// Counts for the limits of the user who has authenticated.
    fn spend(&self, messages: u64, recipients: u64) -> Option<Reply> {
        let login = self.client.login.as_ref()?;
        let server = self.server;
        server.limits.quota.spend(&server.cleanup, &login.username, messages, recipients)
    }

    /// Where the message comes from, as cleanup and the log are told.
    fn source(&self, transaction: &Transaction, subject: &Subject<'_>) -> Source {
        let login = self.client.login.as_ref();
        let client = MailClient {
            name: self.client.name.clone(),
            address: self.client.address.clone(),
            port: self.client.port,
            helo: self.helo.as_ref().map(|helo| helo.name.clone()).unwrap_or_default(),
            protocol: self.protocol_of(transaction),
            sasl_method: login.map(|login| login.method.clone()).unwrap_or_default(),
            sasl_username: login.map(|login| login.username.clone()).unwrap_or_default(),
            sasl_sender: self.mail.sasl_sender.clone(),
            tls: self.trace_comments(),
        };
        let mut shown = self.client.to_string();
        if let Some(login) = login {
            let _ = write!(shown, ", sasl_method={}, sasl_username={}", login.method, login.username);
        }
        if !self.mail.sasl_sender.is_empty() {
            let _ = write!(shown, ", sasl_sender={}", self.mail.sasl_sender);
        }
        if let Some(forwarded) = &self.forwarded {
            let _ = write!(shown, "{forwarded}");
        }
        let rewrite_headers = match self.forwarded.as_ref().and_then(|forwarded| forwarded.is_local) {
            Some(is_local) => is_local,
            None => self.server.restrictions.rewrites_headers(subject),
        };
        let forwarded = self.forwarded.as_ref().map(Forwarded::to_pass_on);
        Source { shown, client, rewrite_headers, forwarded }
    }

    /// RFC 3848: an S for TLS, an A for AUTH; RFC 6531 section 3.7.3 has its own word for a transaction with SMTPUTF8.
    fn protocol_of(&self, transaction: &Transaction) -> String {
        let base = if transaction.mail.smtputf8 { "UTF8SMTP" } else { self.protocol() };
        let tls = if self.client.tls.is_some() { "S" } else { "" };
        let auth = if self.client.login.is_some() { "A" } else { "" };
        if base == "SMTP" { base.to_owned() } else { format!("{base}{tls}{auth}") }
    }

    pub(super) fn content(&mut self, bytes: &[u8]) {
        if let Some(transfer) = &mut self.mail.transfer {
            self.mail.size = self.mail.size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            transfer.content(bytes);
        }
    }

    pub(super) fn end(&mut self, chunked: Option<u64>) -> Reply {
        let subject = self.last_subject();
        let mut effects = Effects::default();
        let reply = match self.server.restrictions.end_of_data(&subject, &mut effects) {
            Some(reply) => reply,
            None => match self.mail.transfer.take() {
                Some(transfer) => transfer.commit(chunked, effects),
                None => Fault::Unanswered.reply(&self.server.settings.hostname),
            },
        };
        if !reply.is_positive() {
            self.log_refusal(&self.last_subject(), &reply);
        }
        self.forget_transaction();
        reply
    }

    pub(super) fn last_subject(&self) -> Subject<'_> {
        self.content_subject("END-OF-MESSAGE")
    }

    /// What is said of content is about the recipient if there is but one.
    fn content_subject<'s>(&'s self, place: &'s str) -> Subject<'s> {
        let recipient = self.mail.first_recipient.as_ref().filter(|_| self.mail.recipients == 1);
        Subject { recipient, ..self.subject_at(place) }
    }

    pub(super) fn abandoned(&mut self, reply: Option<&Reply>) {
        if let Some(reply) = reply {
            match reply.text().ends_with(BARE_NEWLINE) {
                true => report::acted("reject", &self.last_subject(), &BARE_NEWLINE),
                false => self.log_refusal(&self.last_subject(), reply),
            }
        }
        self.forget_transaction();
    }

    pub(super) fn forget_transaction(&mut self) {
        self.server.restrictions.message_done(self.mail.instance);
        self.mail = MailState::default();
        self.forwarded = None;
    }
}
