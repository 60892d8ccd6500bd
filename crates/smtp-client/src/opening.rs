//! From a connection to a server that listens: the greeting, EHLO, STARTTLS and EHLO again, AUTH.

use ipc::agent::Request;
use ipc::log;
use mail::Dsn;
use net::tls::client::{Level, Peer, Policy};
use smtp_proto::client::{Event, Protocol, Response, Stage};

use crate::agent::Client;
use crate::conversation::{Conversation, Trouble};
use crate::delivery::Target;
use crate::failure::Failure;
use crate::login::{Login, Logins, NoLogin};
use crate::server::Server;

/// What an opening goes by.
pub(crate) struct Opening<'a> {
    pub(crate) client: &'a Client,
    pub(crate) request: &'a Request,
    pub(crate) target: &'a Target<'a>,
    pub(crate) policy: &'a Policy,
    /// A server with this host's own name is this host.
    pub(crate) detects_loops: bool,
}

/// Why a server does not listen.
pub(crate) enum Refusal {
    /// TLS did not come about; the policy lets it be tried without, over another connection.
    WithoutTls,
    /// All else.
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Opening<'_> {
    /// Opens the conversation: afterwards it takes a transaction.
    pub(crate) fn open(&self, conversation: &mut Conversation) -> Result<(), Refusal> {
        if self.client.settings.wraps(conversation.server.port()) {
            if self.policy.level > Level::None {
                self.shake_hands(conversation)?;
            } else {
                log::info!("{} wants TLS; set smtp_tls_security_level", conversation.server.with_port());
            }
        }
        let extended = self.greeting(conversation)?;
        self.hello(conversation, extended)?;
        if conversation.stream.tls().is_none() {
            self.start_tls(conversation)?;
        }
        self.log_in(conversation)?;
        Ok(())
    }

    /// Reads the greeting: whether the server is to be greeted with EHLO.
    fn greeting(&self, conversation: &mut Conversation) -> Result<bool, Failure> {
        let settings = &self.client.settings;
        let (accepted, response) = reply(conversation)?;
        if !accepted {
            let failure = Failure::refused_to_talk(&conversation.server, &response);
            let passes = settings.skip_5xx_greeting && response.code() / 100 == 5;
            return Err(if passes { failure.softened() } else { failure });
        }
        let text = response.lines().to_owned();
        let mut words = text.get(4..).unwrap_or_default().split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        if self.detects_loops && name.eq_ignore_ascii_case(&settings.myhostname) {
            log::warning!(
                "host {} greeted me with my own hostname {}",
                conversation.server.with_port(),
                settings.myhostname
            );
        }
        if settings.protocol == Protocol::Lmtp {
            return Ok(true);
        }
        let says_extended = words.any(|word| word.eq_ignore_ascii_case("ESMTP"));
        Ok((says_extended || settings.always_ehlo) && !settings.never_ehlo)
    }

    fn hello(&self, conversation: &mut Conversation, extended: bool) -> Result<(), Failure> {
        let settings = &self.client.settings;
        let name = &settings.hello_name;
        let session = &mut conversation.session;
        let said = if extended { session.hello(name) } else { session.plain_hello(name) };
        said.map_err(out_of_turn)?;
        let (accepted, response) = reply(conversation)?;
        if !accepted {
            return Err(Failure::refused_to_talk(&conversation.server, &response));
        }
        let theirs = &conversation.session.features().server_name;
        if !self.detects_loops || !theirs.eq_ignore_ascii_case(&settings.myhostname) {
            return Ok(());
        }
        log::warning!(
            "host {} replied to HELO/EHLO with my own hostname {}",
            conversation.server.with_port(),
            settings.myhostname
        );
        // Behind a host that is not the best there may be a better one that is down.
        let class = if conversation.is_best { 5 } else { 4 };
        let text = format!("mail for {} loops back to myself", self.request.nexthop);
        Err(Failure { is_loop: true, ..Failure::local(Dsn::new(class, 4, 6), text) })
    }

    /// STARTTLS, where it is offered and wished for.
    fn start_tls(&self, conversation: &mut Conversation) -> Result<(), Refusal> {
        let level = self.policy.level;
        let offered = conversation.session.features().starttls;
        let server = conversation.server.clone();
        if offered && level == Level::None && self.client.settings.note_starttls_offer {
            log::info!("Host offered STARTTLS: [{}]", server.host);
        }
        if !offered || level == Level::None {
            if level.must_encrypt() {
                let text = format!("TLS is required, but was not offered by host {server}");
                return Err(Failure::local(Dsn::new(4, 7, 4), text).into());
            }
            return Ok(());
        }
        conversation.session.start_tls().map_err(out_of_turn)?;
        let (accepted, response) = reply(conversation)?;
        if !accepted {
            if level.must_encrypt() {
                let text = format!("TLS is required, but host {server} refused to start TLS: {response}");
                return Err(Failure::said(&server, &response, text).into());
            }
            // With 421 it has closed the connection (RFC 5321 section 3.8).
            return match conversation.session.is_open() {
                true => Ok(()),
                false => Err(Failure::reply(&server, &response, Stage::StartTls).into()),
            };
        }
        match event(conversation)? {
            Event::Handshake => {}
            _ => return Err(Failure::local(Dsn::new(4, 3, 0), "STARTTLS out of turn").into()),
        }
        self.shake_hands(conversation)?;
        conversation.session.tls_started().map_err(out_of_turn)?;
        self.hello(conversation, true)?;
        Ok(())
    }

    fn shake_hands(&self, conversation: &mut Conversation) -> Result<(), Refusal> {
        let server = conversation.server.clone();
        let host = if self.client.settings.protocol == Protocol::Lmtp && server.address().is_none() {
            self.client.settings.myhostname.as_str()
        } else {
            server.host.as_str()
        };
        let peer = Peer { host, address: server.address(), port: server.port(), nexthop: &self.target.name };
        let time = self.client.settings.timeouts.starttls;
        let Err(error) = conversation.stream.start_tls(&self.client.tls, self.policy, &peer, time) else {
            return Ok(());
        };
        if self.may_go_without_tls(&server) {
            log::info!("{}: {error}; trying {server} without TLS", self.request.id);
            return Err(Refusal::WithoutTls);
        }
        Err(Failure::local(Dsn::new(4, 7, 5), error.to_string()).into())
    }

    /// As in Postfix: not at once, since most failures pass, and never where a password would go in clear.
    fn may_go_without_tls(&self, server: &Server) -> bool {
        let waited = self.request.active_since.saturating_sub(self.request.arrival);
        self.policy.level == Level::May
            && waited >= self.client.settings.plaintext_after
            && !self.client.settings.wraps(server.port())
            && matches!(self.login(server), Ok(None))
    }

    /// Who this host is to this server.
    fn login(&self, server: &Server) -> Result<Option<Login>, Failure> {
        let Some(logins) = &self.client.logins else { return Ok(None) };
        let destination = self.target.destination.to_string();
        logins.find(&self.request.sender, &server.host, &destination).map_err(|error| {
            log::warning!("{error}");
            Failure::local(Dsn::new(4, 3, 0), "SASL password lookup problem")
        })
    }

    /// AUTH, where the server offers it and there is a login for it.
    fn log_in(&self, conversation: &mut Conversation) -> Result<(), Failure> {
        let server = conversation.server.clone();
        let (Some(logins), Some(offered)) =
            (&self.client.logins, conversation.session.features().auth.clone())
        else {
            return Ok(());
        };
        let Some(login) = self.login(&server)? else { return Ok(()) };
        if let Some(failure) = logins.remembered(&server.host, &login) {
            return Err(failure);
        }
        let mut attempt = self.authenticate(conversation, logins, &login, &offered);
        if matches!(&attempt, Err((_, true))) && conversation.session.is_open() && logins.refused(&login) {
            attempt = self.authenticate(conversation, logins, &login, &offered);
        }
        attempt.map_err(|(failure, _)| failure)
    }

    /// One exchange. A failure comes with whether the server refused the login.
    fn authenticate(
        &self,
        conversation: &mut Conversation,
        logins: &Logins,
        login: &Login,
        offered: &[String],
    ) -> Result<(), (Failure, bool)> {
        let server = conversation.server.clone();
        let own = |text: String| (Failure::local(Dsn::new(4, 7, 0), text), false);
        let tls = conversation.stream.tls().map(net::tls::client::TlsStream::info);
        let exchange = logins.exchange(login, offered, tls).map_err(|reason| match reason {
            NoLogin::NoMechanism => own(format!(
                "SASL authentication failed: server {server} offered no compatible authentication mechanisms \
                 for this type of connection security"
            )),
            NoLogin::Impossible(reason) => {
                own(format!("SASL authentication failed; cannot authenticate to server {server}: {reason}"))
            }
        })?;
        conversation.session.authenticate(exchange).map_err(|error| (out_of_turn(error), false))?;
        match event(conversation).map_err(|failure| (failure, false))? {
            Event::Reply { accepted: true, .. } => {
                logins.taken(login);
                Ok(())
            }
            Event::Reply { response, .. } => {
                let text = format!("SASL authentication failed; server {server} said: {response}");
                let failure = Failure::said(&server, &response, text);
                // Of a login nothing is told.
                let failure = Failure { breaks_protocol: false, ..failure };
                let failure = if logins.soft_bounce { failure.softened() } else { failure };
                // RFC 4954 section 6: 535 is about the login, other codes are about the moment.
                if response.code() == 535 {
                    logins.remember(&server.host, login, &failure);
                }
                Err((failure, response.code() / 100 == 5))
            }
            Event::AuthAbandoned(error) => {
                let text =
                    format!("SASL authentication failed; cannot authenticate to server {server}: {error}");
                Err(own(text))
            }
            _ => Err((Failure::local(Dsn::new(4, 3, 0), format!("host {server}: no reply")), false)),
        }
    }
}

/// The next reply.
fn reply(conversation: &mut Conversation) -> Result<(bool, Response), Failure> {
    match event(conversation)? {
        Event::Reply { accepted, response, .. } => Ok((accepted, response)),
        _ => Err(Failure::local(Dsn::new(4, 3, 0), format!("host {}: no reply", conversation.server))),
    }
}

fn event(conversation: &mut Conversation) -> Result<Event, Failure> {
    match conversation.next() {
        Ok(event) => Ok(event),
        Err(trouble) => Err(broken(conversation, &trouble)),
    }
}

/// What it means that a conversation broke.
pub(crate) fn broken(conversation: &Conversation, trouble: &Trouble) -> Failure {
    let server = &conversation.server;
    let text = trouble.text(server);
    match trouble {
        Trouble::Broken(..) | Trouble::Closed(None, _) => Failure::local(Dsn::new(4, 4, 2), text),
        Trouble::Closed(Some(response), _) => Failure::said(server, response, text),
        Trouble::Protocol(_) => Failure { breaks_protocol: true, ..Failure::local(Dsn::new(4, 5, 0), text) },
    }
}

fn out_of_turn(error: smtp_proto::client::Error) -> Failure {
    Failure::local(Dsn::new(4, 3, 0), error.to_string())
}
