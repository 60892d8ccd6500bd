//! One delivery: places, hosts and addresses are tried in their order, until each recipient has a final answer.
//!
//! What may pass is left to the next server, if there is one; what the last one says counts. RFC 5321 section 5.1.

use std::net::SocketAddr;
use std::path::Path;

use ipc::agent::{Request, SiteFailure};
use ipc::log;
use mail::Dsn;
use net::dns::mail_hosts::{MailHost, MailHosts, Place as Sought};
use net::tls::client::{Level, Policy};
use service::{Delivery, Results};
use smtp_proto::client::Protocol;

use crate::agent::Client;
use crate::connect;
use crate::conversation::Conversation;
use crate::destination::Destination;
use crate::failure::Failure;
use crate::opening::{Opening, Refusal};
use crate::server::{Place, Server};
use crate::stream::Plain;
use crate::transaction;

/// The port where mail loops are looked for: a conversation with oneself on another is one with a filter.
const SMTP_PORT: u16 = 25;

/// A delivery on its way.
pub(crate) struct Attempt<'a, 'r> {
    pub(crate) client: &'a Client,
    pub(crate) delivery: &'a Delivery,
    pub(crate) results: &'a mut Results<'r>,
    /// Why the last place or host did not serve; what those get that nobody served.
    why: Option<Failure>,
    /// No server comes after this one: what may pass is deferred, not left to another.
    final_server: bool,
    /// No place comes after this one.
    final_place: bool,
    /// What the queue manager is told of the destination.
    site: Option<SiteFailure>,
}

/// A place with what it takes to go there.
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a Destination,
    /// Its name without brackets and port.
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl<'a, 'r> Attempt<'a, 'r> {
    pub(crate) fn new(client: &'a Client, delivery: &'a Delivery, results: &'a mut Results<'r>) -> Self {
        Self { client, delivery, results, why: None, final_server: false, final_place: false, site: None }
    }

    pub(crate) fn request(&self) -> &'a Request {
        &self.delivery.request
    }

    /// Delivers; the result is whether the destination itself failed.
    pub(crate) fn run(mut self) -> Option<SiteFailure> {
        let lmtp = self.client.settings.protocol == Protocol::Lmtp;
        let mut places = Destination::list(&self.request().nexthop, lmtp);
        let own = places.len();
        let fallback = self.client.settings.fallback_relays.iter();
        places.extend(fallback.map(|place| Destination::parse(place, lmtp)));
        let mut last = 0;
        for (number, place) in places.iter().enumerate() {
            if self.results.undecided().is_empty() || self.final_place {
                break;
            }
            last = number;
            self.final_place = number + 1 == places.len();
            self.try_place(place);
        }
        self.give_up(last >= own);
        self.site
    }

    fn try_place(&mut self, destination: &Destination) {
        match destination {
            Destination::Unix(path) => self.try_unix(destination, path),
            Destination::Inet { host, port, literal } => {
                let service = port.as_deref().unwrap_or(&self.client.settings.port);
                let Some(number) = config::port_number(service) else {
                    let text = format!("unknown port \"{service}\" in destination {destination}");
                    log::warning!("{text}");
                    self.why = Some(Failure::local(Dsn::new(4, 3, 5), text));
                    return;
                };
                let sought = Sought { name: host, literal: *literal, service, port: number };
                match self.client.hosts.find(&sought) {
                    Ok(hosts) => {
                        let target = Target { destination, name: host.clone(), port: number };
                        self.try_hosts(&target, &hosts);
                    }
                    Err(error) => {
                        // Another place would only send it back here.
                        self.final_place |= error.is_loop;
                        let failure = Failure::local(error.dsn, error.text);
                        self.why = Some(Failure { is_loop: error.is_loop, ..failure });
                    }
                }
            }
        }
    }

    fn try_hosts(&mut self, target: &Target<'_>, found: &MailHosts) {
        let settings = &self.client.settings;
        self.final_place |= found.includes_self;
        let best = found.hosts.first().map(|host| host.preference);
        let mut sessions = 0;
        for (number, host) in found.hosts.iter().enumerate() {
            if self.results.undecided().is_empty() {
                return;
            }
            let is_last_session = settings.mx_session_limit > 0 && sessions + 1 >= settings.mx_session_limit;
            let is_last = number + 1 == found.hosts.len();
            self.final_server = self.final_place && is_last;
            let is_best = Some(host.preference) == best;
            let policy = match self.policy(target, host, found) {
                Ok(policy) => policy,
                Err(failure) => {
                    self.why = Some(failure);
                    continue;
                }
            };
            if self.try_host(target, host, policy, is_best, is_last_session) {
                sessions += 1;
                if is_last_session {
                    return;
                }
            }
        }
    }

    /// What is asked of the server's TLS.
    fn policy(&self, target: &Target<'_>, host: &MailHost, _: &MailHosts) -> Result<Policy, Failure> {
        let policy = self.client.tls.policy(&target.destination.to_string()).map_err(|error| {
            log::warning!("TLS policy lookup for {}/{}: {error}", target.name, host.name);
            Failure::local(Dsn::new(4, 7, 5), "client TLS configuration problem")
        })?;
        if self.client.settings.wrappermode && !policy.level.must_encrypt() {
            log::warning!(
                "smtp_tls_wrappermode requires \"smtp_tls_security_level = encrypt\" (or stronger)"
            );
            return Err(Failure::local(Dsn::new(4, 7, 5), "client TLS configuration problem"));
        }
        Ok(policy)
    }

    /// Tries one address, a second time in clear where TLS was only wished for. Whether a server was found to listen.
    fn try_host(
        &mut self,
        target: &Target<'_>,
        host: &MailHost,
        policy: Policy,
        is_best: bool,
        is_last_session: bool,
    ) -> bool {
        let mut policy = policy;
        loop {
            let server = Server { host: host.name.clone(), place: Place::Inet(host.address, host.port) };
            self.results.connecting();
            let plain = match self.connect(&server) {
                Ok(plain) => plain,
                Err(failure) => {
                    log::info!("{}", failure.text);
                    self.why = Some(failure);
                    return false;
                }
            };
            match self.converse(target, server, plain, &policy, is_best, is_last_session) {
                Conversed::Listened => return true,
                Conversed::Refused => return false,
                Conversed::WithoutTls => policy.level = Level::None,
            }
        }
    }

    fn try_unix(&mut self, destination: &Destination, path: &Path) {
        let server =
            Server { host: self.client.settings.myhostname.clone(), place: Place::Unix(path.to_owned()) };
        self.final_server = self.final_place;
        let target = Target { destination, name: destination.name(), port: 0 };
        let policy = match self.client.tls.policy_of_level(Level::None) {
            Ok(policy) => policy,
            Err(error) => {
                log::warning!("{error}");
                return;
            }
        };
        match connect::unix(path, self.client.settings.timeouts.connect) {
            Ok(socket) => {
                self.converse(&target, server, Plain::Unix(socket), &policy, true, true);
            }
            Err(error) => {
                let text = format!("connect to {server}: {}", connect::reason(&error));
                log::info!("{text}");
                self.why = Some(Failure::local(Dsn::new(4, 4, 1), text));
            }
        }
    }

    fn connect(&self, server: &Server) -> Result<Plain, Failure> {
        let Place::Inet(address, port) = server.place else {
            return Err(Failure::local(Dsn::new(4, 4, 1), format!("connect to {server}: no address")));
        };
        let settings = &self.client.settings;
        let source = settings.source_for(address);
        let bound = source.map(|source| (source, connect::bind(source)));
        let bound = match bound {
            Some((source, Err(error))) => {
                log::warning!("bind {source}: {}", connect::reason(&error));
                if settings.bind_enforce {
                    return Err(Failure::local(Dsn::new(4, 4, 0), "server unavailable"));
                }
                None
            }
            Some((_, Ok(bound))) => Some(bound),
            None => None,
        };
        connect::tcp(SocketAddr::new(address, port), bound.as_ref(), settings.timeouts.connect)
            .map(Plain::Tcp)
            .map_err(|error| {
                let text = format!("connect to {}: {}", server.with_port(), connect::reason(&error));
                Failure::local(Dsn::new(4, 4, 1), text)
            })
    }

    fn converse(
        &mut self,
        target: &Target<'_>,
        server: Server,
        plain: Plain,
        policy: &Policy,
        is_best: bool,
        is_last_session: bool,
    ) -> Conversed {
        let client = self.client;
        let discard = client.discarded_keywords(server.address());
        let mut conversation = Conversation::new(plain, server, &client.settings, discard);
        conversation.is_best = is_best;
        let opening = Opening {
            client,
            request: self.request(),
            target,
            policy,
            detects_loops: client.settings.protocol == Protocol::Smtp && target.port == SMTP_PORT,
        };
        match opening.open(&mut conversation) {
            Ok(()) => {}
            Err(Refusal::WithoutTls) => {
                return Conversed::WithoutTls;
            }
            Err(Refusal::Failed(failure)) => {
                self.fail_site(&failure, &conversation);
                conversation.quit(!client.settings.skip_quit_response);
                return Conversed::Refused;
            }
        }
        // No session comes after this one.
        self.final_server |= self.final_place && is_last_session;
        self.results.set_up();
        transaction::run(self, &mut conversation);
        conversation.quit(!client.settings.skip_quit_response);
        Conversed::Listened
    }
}

/// What came of a conversation.
enum Conversed {
    /// The server listened, whatever it said then.
    Listened,
    /// The server did not want to listen.
    Refused,
    /// TLS did not come about, and it may be tried without.
    WithoutTls,
}

/// Who is failed how.
impl Attempt<'_, '_> {
    /// The server itself failed all recipients that have no answer.
    pub(crate) fn fail_site(&mut self, failure: &Failure, conversation: &Conversation) {
        let positions = self.results.undecided();
        self.fail(failure, conversation, &positions, true);
    }

    /// Fails these recipients, or leaves them to the next server. `site`: because of the server, not the message.
    pub(crate) fn fail(
        &mut self,
        failure: &Failure,
        conversation: &Conversation,
        positions: &[usize],
        site: bool,
    ) {
        if positions.is_empty() {
            return;
        }
        self.why = Some(failure.clone());
        if failure.is_temporary() && !self.final_server {
            log::info!("{}: {}", self.request().id, failure.text);
            return;
        }
        let relay = conversation.server.with_port();
        for position in positions {
            self.results.give(*position, failure.outcome(&relay));
        }
        if site && failure.is_temporary() {
            self.note_site(failure);
        }
    }

    fn note_site(&mut self, failure: &Failure) {
        let site = SiteFailure { dsn: failure.dsn, text: failure.text.clone() };
        self.site.get_or_insert(site);
    }

    /// What is left when every place was tried. `by_fallback`: the last one was a fallback relay.
    fn give_up(&mut self, by_fallback: bool) {
        let left = self.results.undecided();
        if left.is_empty() {
            return;
        }
        let settings = &self.client.settings;
        let mut why = self.why.take().unwrap_or_else(|| {
            Failure::local(Dsn::new(4, 3, 0), "server unavailable or unable to receive mail")
        });
        if !why.is_temporary() {
            // What an operator can mend is no reason to return mail.
            let mended_by = if by_fallback {
                Some("smtp_fallback_relay")
            } else {
                (settings.protocol == Protocol::Smtp && self.request().nexthop == settings.relayhost)
                    .then_some("relayhost")
            };
            if let Some(parameter) = mended_by {
                log::warning!("{parameter} configuration problem");
                why.dsn = Dsn::new(4, 3, 5);
            }
        }
        if why.is_temporary() {
            self.note_site(&why);
        }
        for position in left {
            self.results.give(position, why.outcome("none"));
        }
    }
}
