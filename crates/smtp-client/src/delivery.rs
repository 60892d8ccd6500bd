//! One delivery: the places of the next hop and the fallback relays, in their order, until each recipient has a final
//! answer; and who is failed how.
//!
//! What may pass is left to the next server, if there is one; what the last one says counts. RFC 5321 section 5.1.

use ipc::agent::{Request, SiteFailure};
use ipc::log;
use mail::{Dsn, Outcome};
use net::dns::mail_hosts::Place as Sought;
use net::tls::client::{Level, Policy};
use service::transcript::{Ended, PROTOCOL, Transcript};
use service::{Delivery, Results};
use smtp_proto::client::Protocol;

use crate::agent::Client;
use crate::cache::{Identity, Key, Sought as Cached};
use crate::conversation::Conversation;
use crate::destination::Destination;
use crate::failure::Failure;

/// A delivery on its way.
pub(crate) struct Attempt<'a, 'r> {
    pub(crate) client: &'a Client,
    pub(crate) delivery: &'a Delivery,
    pub(crate) results: &'a mut Results<'r>,
    /// Why the last place or host did not serve; what those get that nobody served.
    pub(crate) why: Option<Why>,
    /// No server comes after this one: what may pass is deferred, not left to another.
    pub(crate) final_server: bool,
    /// No place comes after this one.
    pub(crate) final_place: bool,
    /// What the queue manager is told of the destination.
    site: Option<SiteFailure>,
}

/// A failure, and whose it was.
pub(crate) struct Why {
    failure: Failure,
    /// `none` where no connection came about.
    relay: String,
    /// The server's, not the message's.
    site: bool,
}

/// A place with what it takes to go there.
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a Destination,
    /// Its name without brackets and port.
    pub(crate) name: String,
    pub(crate) port: u16,
    /// What is asked of the TLS of its servers, as far as that does not depend on which of them it is.
    pub(crate) policy: Policy,
    /// What its sessions are kept under.
    pub(crate) key: Key,
    /// Whether sessions are kept.
    pub(crate) keeps: bool,
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
            if self.is_decided() || self.final_place {
                break;
            }
            last = number;
            self.final_place = number + 1 == places.len();
            let tried = match place {
                Ok(place) => self.try_place(place),
                Err(fault) => {
                    log::warning!("next hop {}: {}; {}", self.request().nexthop, fault.what, fault.remedy);
                    Err(Failure::local(Dsn::new(4, 3, 5), fault.what.clone()))
                }
            };
            if let Err(failure) = tried {
                self.unreachable(failure);
            }
        }
        self.give_up(last >= own);
        self.site
    }

    /// Whether every recipient has its outcome.
    pub(crate) fn is_decided(&self) -> bool {
        self.results.undecided().is_empty()
    }

    /// No connection came about.
    pub(crate) fn unreachable(&mut self, failure: Failure) {
        self.why = Some(Why { failure, relay: "none".to_owned(), site: true });
    }

    fn try_place(&mut self, destination: &Destination) -> Result<(), Failure> {
        let target = self.target(destination)?;
        let Destination::Inet { host, port, literal } = destination else {
            self.final_server = self.final_place;
            self.try_socket(&target);
            return Ok(());
        };
        let mut visited = Vec::new();
        while !self.is_decided()
            && let Some(conversation) = self.client.cache.take(Cached::Best(&target.key))
        {
            // Other servers may come after it.
            self.final_server = false;
            let server = conversation.server.with_port();
            if self.use_again(&target, conversation) {
                // It was kept again: what it did not take now, it is not asked again.
                visited.push(server);
                break;
            }
        }
        if self.is_decided() {
            return Ok(());
        }
        let service = port.as_ref().map_or(&self.client.settings.port, |port| &port.written);
        let sought = Sought { name: host, literal: *literal, service, port: target.port };
        match self.client.hosts.find(&sought) {
            Ok(hosts) => {
                self.try_hosts(&target, &hosts, &visited);
                Ok(())
            }
            Err(error) => {
                // Another place would only send it back here.
                self.final_place |= error.is_loop;
                Err(Failure { is_loop: error.is_loop, ..Failure::local(error.dsn, error.text) })
            }
        }
    }

    fn target<'d>(&self, destination: &'d Destination) -> Result<Target<'d>, Failure> {
        let client = self.client;
        let port = match destination {
            Destination::Inet { port: Some(port), .. } => port.number,
            Destination::Inet { port: None, .. } => client.settings.port_number,
            Destination::Unix(_) => 0,
        };
        let (name, shown) = (destination.name(), destination.to_string());
        let policy = match destination {
            Destination::Inet { .. } => client.tls.policy(&shown),
            Destination::Unix(_) => client.tls.policy_of_level(Level::None),
        };
        let policy = policy.map_err(|error| {
            log::warning!("TLS policy lookup for {shown}: {error}");
            Failure::local(Dsn::new(4, 7, 5), "client TLS configuration problem")
        })?;
        let always = self.client.cache_always.matches(&name).unwrap_or_else(|error| {
            log::warning!("{error}");
            false
        });
        let key = Key { identity: self.identity(&policy, &name, &shown), destination: shown };
        let keeps = client.cache.note(&key.destination, always)
            && (policy.level == Level::None
                || policy.connection_reuse
                || !client.settings.tls_reuse_by_policy);
        Ok(Target { destination, name, port, policy, key, keeps })
    }

    fn identity(&self, policy: &Policy, name: &str, destination: &str) -> Identity {
        let login =
            self.client.logins.as_ref().map(|logins| logins.scope(&self.request().sender, destination));
        // Names that a certificate must have may be those of the next hop.
        let nexthop = if policy.level.must_match() { name } else { "" };
        let (login, nexthop) = (login.unwrap_or_default(), nexthop.to_owned());
        Identity { login, nexthop, policy: policy.clone() }
    }

    /// The server itself failed all recipients that have no answer.
    pub(crate) fn fail_site(&mut self, failure: &Failure, conversation: &mut Conversation) {
        let positions = self.results.undecided();
        self.fail(failure, conversation, &positions, true);
    }

    /// Fails these recipients, or leaves them to the next server. `site`: because of the server, not the message.
    pub(crate) fn fail(
        &mut self,
        failure: &Failure,
        conversation: &mut Conversation,
        positions: &[usize],
        site: bool,
    ) {
        if positions.is_empty() {
            return;
        }
        if failure.breaks_protocol {
            conversation.transcript.note(PROTOCOL);
        }
        let relay = conversation.server.with_port();
        if failure.is_temporary() && !self.final_server {
            log::info!("{}: {}", self.request().id, failure.text);
            self.why = Some(Why { failure: failure.clone(), relay, site });
            return;
        }
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
        let Why { mut failure, relay, site } = self.why.take().unwrap_or_else(|| Why {
            failure: Failure::local(Dsn::new(4, 3, 0), "server unavailable or unable to receive mail"),
            relay: "none".to_owned(),
            site: true,
        });
        if failure.is_loop && !by_fallback && !failure.is_temporary() && self.pass_on() {
            return;
        }
        if !failure.is_temporary() {
            // What an operator can mend is no reason to return mail.
            let mended_by = if by_fallback {
                Some("smtp_fallback_relay")
            } else {
                (settings.protocol == Protocol::Smtp && self.request().nexthop == settings.relayhost)
                    .then_some("relayhost")
            };
            if let Some(parameter) = mended_by {
                log::warning!("{parameter} configuration problem");
                failure.dsn = Dsn::new(4, 3, 5);
            }
        }
        if site && failure.is_temporary() {
            self.note_site(&failure);
        }
        for position in left {
            self.results.give(position, failure.outcome(&relay));
        }
    }

    /// Has `best_mx_transport` deliver what this host is the best one for. Whether there is one.
    fn pass_on(&mut self) -> bool {
        let settings = &self.client.settings;
        let route = &settings.best_mx_transport;
        let is_relayhost =
            settings.protocol == Protocol::Smtp && self.request().nexthop == settings.relayhost;
        if route.is_empty() || is_relayhost {
            return false;
        }
        let (transport, nexthop) = route.split_once(':').unwrap_or((route, ""));
        let mut request = self.request().clone();
        if !nexthop.is_empty() {
            nexthop.clone_into(&mut request.nexthop);
        }
        let left = self.results.undecided();
        let all = std::mem::take(&mut request.recipients);
        request.recipients = left.iter().filter_map(|position| all.get(*position).cloned()).collect();
        for recipient in &request.recipients {
            log::info!("{}: passing <{}> to transport={transport}", request.id, recipient.address);
        }
        let results = &mut *self.results;
        let give = |index, outcome: Outcome| {
            let position = all.iter().position(|recipient| recipient.index == index);
            position.into_iter().for_each(|position| results.give(position, outcome.clone()));
        };
        // A mailbox may rely on the order of a journal, which the queue manager reckons with for local transports only.
        let passed = self.delivery.keep().and_then(|()| {
            service::pass::deliver(&settings.queue_directory, transport, &request, self.delivery, give)
        });
        if let Err(error) = passed {
            let reason = config::cause(&error);
            let failure = Failure::local(
                Dsn::new(4, 3, 0),
                format!("mail transport {transport} unavailable: {reason}"),
            );
            for position in self.results.undecided() {
                self.results.give(position, failure.outcome("none"));
            }
        }
        true
    }

    /// Tells the postmaster of a session in which the protocol was broken, unless the message is a notice itself.
    pub(crate) fn tell_postmaster(&self, transcript: &Transcript, server: &str) {
        let notices = &self.client.notices;
        let sender = &self.request().sender;
        if sender.is_null() || notices.is_sender(sender) {
            return;
        }
        let program =
            if self.client.settings.protocol == Protocol::Smtp { "SMTP client" } else { "LMTP client" };
        let before = format!("Unexpected response from {server}.\n\n");
        let ended = Ended { program, peer: server, before: &before, after: "" };
        notices.tell(transcript, &ended, &self.client.cleanup);
    }
}
