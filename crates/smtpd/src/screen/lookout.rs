//! The thread that holds the clients under test.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipc::log;
use net::dns::{Answer, DnsError, Resolver};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use service::{Connection, Fatal, Lifecycle, Listener, Sessions, Stream, accept_one};
use smtp_proto::parameter::Extensions;

use super::access::Verdict;
use super::encrypted;
use super::passed::Passed;
use super::peer::{Peer, Shown, Stage, Tests};
use super::refusing::{Refusing, with_footer};
use super::settings::{Action, Settings};
use super::turn::{Turn, escaped, turn};
use crate::Servers;
use crate::proxy::{self, Header};
use crate::tls::Tls;
use crate::wire::{Lost, Wire};

/// What a client is told whose tests are no reason to refuse it for good.
const COME_AGAIN: &str = "450 4.3.2 Service currently unavailable";

/// Before the greeting, in the log.
const EARLY: &str = "tests before SMTP handshake";
/// What a thread needs that talks to one client.
const STACK: usize = 512 * 1024;

/// Behind it.
const LATE: &str = "tests after SMTP handshake";

/// A block list's answer: about which client, which zone, what it says.
type ListAnswer = (u64, IpAddr, String, Result<Answer<Vec<IpAddr>>, DnsError>);

pub(super) struct Lookout {
    settings: Arc<Settings>,
    servers: Arc<Servers>,
    sessions: Sessions,
    lifecycle: Arc<Lifecycle>,
    dns: Resolver,
    peers: HashMap<u64, Peer>,
    next: u64,
    /// How many connections of each client are under test.
    counts: HashMap<IpAddr, usize>,
    /// Clients that have passed, while there are as many sessions as there may be.
    waiting: VecDeque<Connection>,
    answered: Sender<ListAnswer>,
    answers: Receiver<ListAnswer>,
    /// How many clients are refused encrypted, on threads of their own, and who of them has gone.
    encrypted: usize,
    gone: Sender<IpAddr>,
    left: Receiver<IpAddr>,
    stress: bool,
    cleaned: Instant,
    blogger: Arc<str>,
}

impl Lookout {
    pub(super) fn new(
        settings: Settings,
        sessions: Sessions,
        lifecycle: Arc<Lifecycle>,
        servers: Arc<Servers>,
    ) -> Self {
        let ((answered, answers), (gone, left)) = (channel(), channel());
        let blogger = format!("{}/dnsblog", settings.syslog_name).into();
        Self {
            settings: Arc::new(settings),
            sessions,
            lifecycle,
            dns: servers.calm.names.dns().clone(),
            servers,
            peers: HashMap::new(),
            next: 0,
            counts: HashMap::new(),
            waiting: VecDeque::new(),
            answered,
            answers,
            encrypted: 0,
            gone,
            left,
            stress: false,
            cleaned: Instant::now(),
            blogger,
        }
    }

    /// Serves until the service drains. Who is under test then may finish it, unless the mail system stops.
    pub(super) fn serve(mut self, listeners: Vec<Listener>) -> Result<(), Fatal> {
        loop {
            let draining = self.lifecycle.draining();
            if draining && (self.lifecycle.stopping() || self.peers.len() + self.encrypted == 0) {
                break;
            }
            self.feed_sessions();
            let open = if draining { &[][..] } else { &listeners[..] };
            let (knocking, speaking) = self.wait(open)?;
            for listener in knocking {
                if let Some(connection) = accept_one(&open[listener]) {
                    self.arrived(connection);
                }
            }
            self.take_answers();
            self.take_leave();
            for number in speaking {
                self.spoke(number);
            }
            self.expire();
            self.note_stress();
            self.clean_up_if_due();
        }
        for peer in std::mem::take(&mut self.peers).into_values() {
            let _ = peer.say("421 4.3.2 Service currently unavailable\r\n");
            peer.close();
        }
        while let Some(connection) = self.waiting.pop_front() {
            self.sessions.start(connection);
        }
        self.sessions.drain(listeners)
    }

    fn feed_sessions(&mut self) {
        while !self.sessions.are_full()
            && let Some(connection) = self.waiting.pop_front()
        {
            self.sessions.start(connection);
        }
    }

    /// Waits until somebody connects, speaks or has waited long enough.
    fn wait(&self, listeners: &[Listener]) -> Result<(Vec<usize>, Vec<u64>), Fatal> {
        let now = Instant::now();
        let soon = self.peers.values().map(|peer| peer.deadline.saturating_duration_since(now)).min();
        // A second at most, so that a lost wake-up costs no more than that.
        let wait = soon.map_or(Duration::from_secs(1), |soon| soon.min(Duration::from_secs(1)));
        let heard: Vec<(u64, &Peer)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_heard())
            .map(|(number, peer)| (*number, peer))
            .collect();
        let descriptors = listeners.iter().map(AsFd::as_fd).chain([self.lifecycle.wake_descriptor()]);
        let descriptors = descriptors.chain(heard.iter().map(|(_, peer)| peer.as_fd()));
        let mut wanted: Vec<PollFd<'_>> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Rounded up, so that a deadline is over when the wait is.
        let millis = u16::try_from(wait.as_millis() + 1).unwrap_or(1000);
        match poll(&mut wanted, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Fatal::new(format!("poll: {error}"))),
        }
        let ready = |at: usize| wanted[at].revents().is_some_and(|events| !events.is_empty());
        if ready(listeners.len()) {
            self.lifecycle.quiet();
        }
        let knocking = (0..listeners.len()).filter(|at| ready(*at)).collect();
        let first = listeners.len() + 1;
        let speaking =
            heard.iter().enumerate().filter(|(at, _)| ready(first + at)).map(|(_, (number, _))| *number);
        Ok((knocking, speaking.collect()))
    }

    fn arrived(&mut self, connection: Connection) {
        if matches!(connection.stream.as_ref(), Stream::Unix(_)) {
            return self.waiting.push_back(connection);
        }
        let now = Instant::now();
        let mut peer = Peer::new(connection, now);
        match self.settings.proxy_timeout {
            Some(timeout) => {
                peer.stage = Stage::Proxy(Vec::new());
                peer.deadline = now + timeout;
                self.put(peer);
            }
            None => self.begin(peer),
        }
    }

    fn put(&mut self, peer: Peer) -> u64 {
        self.next += 1;
        *self.counts.entry(peer.ip).or_default() += 1;
        self.peers.insert(self.next, peer);
        self.next
    }

    fn take(&mut self, number: u64) -> Option<Peer> {
        let peer = self.peers.remove(&number)?;
        self.forget(peer.ip);
        Some(peer)
    }

    /// There is one connection less of this client.
    fn forget(&mut self, ip: IpAddr) {
        if let Some(count) = self.counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&ip);
            }
        }
    }

    /// Looks at a client for the first time.
    fn begin(&mut self, peer: Peer) {
        let settings = &self.settings;
        let local = peer.connection.local.map(Shown);
        log::screening(&peer.shown, &local.map(|local| local.to_string()).unwrap_or_default());
        if let Some(reply) = self.servers.calm.limits.banned(peer.ip) {
            return turn_away(settings, peer, "banned", &reply.to_string());
        }
        let count = self.counts.get(&peer.ip).copied().unwrap_or_default() + 1;
        if settings.count_limit > 0 && count > settings.count_limit {
            return turn_away(
                settings,
                peer,
                "too many connections",
                "421 4.7.0 Error: too many connections",
            );
        }
        if settings.post_queue_limit > 0 && self.waiting.len() >= settings.post_queue_limit {
            return turn_away(settings, peer, "all server ports busy", "421 4.3.2 All server ports are busy");
        }
        let mut tests = Tests::default();
        match settings.access.verdict(peer.ip) {
            Verdict::Permit => {
                log::screened(&format!("{}LISTED", settings.words.0), &peer.shown);
                return self.pass(peer);
            }
            Verdict::Reject => {
                log::screened(&format!("{}LISTED", settings.words.1), &peer.shown);
                match settings.denylist_action {
                    Action::Drop => {
                        return drop_with(settings, peer, "521 5.3.2 Service currently unavailable");
                    }
                    Action::Enforce => {
                        tests.refusal = Some("550 5.3.2 Service currently unavailable".to_owned());
                    }
                    Action::Ignore => {}
                }
            }
            Verdict::Dunno => {}
        }
        self.remember(&peer, &mut tests);
        let is_bad = tests.refusal.is_some();
        if !is_bad && !tests.greeting && !tests.block_lists {
            if !tests.is_new {
                log::screened("PASS OLD", &peer.shown);
            }
            return self.pass(peer);
        }
        let local = peer.connection.local.map(|local| local.ip().to_canonical());
        if local.is_some_and(|local| !self.settings.own_addresses.matches_host("", local).unwrap_or(true)) {
            log::screened(&format!("{}LIST VETO", self.settings.words.0), &peer.shown);
            tests.vetoed = true;
        }
        if self.settings.pre_queue_limit > 0
            && self.peers.len() + self.encrypted >= self.settings.pre_queue_limit
        {
            return turn_away(
                &self.settings,
                peer,
                "all screening ports busy",
                "421 4.3.2 All screening ports are busy",
            );
        }
        self.test(peer, tests);
    }

    /// What is known of a client from earlier, and which tests are left.
    fn remember(&self, peer: &Peer, tests: &mut Tests) {
        let kept = self.settings.cache.get(&peer.ip.to_string()).unwrap_or_else(|error| {
            log::warning!("postscreen_cache_map: {error}");
            None
        });
        let kept = kept.and_then(|value| Passed::from_value(&value));
        let now = seconds_now();
        tests.is_new = kept.is_none();
        tests.passed = kept.unwrap_or_default();
        tests.greeting = !self.settings.greet_banner.is_empty() && tests.passed.greeting <= now;
        tests.block_lists = !self.settings.block_lists.are_none() && tests.passed.block_lists <= now;
    }

    fn test(&mut self, mut peer: Peer, mut tests: Tests) {
        if tests.greeting && !peer.say(&format!("220-{}\r\n", self.settings.greet_banner)) {
            return hang_up(peer, EARLY);
        }
        peer.deadline = peer.began + self.settings.greet_wait.with(self.stress);
        let questions = match tests.block_lists {
            true => self.settings.block_lists.questions(peer.ip),
            false => Vec::new(),
        };
        tests.score.awaited = questions.len();
        peer.stage = Stage::Tests(tests);
        let ip = peer.ip;
        let number = self.put(peer);
        for (zone, query) in questions {
            let (answered, lifecycle) = (self.answered.clone(), Arc::clone(&self.lifecycle));
            let (asked, name) = (zone.clone(), query.clone());
            let then = move |answer| {
                // A lookout that has ended wants no answer.
                let _ = answered.send((number, ip, asked, answer));
                lifecycle.wake();
            };
            if let Err(error) = self.dns.ipv4_then(&name, then) {
                let _ = self.answered.send((number, ip, zone, Err(error)));
                self.lifecycle.wake();
            }
        }
    }

    fn take_answers(&mut self) {
        while let Ok((number, ip, zone, answer)) = self.answers.try_recv() {
            let answer = self.note(ip, &zone, answer);
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            let Stage::Tests(tests) = &mut peer.stage else { continue };
            let in_time = peer.began.elapsed() <= self.settings.block_list_timeout;
            self.settings.block_lists.add(&mut tests.score, &zone, answer.as_ref().filter(|_| in_time));
            let is_good =
                self.settings.allow_threshold < 0 && tests.score.total <= self.settings.allow_threshold;
            let is_done = tests.score.awaited == 0 && (!tests.greeting || tests.spoke || is_good);
            if is_done {
                self.judge(number);
            }
        }
    }

    /// Logs what a list says, also of a client that is gone by now.
    fn note(
        &self,
        ip: IpAddr,
        zone: &str,
        answer: Result<Answer<Vec<IpAddr>>, DnsError>,
    ) -> Option<Answer<Vec<IpAddr>>> {
        log::speak_as(Some(Arc::clone(&self.blogger)));
        match &answer {
            Ok(answer) => {
                for found in &answer.value {
                    log::info!("addr {ip} listed by domain {zone} as {found}");
                }
            }
            Err(error) if error.is_absence() => {}
            Err(error) => {
                log::warning!("dnsblog_query: lookup error for DNS query of {ip} in {zone}: {error}")
            }
        }
        log::speak_as(None);
        answer.ok()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| peer.deadline <= now).map(|(number, _)| *number).collect();
        for number in over {
            let Some(peer) = self.peers.get(&number) else { continue };
            match &peer.stage {
                Stage::Tests(_) => self.judge(number),
                Stage::Proxy(_) => {
                    let Some(peer) = self.take(number) else { continue };
                    log::warning!("haproxy read: timeout error from {}", peer.shown);
                    peer.close();
                }
                Stage::Refused(_) => {
                    let Some(peer) = self.take(number) else { continue };
                    log::info!("COMMAND TIME LIMIT from {} after CONNECT", peer.shown);
                    drop_with(&self.settings, peer, &timed_out(&self.settings));
                }
            }
        }
    }

    /// A client has said something, or is gone.
    fn spoke(&mut self, number: u64) {
        let Some(peer) = self.peers.get(&number) else { return };
        match &peer.stage {
            Stage::Proxy(_) => self.heard_proxy(number),
            Stage::Tests(_) => self.heard_early(number),
            Stage::Refused(_) => self.heard_late(number),
        }
    }

    /// Reads the header byte by byte: what comes behind it is the client's.
    fn heard_proxy(&mut self, number: u64) {
        loop {
            let Some(peer) = self.peers.get_mut(&number) else { return };
            let mut byte = [0];
            let Some(read) = peer.read(&mut byte, false).map(<[u8]>::len) else { return };
            let Stage::Proxy(header) = &mut peer.stage else { return };
            if read == 0 {
                let Some(peer) = self.take(number) else { return };
                return peer.close();
            }
            header.push(byte[0]);
            let parsed = proxy::read(&mut header.as_slice());
            if matches!(&parsed, Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof) {
                continue;
            }
            let Some(mut peer) = self.take(number) else { return };
            match parsed {
                Ok(Header::Proxied(from, to)) => peer.is_from(from, to),
                Ok(Header::Local) => {}
                Err(error) => {
                    log::warning!("connection from {}: {error}", peer.shown);
                    return peer.close();
                }
            }
            peer.began = Instant::now();
            return self.begin(peer);
        }
    }

    /// Before the greeting it is not the client's turn.
    fn heard_early(&mut self, number: u64) {
        let mut buffer = [0; 1024];
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Some(said) = peer.read(&mut buffer, true) else { return };
        if said.is_empty() {
            return self.lost(number, EARLY);
        }
        log::pregreeted(said.len(), peer.began.elapsed(), &peer.shown, &escaped(said));
        let Stage::Tests(tests) = &mut peer.stage else { return };
        tests.spoke = true;
        let waits_for_lists = tests.score.awaited > 0;
        match self.settings.greet_action {
            Action::Drop => {
                let Some(peer) = self.take(number) else { return };
                return drop_with(&self.settings, peer, "521 5.5.1 Protocol error");
            }
            Action::Enforce => tests.refusal = Some("550 5.5.1 Protocol error".to_owned()),
            Action::Ignore => {}
        }
        if !waits_for_lists {
            self.judge(number);
        }
    }

    fn lost(&mut self, number: u64, during: &str) {
        if let Some(peer) = self.take(number) {
            hang_up(peer, during);
        }
    }

    /// The tests before the greeting are over.
    fn judge(&mut self, number: u64) {
        let Some(mut peer) = self.take(number) else { return };
        let Stage::Tests(tests) = &mut peer.stage else { return };
        let now = seconds_now();
        let settings = &self.settings;
        let is_good = tests.block_lists
            && settings.allow_threshold < 0
            && tests.score.total <= settings.allow_threshold;
        let mut passed_all = true;
        let list_ttl = settings.block_lists.ttl_of(&tests.score).as_secs();
        if tests.greeting && !tests.spoke {
            let ttl = if is_good { list_ttl } else { settings.greet_ttl.as_secs() };
            tests.passed.greeting = now.saturating_add(ttl);
        } else if tests.greeting {
            passed_all = false;
        }
        if tests.block_lists && tests.score.total < settings.threshold {
            tests.passed.block_lists = now.saturating_add(list_ttl);
        } else if tests.block_lists {
            passed_all = false;
            log::screened(&format!("DNSBL rank {} for", tests.score.total), &peer.shown);
            let name = settings.block_lists.name_for(&tests.score);
            let text = format!("5.7.1 Service unavailable; client [{}] blocked using {name}", peer.ip);
            match settings.block_list_action {
                Action::Drop => return drop_with(settings, peer, &format!("521 {text}")),
                Action::Enforce => tests.refusal = Some(format!("550 {text}")),
                Action::Ignore => {}
            }
        }
        if tests.refusal.is_some() || tests.vetoed {
            let refusal = tests.refusal.take().unwrap_or_else(|| COME_AGAIN.to_owned());
            return self.refuse(peer, refusal);
        }
        let tested = tests.greeting || tests.block_lists;
        if tested && passed_all {
            log::screened(if tests.is_new { "PASS NEW" } else { "PASS OLD" }, &peer.shown);
        }
        if tests.passed != Passed::default()
            && let Err(error) = settings.cache.put(&peer.ip.to_string(), &tests.passed.to_value())
        {
            log::warning!("postscreen_cache_map: {error}");
        }
        self.pass(peer);
    }

    fn refuse(&mut self, mut peer: Peer, refusal: String) {
        if !peer.say(&format!("220 {}\r\n", self.settings.greeting)) {
            return hang_up(peer, LATE);
        }
        let refusal = if self.settings.soft_bounce { softened(&refusal) } else { refusal };
        let address = peer.ip.to_string();
        let mut offered = self.settings.offered_to(&address);
        if self.servers.calm.tls.is_none() {
            offered = offered.without(Extensions::STARTTLS);
        }
        let dialogue = Refusing::new(&self.settings, (&address, peer.shown.0.port()), offered, refusal);
        peer.stage = Stage::Refused(Box::new(dialogue));
        peer.deadline = Instant::now() + self.settings.command_time_limit.with(self.stress);
        self.put(peer);
    }

    /// A client that has failed goes on.
    fn heard_late(&mut self, number: u64) {
        let mut buffer = [0; 1024];
        let deadline = Instant::now() + self.settings.command_time_limit.with(self.stress);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Some(said) = peer.read(&mut buffer, false) else { return };
        let Stage::Refused(dialogue) = &mut peer.stage else { return };
        if said.is_empty() {
            return self.lost(number, LATE);
        }
        dialogue.heard(said);
        loop {
            let Stage::Refused(dialogue) = &mut peer.stage else { return };
            let turn = turn(dialogue, &peer.shown);
            if matches!(turn, Turn::Wait) {
                return;
            }
            peer.deadline = deadline;
            match turn {
                Turn::Wait => return,
                Turn::Say(reply) if peer.say(&reply) => {}
                Turn::Say(_) => return self.lost(number, LATE),
                Turn::StartTls(reply) => return self.encrypt(number, &reply),
                Turn::End(reply) => {
                    let Some(peer) = self.take(number) else { return };
                    return end(peer, &reply);
                }
            }
        }
    }

    /// A client that has failed goes on encrypted. It counts as one under test until it is gone.
    fn encrypt(&mut self, number: u64, reply: &str) {
        let Some(mut peer) = self.peers.remove(&number) else { return };
        let ip = peer.ip;
        let (servers, settings) = (Arc::clone(&self.servers), Arc::clone(&self.settings));
        let (gone, lifecycle) = (self.gone.clone(), Arc::clone(&self.lifecycle));
        let limit = settings.command_time_limit.with(self.stress);
        let said = peer.say(reply);
        let talk = move || {
            let stage = std::mem::replace(&mut peer.stage, Stage::Proxy(Vec::new()));
            if let (Stage::Refused(mut dialogue), Some(tls), true) = (stage, &servers.calm.tls, said) {
                refuse_encrypted(&settings, tls, &peer, &mut dialogue, limit);
            }
            log::screened("DISCONNECT", &peer.shown);
            peer.close();
            // A lookout that has ended counts nobody.
            let _ = gone.send(ip);
            lifecycle.wake();
        };
        self.encrypted += 1;
        if let Err(error) = std::thread::Builder::new().stack_size(STACK).spawn(talk) {
            log::warning!("start a thread for TLS: {error}; the client is turned away");
            self.forget(ip);
            self.encrypted -= 1;
        }
    }

    /// Clients that were refused encrypted are gone.
    fn take_leave(&mut self) {
        while let Ok(ip) = self.left.try_recv() {
            self.forget(ip);
            self.encrypted -= 1;
        }
    }

    /// A client gets its session.
    fn pass(&mut self, peer: Peer) {
        self.waiting.push_back(peer.connection);
    }

    /// With seven tenths of the places free again, there is time for everybody.
    fn note_stress(&mut self) {
        let (count, limit) = (self.peers.len() + self.encrypted, self.settings.pre_queue_limit);
        if !self.stress && limit > 0 && count * 10 >= limit * 9 {
            self.stress = true;
            log::info!("entering STRESS mode with {count} connections");
        } else if self.stress && count * 10 <= limit * 7 {
            self.stress = false;
            log::info!("leaving STRESS mode with {count} connections");
        }
    }

    fn clean_up_if_due(&mut self) {
        let interval = self.settings.cache_cleanup;
        if interval.is_zero() || self.cleaned.elapsed() < interval {
            return;
        }
        self.cleaned = Instant::now();
        let oldest = seconds_now().saturating_sub(self.settings.cache_retention.as_secs());
        let counts = |value: &str| Passed::from_value(value).is_some_and(|passed| passed.last() >= oldest);
        let name = &self.settings.cache_name;
        match self.settings.cache.retain(|_, value| counts(value)) {
            Ok((left, dropped)) => {
                log::info!("cache {name} full cleanup: retained={left} dropped={dropped} entries");
            }
            Err(error) => log::warning!("postscreen_cache_map: {error}"),
        }
    }
}

fn turn_away(settings: &Settings, peer: Peer, why: &str, reply: &str) {
    log::info!("NOQUEUE: reject: CONNECT from {}: {why}", peer.shown);
    drop_with(settings, peer, reply);
}

/// Ends with a reply that no dialogue has made.
fn drop_with(settings: &Settings, peer: Peer, reply: &str) {
    let rules = settings.site.rules_for(&peer.ip.to_string(), peer.shown.0.port());
    end(peer, &with_footer(rules.as_deref(), reply));
}

/// The dialogue behind STARTTLS, until it is over.
fn refuse_encrypted(settings: &Settings, tls: &Tls, peer: &Peer, dialogue: &mut Refusing, limit: Duration) {
    let Ok(mut wire) = Wire::new(&peer.connection.stream, encrypted::patience(limit)) else { return };
    let ended = encrypted::converse(tls, &mut wire, dialogue, (&peer.shown, &settings.syslog_name));
    match ended {
        Ok(()) => {}
        Err(Lost::Connection) => log::hung_up(peer.began.elapsed(), &peer.shown, LATE),
        Err(Lost::Patience) => {
            log::info!("COMMAND TIME LIMIT from {} after CONNECT", peer.shown);
            wire.hurry();
            // Whoever does not hear it is gone anyway.
            let _ = wire.write(dialogue.wire(&timed_out(settings)).as_bytes());
        }
    }
}

fn timed_out(settings: &Settings) -> String {
    format!("421 4.4.2 {} Error: timeout exceeded", settings.hostname)
}

/// Ends with this, which is ready for the wire.
fn end(peer: Peer, reply: &str) {
    // Whoever does not hear it is gone anyway.
    let _ = peer.say(reply);
    log::screened("DISCONNECT", &peer.shown);
    peer.close();
}

fn hang_up(peer: Peer, during: &str) {
    log::hung_up(peer.began.elapsed(), &peer.shown, during);
    log::screened("DISCONNECT", &peer.shown);
    peer.close();
}

/// `550 5.7.1 …` as `450 4.7.1 …`.
fn softened(reply: &str) -> String {
    match (reply.strip_prefix('5'), reply.get(4..)) {
        (Some(_), Some(rest)) => {
            format!(
                "4{} {}",
                &reply[1..3],
                rest.strip_prefix('5').map_or_else(|| rest.to_owned(), |r| format!("4{r}"))
            )
        }
        _ => reply.to_owned(),
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_can_be_softened() {
        assert_eq!(softened("550 5.7.1 no"), "450 4.7.1 no");
        assert_eq!(softened("450 4.3.2 later"), "450 4.3.2 later");
    }
}
