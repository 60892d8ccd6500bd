//! One client, from its connection to its end.

use std::thread;

use ipc::log;
use mail::{Address, Client as MailClient, Dsn, QueueId};
use nix::sys::socket::{MsgFlags, recv};
use service::{Connection, Stream};
use smtp_proto::content::BareNewline;
use smtp_proto::parameter::{Mail, Rcpt};
use smtp_proto::path::{self, PathRules};
use smtp_proto::server::{Ending, Event, Helo, Notice, Session, Transaction};
use smtp_proto::{Fault, Reply, Verb};

use crate::client::Client;
use crate::connections::Counted;
use crate::refusal;
use crate::report::{self, Subject};
use crate::restrictions::Effects;
use crate::server::Server;
use crate::transfer::Transfer;
use crate::wire::{Lost, Wire};

/// What the log says of a line without carriage return, and the end of the reply to it.
const BARE_NEWLINE: &str = "bare <LF> received";

/// The output buffer that a session keeps while it waits.
const KEPT_OUTPUT: usize = 1024;

/// Serves one client. `stopping` says whether the mail system is being stopped.
pub(crate) fn serve(server: &Server, connection: &Connection, stopping: &dyn Fn() -> bool) {
    let mut client = Client::new(connection.peer, connection.local, &server.names);
    client.shows_port = server.client_port_logging && client.port > 0;
    log::connected(&client);
    let Ok(wire) = Wire::new(&connection.stream, server.patience) else {
        log::broke_off("lost connection", "CONNECT", &client);
        return log::disconnected(&client, &" commands=0");
    };
    let counted = client.ip.map(|ip| server.connections.count(ip));
    let greeting = greeting(server, &client, counted.as_ref());
    let (policy, discarded, greeting) = match server.policy_for(&client) {
        Ok(policy) => (policy.policy, policy.discarded, greeting),
        Err(error) => {
            let reply = Reply::new(
                421,
                Dsn::new(4, 3, 0),
                format!("{} Server local error", server.settings.hostname),
            );
            log::warning!("{error}");
            (smtp_proto::server::Policy::default(), String::new(), reply)
        }
    };
    let mut conversation = Conversation {
        proto: Session::new(server.settings.clone(), policy, server.command_buffer()),
        wire,
        dialogue: Dialogue::new(server, &client, discarded),
        stopping,
    };
    conversation.look_for_early_talker(&connection.stream);
    conversation.proto.greet(&greeting, &client.to_string());
    let ending = conversation.run();
    conversation.end(ending);
}

/// `smtpd_banner`, or why the client is not welcome.
fn greeting(server: &Server, client: &Client, counted: Option<&Counted>) -> Reply {
    let hostname = &server.settings.hostname;
    let number = counted.map_or(0, |counted| counted.number);
    match server.too_many_connections(client, number) {
        Ok(false) => {}
        Ok(true) => {
            log::warning!("Connection concurrency limit exceeded: {number} from {client} for service smtpd");
            let text = format!("{hostname} Error: too many connections from {}", client.address);
            return Reply::new(421, Dsn::new(4, 7, 0), text);
        }
        Err(error) => {
            log::warning!("{error}");
            return Reply::new(421, Dsn::new(4, 3, 0), format!("{hostname} Server local error"));
        }
    }
    let dialogue = Dialogue::new(server, client, String::new());
    let subject = dialogue.subject_at("CONNECT");
    match server.restrictions.connect(&subject) {
        Some(reply) => {
            report::acted("reject", &subject, &reply);
            reply
        }
        None => Reply::plain(220, server.greeting.clone()),
    }
}

/// The protocol, the wire, and what is known of the client.
struct Conversation<'a> {
    proto: Session,
    wire: Wire<'a>,
    dialogue: Dialogue<'a>,
    stopping: &'a dyn Fn() -> bool,
}

impl Conversation<'_> {
    /// What has come before the greeting came too early (RFC 5321 section 4.3.1).
    fn look_for_early_talker(&mut self, stream: &Stream) {
        use std::os::fd::AsRawFd;
        let Stream::Tcp(stream) = stream else { return };
        if let Ok(count) = recv(stream.as_raw_fd(), self.proto.input().space(), MsgFlags::MSG_DONTWAIT) {
            self.proto.input().filled(count);
        }
    }

    /// Goes from event to event until the session ends.
    fn run(&mut self) -> Result<Ending, Lost> {
        loop {
            let reply = match self.proto.next_event() {
                Event::Read => {
                    self.exchange()?;
                    continue;
                }
                Event::Delay => {
                    thread::sleep(self.dialogue.server.error_sleep_time);
                    continue;
                }
                Event::Content(bytes) => {
                    self.dialogue.content(bytes);
                    continue;
                }
                Event::Helo(helo) => self.dialogue.helo(helo),
                Event::Mail(mail) => self.dialogue.mail(mail),
                Event::Rcpt(rcpt) => self.dialogue.rcpt(rcpt),
                Event::Begin(transaction) => self.dialogue.begin(transaction),
                Event::End { chunked, .. } => Some(self.dialogue.end(chunked)),
                Event::Verify(address) => self.dialogue.verify(address),
                Event::Other(..) => None,
                Event::Unknown(word, line) => {
                    if let Some(reply) = self.dialogue.unknown(word, line) {
                        self.proto.dismiss(&reply);
                        continue;
                    }
                    None
                }
                Event::Abandoned(reply) => {
                    self.dialogue.abandoned(reply);
                    continue;
                }
                Event::Refused(verb, arguments, reply) => {
                    self.dialogue.refused(verb, arguments, reply);
                    continue;
                }
                Event::Notice(notice) => {
                    let rejects = self.proto.policy().bare_newline == BareNewline::Reject;
                    self.dialogue.notice(&notice, rejects);
                    continue;
                }
                Event::Close(ending) => {
                    let output = std::mem::take(self.proto.output());
                    self.wire.write(&output)?;
                    return Ok(ending);
                }
            };
            match reply {
                Some(reply) => self.proto.answer(&reply),
                None => self.proto.accept(),
            }
        }
    }

    /// Writes what there is to say, and reads on.
    fn exchange(&mut self) -> Result<(), Lost> {
        let output = self.proto.output();
        if !output.is_empty() {
            self.wire.write(output)?;
            output.clear();
            output.shrink_to(KEPT_OUTPUT);
            self.wire.new_request();
        }
        self.fit_buffer();
        let count = self.wire.read(self.proto.input().space())?;
        self.proto.input().filled(count);
        Ok(())
    }

    /// A large buffer while content comes, a small one while the client thinks.
    fn fit_buffer(&mut self) {
        let server = self.dialogue.server;
        let wants_large = self.proto.receives_content();
        let input = self.proto.input();
        let has_large = input.capacity() > server.settings.line_length_limit * 2;
        match (wants_large, has_large) {
            (true, false) => drop(input.exchange(server.buffers.take())),
            (false, true) if input.pending().is_empty() => {
                let large = input.exchange(server.command_buffer());
                server.buffers.give_back(large);
            }
            _ => {}
        }
    }

    /// The last words, to the client and to the log.
    fn end(mut self, ending: Result<Ending, Lost>) {
        let client = self.dialogue.client;
        let hostname = &self.dialogue.server.settings.hostname;
        let place = self.proto.place();
        match ending {
            Ok(Ending::Quit | Ending::Dropped) => {}
            Ok(Ending::TooManyErrors) => log::broke_off("too many errors", &place, client),
            Err(Lost::Patience) => {
                log::broke_off("timeout", &place, client);
                self.say_last(&Reply::new(
                    421,
                    Dsn::new(4, 4, 2),
                    format!("{hostname} Error: timeout exceeded"),
                ));
            }
            Err(Lost::Connection) if (self.stopping)() => {
                self.say_last(&Reply::new(
                    421,
                    Dsn::new(4, 3, 2),
                    format!("{hostname} Service shutting down"),
                ));
            }
            // Many clients go without QUIT when they are done.
            Err(Lost::Connection) if place == "END-OF-MESSAGE" => {}
            Err(Lost::Connection) => log::broke_off("lost connection", &place, client),
        }
        log::disconnected(client, self.proto.counters());
        let large = self.proto.input().exchange(Vec::new());
        self.dialogue.server.buffers.give_back(large);
    }

    fn say_last(&mut self, reply: &Reply) {
        let mut output = Vec::new();
        reply.write(&mut output, true);
        // Whoever does not hear it is gone anyway.
        let _ = self.wire.write(&output);
    }
}

/// What is known of the client and its transaction, and the answers to what it asks. A handler gives a reply, or none
/// for the usual one.
struct Dialogue<'a> {
    server: &'a Server,
    client: &'a Client,
    /// EHLO keywords that are kept from this client, for the log.
    discarded: String,
    helo: Option<Helo>,
    sender: Option<Address>,
    /// How many recipients were accepted, and the first of them.
    recipients: usize,
    first_recipient: Option<Address>,
    effects: Effects,
    queue_id: Option<QueueId>,
    transfer: Option<Transfer>,
    out_of_step: bool,
}

impl<'a> Dialogue<'a> {
    fn new(server: &'a Server, client: &'a Client, discarded: String) -> Self {
        Self {
            server,
            client,
            discarded,
            helo: None,
            sender: None,
            recipients: 0,
            first_recipient: None,
            effects: Effects::default(),
            queue_id: None,
            transfer: None,
            out_of_step: false,
        }
    }

    fn subject_at<'s>(&'s self, place: &'s str) -> Subject<'s> {
        Subject {
            queue_id: self.queue_id,
            place,
            client: self.client,
            helo: self.helo.as_ref().map(|helo| helo.name.as_str()),
            sender: self.sender.as_ref(),
            recipient: None,
            recipients: self.recipients,
            protocol: self.protocol(),
            out_of_step: self.out_of_step,
        }
    }

    fn protocol(&self) -> &'static str {
        if self.helo.as_ref().is_some_and(|helo| helo.extended) { "ESMTP" } else { "SMTP" }
    }

    fn helo(&mut self, helo: &Helo) -> Option<Reply> {
        let before = self.helo.replace(helo.clone());
        let place = if helo.extended { "EHLO" } else { "HELO" };
        let subject = self.subject_at(place);
        let refused = self.server.restrictions.helo(&subject);
        if let Some(reply) = &refused {
            report::acted("reject", &subject, reply);
            self.helo = before;
        } else {
            self.forget_transaction();
            if helo.extended && !self.discarded.is_empty() {
                log::info!("discarding EHLO keywords: {}", self.discarded);
            }
        }
        refused
    }

    fn mail(&mut self, mail: &Mail) -> Option<Reply> {
        self.forget_transaction();
        self.sender = Some(mail.sender.clone());
        let subject = self.subject_at("MAIL");
        let restrictions = &self.server.restrictions;
        if let Some(reply) = restrictions.malformed_sender(&mail.sender) {
            log::warning!("Illegal address syntax from {} in MAIL command: <{}>", self.client, mail.sender);
            self.sender = None;
            return Some(reply);
        }
        let mut refused = restrictions.mail(&subject);
        if refused.is_none() && !self.server.space.suffices() {
            refused = Some(refusal::no_space());
        }
        if let Some(reply) = &refused {
            report::acted("reject", &subject, reply);
            self.sender = None;
        }
        refused
    }

    fn rcpt(&mut self, rcpt: &Rcpt) -> Option<Reply> {
        let mut effects = self.effects;
        let subject = Subject { recipient: Some(&rcpt.recipient), ..self.subject_at("RCPT") };
        let refused = self.server.restrictions.rcpt(&subject, &mut effects);
        match &refused {
            Some(reply) => report::acted("reject", &subject, reply),
            None => {
                self.recipients += 1;
                self.effects = effects;
                self.first_recipient.get_or_insert_with(|| rcpt.recipient.clone());
            }
        }
        refused
    }

    fn verify(&self, address: &Address) -> Option<Reply> {
        let subject = Subject { recipient: Some(address), ..self.subject_at("VRFY") };
        let refused = self.server.restrictions.verify_address(&subject);
        if let Some(reply) = &refused {
            report::acted("reject", &subject, reply);
        }
        refused
    }

    fn begin(&mut self, transaction: &Transaction) -> Option<Reply> {
        let mut effects = self.effects;
        let subject = self.subject_at("DATA");
        if let Some(reply) = self.server.restrictions.data(&subject, &mut effects) {
            report::acted("reject", &subject, &reply);
            return Some(reply);
        }
        let rewrite_headers = self.server.restrictions.rewrites_headers(&subject);
        self.effects = effects;
        let client = MailClient {
            name: self.client.name.clone(),
            address: self.client.address.clone(),
            port: self.client.port,
            helo: self.helo.as_ref().map(|helo| helo.name.clone()).unwrap_or_default(),
            // RFC 6531 section 3.7.3 has its own word for a transaction with SMTPUTF8.
            protocol: if transaction.mail.smtputf8 { "UTF8SMTP" } else { self.protocol() }.to_owned(),
        };
        match Transfer::begin(self.server, transaction, self.client, client, rewrite_headers, self.effects) {
            Ok(transfer) => {
                self.queue_id = Some(transfer.id);
                self.transfer = Some(transfer);
                None
            }
            Err(reply) => Some(reply),
        }
    }

    fn content(&mut self, bytes: &[u8]) {
        if let Some(transfer) = &mut self.transfer {
            transfer.content(bytes);
        }
    }

    fn end(&mut self, chunked: Option<u64>) -> Reply {
        let subject = self.last_subject();
        let reply = match self.server.restrictions.end_of_data(&subject, &mut Effects::default()) {
            Some(reply) => reply,
            None => match self.transfer.take() {
                Some(transfer) => transfer.commit(chunked),
                None => Fault::Unanswered.reply(&self.server.settings.hostname),
            },
        };
        if !reply.is_positive() {
            report::acted("reject", &self.last_subject(), &reply);
        }
        self.forget_transaction();
        reply
    }

    /// At the end of content, the log shows a recipient if there is but one.
    fn last_subject(&self) -> Subject<'_> {
        let recipient = self.first_recipient.as_ref().filter(|_| self.recipients == 1);
        Subject { recipient, ..self.subject_at("END-OF-MESSAGE") }
    }

    fn abandoned(&mut self, reply: Option<&Reply>) {
        if let Some(reply) = reply {
            match reply.text().ends_with(BARE_NEWLINE) {
                true => report::acted("reject", &self.last_subject(), &BARE_NEWLINE),
                false => report::acted("reject", &self.last_subject(), reply),
            }
        }
        self.forget_transaction();
    }

    fn forget_transaction(&mut self) {
        self.sender = None;
        self.recipients = 0;
        self.first_recipient = None;
        self.queue_id = None;
        self.effects = Effects::default();
        self.transfer = None;
    }

    /// A command that never became a question. Of those, Postfix logs wrong addresses, and limits that were met.
    fn refused(&self, verb: Verb, arguments: &str, reply: &Reply) {
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
                let sender = path::parse(said, PathRules { strict: false, allow_null: true }).ok();
                let subject = Subject { sender: sender.as_ref(), ..self.subject_at(verb.name()) };
                report::acted("reject", &subject, reply);
            }
            (Verb::Rcpt, 452) => {
                let recipient = path::parse(said, PathRules::default()).ok();
                let subject = Subject { recipient: recipient.as_ref(), ..self.subject_at(verb.name()) };
                report::acted("reject", &subject, reply);
            }
            (Verb::Bdat, _) => report::acted("reject", &self.subject_at(verb.name()), reply),
            _ => {}
        }
    }

    /// A client that speaks another language than SMTP is sent away.
    fn unknown(&self, word: &str, line: &str) -> Option<Reply> {
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
        let said: String = line.chars().take(100).collect();
        log::warning!("non-SMTP command from {}: {said}", self.client);
        Some(Reply::new(221, Dsn::new(2, 7, 0), "Error: I can break rules, too. Goodbye."))
    }

    fn notice(&mut self, notice: &Notice, rejects_bare_newline: bool) {
        match notice {
            Notice::ImproperPipelining { after, said } => {
                log::info!("improper command pipelining after {after} from {}: {said}", self.client);
                self.out_of_step = true;
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

#[cfg(test)]
mod tests;
