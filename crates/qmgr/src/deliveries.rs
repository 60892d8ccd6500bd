//! Deliveries under way: jobs that the scheduler begins, the agents they are given to, and what comes back.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::{Config, Presence, ServiceEntry, ServiceKind, param};
use ipc::agent::{Reply, RequestRecipient, SiteFailure};
use ipc::log;
use mail::{Address, Dsn, Outcome, QueueId};
use service::Mailbox;

use crate::event_loop::Input;
use crate::limits::Limits;
use crate::link::{Heard, Link};
use crate::message::ActiveMessage;
use crate::pace_record::{PaceRecord, SHORTEST};
use crate::promptness::Promptness;
use crate::routing::Way;
use crate::scheduler::{Ending, Finished, Job, Name, Refusal, Scheduler, Site, Started};

/// How often an agent may go away over a delivery before its recipients are deferred, since it may be their message that
/// ends the agent and others wait behind it; and how often in a row, without a word in between, before there is taken to
/// be no agent.
const MAX_FAILURES: u32 = 3;

/// The programs that deliver to mailboxes of this host.
const MAILBOX_AGENTS: [&str; 2] = ["local", "virtual"];

/// The programs that hand mail to servers, which answer for it then.
const RELAYING_AGENTS: [&str; 2] = ["smtp", "lmtp"];

/// How long a transport rests after its agent went away or could not be reached; master restarts it meanwhile.
const REST: Duration = Duration::from_secs(1);

pub(crate) struct Deliveries {
    scheduler: Scheduler,
    /// The services of master.cf that agents stand behind.
    services: HashMap<String, Transport>,
    promptness: Promptness,
    config: Config,
    settings: Settings,
    private: PathBuf,
    inbox: Arc<Mailbox<Input>>,
    links: HashMap<Name, Link>,
    /// Connections to agents of an earlier generation, until their deliveries are done.
    retired: Vec<Link>,
    running: HashMap<u64, Running>,
    next_number: u64,
    /// How often in a row the agent of a transport went away without a word.
    failures: HashMap<Name, u32>,
    pace: PaceRecord,
    /// Deliveries that run, by message.
    open: HashMap<QueueId, usize>,
}

/// What master.cf says of a transport.
struct Transport {
    /// How many deliveries at a time; `None` for no limit.
    deliveries: Option<u32>,
    /// It delivers to mailboxes of this host.
    is_local: bool,
    /// It hands mail to servers.
    relays: bool,
}

/// What main.cf says of agents and feedback.
struct Settings {
    /// `transport_retry_time`
    retry: Duration,
    /// `qmgr_ipc_timeout`
    patience: Duration,
    /// `destination_concurrency_feedback_debug`
    tells_feedback: bool,
    most_dead: usize,
    most_messages: usize,
}

/// A delivery that an agent works on.
struct Running {
    site: Site,
    link: u64,
    /// The job; its recipients are those that have no outcome yet.
    job: Job,
    /// When the agent was given it.
    since: Instant,
}

/// What came of deliveries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One recipient's outcome.
    Outcome { id: QueueId, recipient: RequestRecipient, outcome: Outcome },
    /// A delivery of this message failed for the sake of this destination, which was given up.
    Waits { id: QueueId, site: Site },
    /// A delivery of this message ended.
    Done { id: QueueId },
    /// An agent goes on with this message when it is in the queue for good.
    Keep { id: QueueId },
    /// The agent went away too often over these recipients.
    Abandoned { id: QueueId, recipients: Vec<RequestRecipient> },
    /// The destination or transport was given up, and this waited for it.
    PutOff { site: Site, jobs: Vec<Job>, refusal: Refusal },
    /// The destination takes mail, and could do with so many more messages.
    Room { site: Site, messages: usize },
}

impl Deliveries {
    pub(crate) fn new(
        config: &Config,
        private: PathBuf,
        inbox: Arc<Mailbox<Input>>,
        pace: (PaceRecord, Vec<(Site, SystemTime)>),
    ) -> Self {
        let settings = Settings::new(config);
        let mut new = Self {
            scheduler: Scheduler::new(settings.most_dead, settings.most_messages),
            services: services_of(config),
            promptness: Promptness::default(),
            config: config.clone(),
            settings,
            private,
            inbox,
            links: HashMap::new(),
            retired: Vec::new(),
            running: HashMap::new(),
            next_number: 1,
            failures: HashMap::new(),
            pace: pace.0,
            open: HashMap::new(),
        };
        let (now, wall) = (Instant::now(), SystemTime::now());
        for (site, until) in pace.1 {
            if !new.knows(&site.transport) {
                continue;
            }
            // A clock that was set back must not stop a destination for longer than its rate does.
            let most = new.scheduler.limits(&site.transport).and_then(|limits| limits.interval);
            let wait = until.duration_since(wall).unwrap_or_default().min(most.unwrap_or_default());
            new.scheduler.hold_until(&site, now + wait);
        }
        new
    }

    /// Goes over to another configuration: new limits at once, new agents as soon as the old ones have finished.
    pub(crate) fn configure(&mut self, config: &Config, now: Instant) {
        self.services = services_of(config);
        self.config = config.clone();
        self.settings = Settings::new(config);
        self.scheduler.set_bounds(self.settings.most_dead, self.settings.most_messages);
        for (name, transport) in &self.services {
            if self.scheduler.limits(name).is_some() {
                self.scheduler.set_limits(name, Limits::new(config, name, transport.deliveries), now);
            }
        }
        self.failures.clear();
        self.retired.extend(self.links.drain().map(|(_, link)| link));
        self.retired.retain(|link| link.outstanding > 0);
    }

    /// Whether a transport has a program behind it.
    pub(crate) fn knows(&mut self, transport: &str) -> bool {
        let Some(service) = self.services.get(transport) else { return false };
        if self.scheduler.limits(transport).is_none() {
            let limits = Limits::new(&self.config, transport, service.deliveries);
            self.scheduler.set_limits(transport, limits, Instant::now());
        }
        true
    }

    /// Whether a delivery takes a moment only, as one to a mailbox of this host or to a server near by mostly does: who brings
    /// the message may wait for it.
    pub(crate) fn is_prompt(&self, site: &Site) -> bool {
        let transport = &*site.transport;
        self.services.get(transport).is_some_and(|service| service.is_local || service.relays)
            && self.scheduler.limits(transport).is_none_or(|limits| !limits.are_paced())
            && self.promptness.is_prompt(transport)
            && !self.scheduler.is_behind(site)
    }

    /// Whether it is for mailboxes of this host.
    pub(crate) fn is_local(&self, site: &Site) -> bool {
        self.services.get(&*site.transport).is_some_and(|service| service.is_local)
    }

    /// What a recipient's concurrency is counted by: its next hop, or itself where a delivery has one recipient.
    pub(crate) fn site(&self, way: &Way, recipient: &Address) -> Site {
        let destination = match self.scheduler.limits(&way.transport) {
            Some(limits) if limits.destination_recipients == 1 => recipient.as_str().to_lowercase(),
            _ => way.nexthop.to_lowercase(),
        };
        Site { transport: way.transport.as_str().into(), destination: destination.into() }
    }

    /// Queues deliveries for recipients that go the same way, as many to a delivery as its transport allows; gives those
    /// that have to wait elsewhere, and why.
    pub(crate) fn queue(
        &mut self,
        id: QueueId,
        site: &Site,
        nexthop: &str,
        recipients: Vec<RequestRecipient>,
        now: Instant,
    ) -> Option<(Vec<RequestRecipient>, Refusal)> {
        let limits = self.scheduler.limits(&site.transport);
        let most = limits.map_or(1, |limits| limits.destination_recipients).max(1);
        // Nearly every next hop is the name of its destination: one copy of it serves all that waits for it.
        let name = self.scheduler.known_name(site).unwrap_or(&site.destination);
        let nexthop = if **name == *nexthop { name.clone() } else { nexthop.into() };
        let mut rest = recipients.into_iter();
        while rest.len() > 0 {
            if let Some(refusal) = self.scheduler.refusal(site, now) {
                return Some((rest.collect(), refusal));
            }
            let recipients = rest.by_ref().take(most).collect();
            let job = Job { message: id, nexthop: nexthop.clone(), recipients, failures: 0 };
            self.scheduler.add(site, job, now);
        }
        None
    }

    /// Whether an agent works on a delivery of this message.
    pub(crate) fn has_any(&self, id: QueueId) -> bool {
        self.open.contains_key(&id)
    }

    /// Takes back all that waits, so that its way is asked for anew.
    pub(crate) fn withdraw(&mut self, now: Instant) -> Vec<Job> {
        self.scheduler.drain(now)
    }

    /// Deliveries that agents work on.
    pub(crate) fn running(&self) -> usize {
        self.scheduler.running()
    }

    /// When to look again at what only time changes.
    pub(crate) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let silent = self.links.values().filter(|link| !link.greeted);
        let patience = silent.map(|link| link.since + self.settings.patience);
        self.scheduler.next_wake(now).into_iter().chain(patience).min()
    }

    /// Forgets what is known against transports and destinations.
    pub(crate) fn revive_all(&mut self, now: Instant) {
        self.scheduler.revive_all(now);
        self.failures.clear();
    }

    /// Does what time brings: gives the destinations that may be tried again, and what came of agents that say nothing.
    pub(crate) fn wake(&mut self, now: Instant) -> (Vec<Site>, Vec<Verdict>) {
        let patience = self.settings.patience;
        let silent = |link: &&Link| !link.greeted && link.since + patience <= now;
        let numbers: Vec<u64> = self.links.values().filter(silent).map(|link| link.number).collect();
        let mut verdicts = Vec::new();
        for number in numbers {
            let transport = self.links.iter().find(|(_, link)| link.number == number);
            if let Some(name) = transport.map(|(name, _)| name.clone()) {
                log::warning!("transport {name}: no agent has answered within {patience:?}");
                self.failures.insert(name, MAX_FAILURES);
            }
            verdicts.extend(self.closed(number, None, now));
        }
        (self.scheduler.wake(now), verdicts)
    }

    /// Begins all deliveries that may begin.
    pub(crate) fn begin<'a>(
        &mut self,
        message: impl Fn(QueueId) -> Option<&'a ActiveMessage>,
        now: Instant,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for transport in self.scheduler.with_work() {
            while let Some(started) = self.scheduler.start(&transport, now) {
                let Some(message) = message(started.job.message) else {
                    self.scheduler.finish(&started.site, &Ending::Lost, now);
                    continue;
                };
                self.note_pace(&started, now);
                if let Err(failed) = self.give(started, message, now) {
                    let (started, error) = *failed;
                    log::warning!("transport {transport}: {error}");
                    *self.failures.entry(transport.clone()).or_default() += 1;
                    self.links.remove(&transport);
                    verdicts.extend(self.fail(started, now));
                }
            }
        }
        verdicts
    }

    /// Writes down when the next delivery to a destination with a rate may begin.
    fn note_pace(&mut self, started: &Started, now: Instant) {
        let Some(wait) = started.paced_until.map(|until| until.saturating_duration_since(now)) else {
            return;
        };
        let wall = SystemTime::now();
        if wait >= SHORTEST && self.pace.note(&started.site, wall + wait) {
            let held = self.scheduler.held(now);
            self.pace.rewrite(held.map(|(transport, destination, until)| {
                (transport, destination, wall + until.saturating_duration_since(now))
            }));
        }
    }

    /// Gives a delivery to its agent.
    fn give(
        &mut self,
        mut started: Started,
        message: &ActiveMessage,
        now: Instant,
    ) -> Result<(), Box<(Started, io::Error)>> {
        self.next_number += 1;
        let number = self.next_number;
        let mut request = match message.request() {
            Ok(request) => request,
            Err(error) => return Err(Box::new((started, error))),
        };
        request.delivery = number;
        request.nexthop = started.job.nexthop.to_string();
        request.recipients = std::mem::take(&mut started.job.recipients);
        let link = self.link(&started.site.transport, number, now);
        let sent = link.and_then(|link| link.send(&request, message.file.as_fd()).map(|()| link.number));
        started.job.recipients = request.recipients;
        match sent {
            Ok(link) => {
                *self.open.entry(started.job.message).or_default() += 1;
                let running = Running { site: started.site, link, job: started.job, since: now };
                self.running.insert(number, running);
                Ok(())
            }
            Err(error) => Err(Box::new((started, error))),
        }
    }

    fn link(&mut self, transport: &Name, number: u64, now: Instant) -> io::Result<&mut Link> {
        if !self.links.contains_key(transport) {
            let path = self.private.join(&**transport);
            let inbox = Arc::clone(&self.inbox);
            let link = Link::connect(&path, number, now, move |heard| inbox.put(Input::Agent(number, heard)))
                .map_err(|e| io::Error::new(e.kind(), format!("connect to {}: {e}", path.display())))?;
            self.links.insert(transport.clone(), link);
        }
        self.links.get_mut(transport).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Takes what a connection says.
    pub(crate) fn take(&mut self, link: u64, heard: Heard<Reply>, now: Instant) -> Vec<Verdict> {
        match heard {
            Heard::Replies(replies) => {
                replies.into_iter().flat_map(|reply| self.take_reply(link, reply, now)).collect()
            }
            Heard::Closed(error) => self.closed(link, error.as_ref(), now),
        }
    }

    fn take_reply(&mut self, link: u64, reply: Reply, now: Instant) -> Vec<Verdict> {
        match reply {
            Reply::Ready => {
                if let Some(link) = self.links.values_mut().find(|known| known.number == link) {
                    link.greeted = true;
                }
                Vec::new()
            }
            Reply::Outcome { delivery, recipient, outcome } => {
                let running = self.running.get_mut(&delivery).filter(|running| running.link == link);
                let Some(running) = running else { return Vec::new() };
                let undecided = &mut running.job.recipients;
                let Some(place) = undecided.iter().position(|known| known.index == recipient) else {
                    return Vec::new();
                };
                let recipient = undecided.remove(place);
                vec![Verdict::Outcome { id: running.job.message, recipient, outcome }]
            }
            Reply::Keep { delivery } => {
                let running = self.running.get(&delivery).filter(|running| running.link == link);
                running.map(|running| Verdict::Keep { id: running.job.message }).into_iter().collect()
            }
            Reply::Done { delivery, site } => {
                let Some(running) = self.end(delivery) else { return Vec::new() };
                self.answered(link);
                self.failures.remove(&running.site.transport);
                self.promptness.note(&running.site.transport, now.saturating_duration_since(running.since));
                self.done(running, site, now)
            }
        }
    }

    /// Takes a delivery off the list of those that run.
    fn end(&mut self, number: u64) -> Option<Running> {
        let running = self.running.remove(&number)?;
        if let Some(count) = self.open.get_mut(&running.job.message) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&running.job.message);
            }
        }
        Some(running)
    }

    fn done(&mut self, running: Running, failure: Option<SiteFailure>, now: Instant) -> Vec<Verdict> {
        let (site, id) = (running.site, running.job.message);
        let mut verdicts = Vec::new();
        let ending = match failure {
            Some(failure) => Ending::Failed(failure),
            None => Ending::Answered,
        };
        let finished = self.finish(&site, &ending, now);
        if matches!(ending, Ending::Failed(_))
            && let Some(refusal) = self.scheduler.refusal(&site, now)
        {
            verdicts.push(Verdict::Waits { id, site: site.clone() });
            if !finished.lost.is_empty() {
                verdicts.push(Verdict::PutOff { site: site.clone(), jobs: finished.lost, refusal });
            }
        }
        if finished.room > 0 {
            verdicts.push(Verdict::Room { site: site.clone(), messages: finished.room });
        }
        if !running.job.recipients.is_empty() {
            log::warning!("{id}: the agent {} left recipients without an outcome", site.transport);
            verdicts.push(Verdict::Abandoned { id, recipients: running.job.recipients });
        }
        verdicts.push(Verdict::Done { id });
        verdicts
    }

    fn finish(&mut self, site: &Site, ending: &Ending, now: Instant) -> Finished {
        let was_up = self.scheduler.refusal(site, now).is_none();
        let finished = self.scheduler.finish(site, ending, now);
        if let Ending::Failed(failure) = ending
            && was_up
            && self.scheduler.refusal(site, now).is_some_and(|refusal| !refusal.is_congestion)
        {
            let (transport, destination) = (&site.transport, &site.destination);
            let wait = self.scheduler.limits(transport).map_or(Duration::ZERO, |limits| limits.retry);
            log::info!(
                "transport {transport}, destination {destination}: delivery suspended for {} s: {}",
                wait.as_secs(),
                failure.text
            );
        }
        if self.settings.tells_feedback {
            let word = if matches!(ending, Ending::Failed(_)) { "failed" } else { "delivered" };
            let window = finished.window.as_deref().unwrap_or("idle");
            log::info!("feedback: {}/{}: {word}; {window}", site.transport, site.destination);
        }
        finished
    }

    /// An agent went away: what it had not decided is given to its successor.
    fn closed(&mut self, link: u64, error: Option<&io::Error>, now: Instant) -> Vec<Verdict> {
        let name = self.links.iter().find(|(_, known)| known.number == link).map(|(name, _)| name.clone());
        if let Some(name) = &name {
            self.links.remove(name);
        }
        self.retired.retain(|known| known.number != link);
        let numbers =
            self.running.iter().filter(|(_, running)| running.link == link).map(|(number, _)| *number);
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        if let Some(name) = name.filter(|_| !numbers.is_empty()) {
            *self.failures.entry(name).or_default() += 1;
        }
        let mut verdicts = Vec::new();
        for running in numbers.into_iter().filter_map(|number| self.end(number)).collect::<Vec<_>>() {
            let (id, transport) = (running.job.message, &running.site.transport);
            let why = error.map_or_else(String::new, |error| format!(" ({error})"));
            log::warning!(
                "{id}: the agent {transport} went away during the delivery{why}; it is tried again"
            );
            let started = Started { site: running.site, job: running.job, paced_until: None };
            if started.job.recipients.is_empty() {
                self.scheduler.finish(&started.site, &Ending::Lost, now);
                verdicts.push(Verdict::Done { id });
            } else {
                verdicts.extend(self.fail(started, now));
            }
        }
        verdicts
    }

    /// Puts a delivery back after its agent failed, or gives it up after too many times.
    fn fail(&mut self, mut started: Started, now: Instant) -> Vec<Verdict> {
        let transport = started.site.transport.clone();
        if self.failures.get(&transport).is_some_and(|count| *count >= MAX_FAILURES) {
            return self.give_up(started, now);
        }
        self.scheduler.rest(&transport, now + REST);
        started.job.failures += 1;
        if started.job.failures < MAX_FAILURES {
            self.scheduler.put_back(started, now);
            return Vec::new();
        }
        self.scheduler.finish(&started.site, &Ending::Lost, now);
        vec![Verdict::Abandoned { id: started.job.message, recipients: started.job.recipients }]
    }

    /// There is no agent: all that waits for it is put off.
    fn give_up(&mut self, started: Started, now: Instant) -> Vec<Verdict> {
        let (site, job) = (started.site, started.job);
        self.scheduler.finish(&site, &Ending::Lost, now);
        let failure = SiteFailure { dsn: Dsn::new(4, 3, 0), text: "mail transport unavailable".into() };
        let until = now + self.settings.retry;
        let waiting = self.scheduler.close(&site.transport, failure.clone(), until, now);
        let refusal = Refusal { failure, turn: None, is_congestion: false };
        let all = std::iter::once((site, job)).chain(waiting);
        all.map(|(site, job)| Verdict::PutOff { site, jobs: vec![job], refusal: refusal.clone() }).collect()
    }

    fn answered(&mut self, number: u64) {
        if let Some(link) = self.links.values_mut().find(|link| link.number == number) {
            link.outstanding = link.outstanding.saturating_sub(1);
        } else if let Some(link) = self.retired.iter_mut().find(|link| link.number == number) {
            link.outstanding = link.outstanding.saturating_sub(1);
            self.retired.retain(|link| link.outstanding > 0);
        }
    }
}

impl Settings {
    fn new(config: &Config) -> Self {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let share = config.get(param::QMGR_SITE_HOG_FACTOR).clamp(1, 100);
        Self {
            retry: config.get(param::TRANSPORT_RETRY_TIME),
            patience: config.get(param::QMGR_IPC_TIMEOUT),
            tells_feedback: config.get(param::DESTINATION_CONCURRENCY_FEEDBACK_DEBUG),
            most_dead: number(config.get(param::QMGR_MESSAGE_RECIPIENT_LIMIT)),
            most_messages: number(config.get(param::QMGR_MESSAGE_ACTIVE_LIMIT).saturating_mul(share) / 100),
        }
    }
}

/// The agents of master.cf: services on private UNIX sockets that are programs here.
fn services_of(config: &Config) -> HashMap<String, Transport> {
    let agents = config.services().iter().filter(|entry| {
        entry.kind == ServiceKind::Unix && entry.private && entry.presence == Presence::Program
    });
    let transport = |entry: &ServiceEntry| Transport {
        deliveries: entry.maxproc,
        is_local: MAILBOX_AGENTS.contains(&entry.command.as_str()),
        relays: RELAYING_AGENTS.contains(&entry.command.as_str()),
    };
    agents.map(|entry| (entry.name.clone(), transport(entry))).collect()
}
