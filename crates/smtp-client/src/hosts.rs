//! The hosts of one place: connections to their addresses, sessions with those that listen.

use std::net::SocketAddr;

use ipc::log;
use mail::Dsn;
use net::dns::mail_hosts::{MailHost, MailHosts};
use net::tls::client::{DaneError, Host as DaneHost, Level, Policy};
use smtp_proto::client::Protocol;

use crate::cache::Sought as Cached;
use crate::connect;
use crate::conversation::Conversation;
use crate::delivery::{Attempt, Target};
use crate::destination::Destination;
use crate::failure::Failure;
use crate::opening::{Opening, Refusal};
use crate::server::{Place, Server};
use crate::stream::Plain;
use crate::transaction;

/// The port where mail loops are looked for: a conversation with oneself on another is one with a filter.
const SMTP_PORT: u16 = 25;

/// What came of an address.
enum Conversed {
    /// The server listened, whatever it said then.
    Listened,
    /// There is no server, or it did not want to listen.
    Refused,
    /// TLS did not come about, and it may be tried without.
    WithoutTls,
}

/// A server to talk to.
struct Candidate {
    server: Server,
    policy: Policy,
    is_best: bool,
    /// No session comes after one with it.
    is_last_session: bool,
}

impl Attempt<'_, '_> {
    /// Tries these hosts but those that were `visited` already.
    pub(crate) fn try_hosts(&mut self, target: &Target<'_>, found: &MailHosts, visited: &[String]) {
        let settings = &self.client.settings;
        self.final_place |= found.includes_self;
        let best = found.hosts.first().map(|host| host.preference);
        let hosts: Vec<(&MailHost, Server)> = found
            .hosts
            .iter()
            .map(|host| (host, self.server_of(host)))
            .filter(|(_, server)| !visited.contains(&server.with_port()))
            .collect();
        let count = hosts.len();
        let mut sessions = 0;
        for (number, (host, server)) in hosts.into_iter().enumerate() {
            if self.is_decided() {
                return;
            }
            self.final_server = self.final_place && number + 1 == count;
            let policy = match self.policy_for(target, host) {
                Ok(policy) => policy,
                Err(failure) => {
                    log::info!("{}: {}", self.request().id, failure.text);
                    self.unreachable(failure);
                    continue;
                }
            };
            let is_last_session = settings.mx_session_limit > 0 && sessions + 1 >= settings.mx_session_limit;
            let is_best = Some(host.preference) == best;
            let candidate = Candidate { server, policy, is_best, is_last_session };
            if self.try_address(target, candidate) {
                sessions += 1;
                if is_last_session {
                    return;
                }
            }
        }
    }

    fn server_of(&self, host: &MailHost) -> Server {
        let by_alias = self.client.settings.cname_overrides_servername;
        let name = if by_alias { &host.canonical } else { &host.name };
        Server { host: name.clone(), place: Place::Inet(host.address, host.port) }
    }

    /// What is asked of this host's TLS: with DANE, its own records decide.
    fn policy_for(&self, target: &Target<'_>, host: &MailHost) -> Result<Policy, Failure> {
        let client = self.client;
        let host = DaneHost {
            name: &host.name,
            canonical: &host.canonical,
            name_secure: host.name_secure,
            address_secure: host.address_secure,
            port: host.port,
        };
        let look_up = |name: &str| client.hosts.dns().tlsa(name);
        let policy = client.tls.policy_for_host(target.policy.clone(), &host, &look_up);
        let policy = policy.map_err(|error| {
            match &error {
                DaneError::Lookup { cause, .. } => log::warning!("{error}: {cause}"),
                _ => log::warning!("TLS policy lookup for {}/{}: {error}", target.name, host.name),
            }
            Failure::local(Dsn::new(4, 7, 5), error.to_string())
        })?;
        // Only who takes mail for a domain is bound by what the domain says (RFC 8461 section 4.1).
        let policy = match target.destination {
            Destination::Inet { port: None, literal: false, .. } => {
                let look_up = |name: &str| client.hosts.dns().txt(name);
                let applied = client.tls.apply_sts(policy, &target.name, host.name, &look_up);
                applied.map_err(|error| Failure::local(Dsn::new(4, 7, 5), error.to_string()))?
            }
            _ => policy,
        };
        if client.settings.wrappermode && !policy.level.must_encrypt() {
            log::warning!(
                "smtp_tls_wrappermode requires \"smtp_tls_security_level = encrypt\" (or stronger)"
            );
            return Err(Failure::local(Dsn::new(4, 7, 5), "client TLS configuration problem"));
        }
        Ok(policy)
    }

    /// Tries one address, a second time in clear where TLS was only wished for. Whether a server was found to listen.
    fn try_address(&mut self, target: &Target<'_>, mut candidate: Candidate) -> bool {
        let name = candidate.server.with_port();
        while let Some(conversation) = self.client.cache.take(Cached::Server(&target.key, &name)) {
            self.final_server |= self.final_place && candidate.is_last_session;
            if self.use_again(target, conversation) {
                return true;
            }
        }
        loop {
            self.results.connecting();
            let plain = match self.connect(&candidate.server) {
                Ok(plain) => plain,
                Err(failure) => {
                    log::info!("{}", failure.text);
                    self.unreachable(failure);
                    return false;
                }
            };
            match self.converse(target, &candidate, plain) {
                Conversed::Listened => return true,
                Conversed::Refused => return false,
                Conversed::WithoutTls => candidate.policy.level = Level::None,
            }
        }
    }

    /// Delivers over a UNIX socket.
    pub(crate) fn try_socket(&mut self, target: &Target<'_>) {
        let Destination::Unix(path) = target.destination else { return };
        let host = self.client.settings.myhostname.clone();
        let candidate = Candidate {
            server: Server { host, place: Place::Unix(path.clone()) },
            policy: target.policy.clone(),
            is_best: true,
            is_last_session: true,
        };
        self.try_address(target, candidate);
    }

    fn connect(&self, server: &Server) -> Result<Plain, Failure> {
        let settings = &self.client.settings;
        let patience = settings.timeouts.connect;
        let connected = match &server.place {
            Place::Unix(path) => {
                connect::unix(&settings.queue_directory.join(path), patience).map(Plain::Unix)
            }
            Place::Inet(address, port) => {
                let source = settings.source_for(*address);
                let bound = match source.map(connect::bind) {
                    Some(Err(error)) => {
                        let source = source.map_or_else(String::new, |source| source.to_string());
                        log::warning!("bind {source}: {}", connect::reason(&error));
                        if settings.bind_enforce {
                            return Err(Failure::local(Dsn::new(4, 4, 0), "server unavailable"));
                        }
                        None
                    }
                    Some(Ok(bound)) => Some(bound),
                    None => None,
                };
                connect::tcp(SocketAddr::new(*address, *port), bound.as_ref(), patience).map(Plain::Tcp)
            }
        };
        connected.map_err(|error| {
            let text = format!("connect to {}: {}", server.with_port(), connect::reason(&error));
            Failure::local(Dsn::new(4, 4, 1), text)
        })
    }

    fn converse(&mut self, target: &Target<'_>, candidate: &Candidate, plain: Plain) -> Conversed {
        let client = self.client;
        let server = candidate.server.clone();
        let mut conversation = Conversation::new(plain, server, client);
        conversation.is_best = candidate.is_best;
        let opening = Opening {
            client,
            request: self.request(),
            target,
            policy: &candidate.policy,
            detects_loops: client.settings.protocol == Protocol::Smtp && target.port == SMTP_PORT,
        };
        match opening.open(&mut conversation) {
            Ok(()) => {}
            Err(Refusal::WithoutTls) => return Conversed::WithoutTls,
            Err(Refusal::Failed(failure)) => {
                self.fail_site(&failure, &mut conversation);
                self.end(conversation);
                return Conversed::Refused;
            }
        }
        // No session comes after this one.
        self.final_server |= self.final_place && candidate.is_last_session;
        self.results.set_up();
        transaction::run(self, &mut conversation);
        self.leave(target, conversation);
        Conversed::Listened
    }

    /// Sends the message over a session that was kept, if it is still alive.
    pub(crate) fn use_again(&mut self, target: &Target<'_>, mut conversation: Conversation) -> bool {
        self.results.reusing(conversation.uses + 1);
        self.results.set_up();
        if !transaction::run_again(self, &mut conversation) {
            self.results.connecting();
            conversation.quit(false);
            return false;
        }
        self.leave(target, conversation);
        true
    }

    /// Keeps the session, or ends it.
    fn leave(&self, target: &Target<'_>, mut conversation: Conversation) {
        if !target.keeps {
            return self.end(conversation);
        }
        let (transcript, server) = (conversation.transcript.split(), conversation.server.with_port());
        if let Err(left) = self.client.cache.keep(target.key.clone(), conversation) {
            left.quit(!self.client.settings.skip_quit_response);
        }
        self.tell_postmaster(&transcript, &server);
    }

    /// Ends the session.
    fn end(&self, conversation: Conversation) {
        let server = conversation.server.with_port();
        let transcript = conversation.quit(!self.client.settings.skip_quit_response);
        self.tell_postmaster(&transcript, &server);
    }
}
