//! The protocol, the wire, and who answers: from event to event until the session ends.

use std::thread;

use ipc::anvil::Offence;
use ipc::log;
use mail::Dsn;
use nix::sys::socket::{MsgFlags, recv};
use service::Stream;
use smtp_proto::content::BareNewline;
use smtp_proto::server::{Ending, Event, Helo, Session};
use smtp_proto::{Reply, Verb};

use super::auth::Answer;
use super::dialogue::Dialogue;
use super::greeting;
use crate::transcript::Transcript;
use crate::wire::{Lost, Wire};

/// The output buffer that a session keeps while it waits.
const KEPT_OUTPUT: usize = 1024;

/// The protocol, the wire, and what is known of the client.
pub(super) struct Conversation<'a> {
    pub(super) proto: Session,
    pub(super) wire: Wire<'a>,
    pub(super) dialogue: Dialogue<'a>,
    pub(super) stopping: &'a dyn Fn() -> bool,
    pub(super) transcript: Transcript,
}

impl Conversation<'_> {
    /// What has come before the greeting came too early (RFC 5321 section 4.3.1).
    pub(super) fn look_for_early_talker(&mut self, stream: &Stream) {
        use std::os::fd::AsRawFd;
        let Stream::Tcp(stream) = stream else { return };
        if self.wire.is_encrypted() {
            return;
        }
        if let Ok(count) = recv(stream.as_raw_fd(), self.proto.input().space(), MsgFlags::MSG_DONTWAIT) {
            self.proto.input().filled(count);
        }
    }

    /// Goes from event to event until the session ends.
    pub(super) fn run(&mut self) -> Result<Ending, Lost> {
        loop {
            match self.answer_all()? {
                Some(ending) => return Ok(ending),
                None => self.exchange()?,
            }
        }
    }

    /// Answers what has come; gives how the session ends, if it does. Most of a session is waiting: what is needed for answers is
    /// not on the stack meanwhile.
    #[inline(never)]
    fn answer_all(&mut self) -> Result<Option<Ending>, Lost> {
        loop {
            let reply = match self.proto.next_event() {
                Event::Read => return Ok(None),
                Event::Delay => {
                    thread::sleep(self.dialogue.server.error_sleep_time);
                    continue;
                }
                Event::Content(bytes) => {
                    self.dialogue.content(bytes);
                    continue;
                }
                Event::Helo(helo) => {
                    let reply = self.dialogue.helo(helo);
                    self.proto.offer_auth(self.dialogue.auth_offer());
                    reply
                }
                Event::Auth { mechanism, initial } => {
                    let answer = self.dialogue.begin_auth(mechanism, initial);
                    self.answer_auth(answer);
                    continue;
                }
                Event::AuthResponse(response) => {
                    let answer = self.dialogue.go_on_with_auth(response);
                    self.answer_auth(answer);
                    continue;
                }
                Event::Mail(mail) => self.dialogue.mail(mail),
                Event::Rcpt(rcpt) => self.dialogue.rcpt(rcpt),
                Event::Begin(transaction) => self.dialogue.begin(transaction),
                Event::End { chunked, .. } => Some(self.dialogue.end(chunked)),
                Event::Verify(address) => self.dialogue.verify(address),
                Event::Other(Verb::Xclient, arguments) => match self.dialogue.xclient(arguments) {
                    Ok(helo) => {
                        self.begin_anew(helo);
                        continue;
                    }
                    Err(reply) => Some(reply),
                },
                Event::Other(Verb::StartTls, _) => {
                    if self.start_tls()? {
                        continue;
                    }
                    None
                }
                Event::Other(verb, arguments) => self.dialogue.other(verb, arguments),
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
                    self.transcript.said(&output);
                    self.wire.new_request();
                    self.wire.write(&output)?;
                    return Ok(Some(ending));
                }
            };
            match reply {
                Some(reply) => self.proto.answer(&reply),
                None => self.proto.accept(),
            }
        }
    }

    /// The session goes on as that of another client.
    fn begin_anew(&mut self, helo: Option<Helo>) {
        let opening = greeting::opening(&mut self.dialogue, None);
        let client = &self.dialogue.client;
        self.transcript.show((client.debug_level > 0).then(|| client.to_string()));
        self.proto.set_site_rules(self.dialogue.server.site.rules_for(&client.address, client.port));
        self.proto.set_authenticated(client.login.is_some());
        self.proto.start_over(&opening.greeting, opening.policy, &client.to_string(), helo);
    }

    fn answer_auth(&mut self, answer: Answer) {
        match answer {
            Answer::Challenge(challenge) => self.proto.challenge(&challenge),
            Answer::Reply(reply) => self.proto.answer(&reply),
        }
    }

    /// Writes what there is to say, and reads on.
    fn exchange(&mut self) -> Result<(), Lost> {
        let output = self.proto.output();
        if !output.is_empty() {
            self.transcript.said(output);
            self.wire.new_request();
            self.wire.write(output)?;
            output.clear();
            output.shrink_to(KEPT_OUTPUT);
            self.wire.new_request();
        }
        self.fit_buffer();
        let is_content = self.proto.receives_content();
        let is_secret = self.dialogue.exchange.is_some();
        let space = self.proto.input().space();
        let count = self.wire.read(space, is_content)?;
        if !is_content {
            self.transcript.heard(&space[..count], is_secret);
        }
        self.proto.input().filled(count);
        Ok(())
    }

    /// A large buffer while content comes, a small one while the client thinks.
    fn fit_buffer(&mut self) {
        let server = self.dialogue.server;
        let awaits_long_line = self.proto.line_limit() > server.settings.line_length_limit;
        let wants_large = self.proto.receives_content() || awaits_long_line;
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
    #[inline(never)]
    pub(super) fn end(mut self: Box<Self>, ending: Result<Ending, Lost>) {
        let client = self.dialogue.client.to_string();
        let hostname = &self.dialogue.server.settings.hostname;
        let place = self.proto.place();
        self.wire.hurry();
        let reason = match ending {
            Ok(Ending::Quit | Ending::Dropped) => None,
            Ok(Ending::TooManyErrors) => Some("too many errors"),
            Err(Lost::Patience) => Some("timeout"),
            Err(Lost::Connection) => Some("lost connection"),
        };
        match ending {
            Ok(Ending::Quit | Ending::Dropped) => {}
            Ok(Ending::TooManyErrors) => {
                log::broke_off("too many errors", &place, &client);
                self.dialogue.server.limits.offended(&self.dialogue.client, Offence::ProtocolError);
            }
            Err(Lost::Patience) => {
                log::broke_off("timeout", &place, &client);
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
            Err(Lost::Connection) => log::broke_off("lost connection", &place, &client),
        }
        log::disconnected(&client, self.proto.counters());
        let server = self.dialogue.server;
        server.notices.end(&self.transcript, &client, reason, &server.cleanup);
        let large = self.proto.input().exchange(Vec::new());
        self.dialogue.server.buffers.give_back(large);
    }

    fn say_last(&mut self, reply: &Reply) {
        self.proto.say_last(reply);
        let output = std::mem::take(self.proto.output());
        // Whoever does not hear it is gone anyway.
        let _ = self.wire.write(&output);
    }
}
