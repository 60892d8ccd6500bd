//! The loop: takes what happened from its channels, decides, and tells the disk threads and the agents what to do.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use config::{Config, Snapshot, param};
use ipc::log;
use ipc::queue_manager::Word;
use mail::{Dsn, Outcome, QueueId, Status};
use queue::{Attempt, Folder, RecipientState, Root};
use service::{Event, Fatal, Lifecycle, Listener, Mailbox, Service};

use crate::deliveries::{Deliveries, Verdict};
use crate::disk::{Claimed, Disk, Done, Job, Slice};
use crate::link::Heard;
use crate::message::{ActiveMessage, Next};
use crate::reports::{Report, Reports};
use crate::retry::{Deferred, Times};
use crate::routing::Router;
use crate::scheduler;
use crate::words;

/// Files that nobody finished are removed when they are this old: their writer is gone.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long a message waits that could not be taken up, moved or removed.
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// How long until a message is looked for again that was found in the queue while it was being delivered.
const HELD_WAIT: Duration = Duration::from_secs(1);

/// How often `incoming/` is looked at for messages whose arrival nobody told of.
const SCAN_INTERVAL: Duration = Duration::from_secs(300);

pub(crate) struct EventLoop {
    config: Config,
    lifecycle: Arc<Lifecycle>,
    inbox: Arc<Mailbox<Input>>,
    counts: Arc<Counts>,
    disk: Disk,
    deliveries: Deliveries,
    reports: Reports,
    messages: HashMap<QueueId, ActiveMessage>,
    /// Messages that a disk thread was asked to take up.
    claiming: HashSet<QueueId>,
    /// Messages that wait for their turn because enough are active.
    backlog: VecDeque<(QueueId, Reason)>,
    deferred: Deferred,
    times: Times,
    active_limit: usize,
    /// Transports whose mail waits for an operator's flush after `defer_transports` was changed.
    defer_transports: Vec<String>,
    next_scan: Instant,
}

/// What can happen.
pub(crate) enum Input {
    /// Master said something.
    Event(Event),
    /// Cleanup or an operator's command said something.
    Word(Word),
    /// A disk thread has done something.
    Done(Done),
    /// An agent's connection, by number, has something to say.
    Agent(u64, Heard<ipc::agent::Reply>),
    /// The bounce service's connection, likewise.
    Bounce(u64, Heard<ipc::bounce::Reply>),
}

/// Why a message is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Cleanup has told of it: what was synced a moment ago needs no proof. All others are compared with their checksum.
    Arrived,
    /// A scan found it.
    Found,
    /// Its time has come, or an operator wants it tried.
    Due,
}

/// What `postroad status` shows.
#[derive(Default)]
struct Counts {
    active: AtomicUsize,
    deferred: AtomicUsize,
    waiting: AtomicUsize,
}

impl EventLoop {
    /// Phases 1 and 2: opens the queue and the tables, gives up root, puts the queue in order, and has it scanned.
    pub(crate) fn new(mut service: Service) -> Result<Self, Fatal> {
        let config = service.config.clone();
        let router = Arc::new(Router::new(&config)?);
        service.drop_privileges()?;
        let root = Root::open(&service.queue_directory())?;
        let active = root.active().map_err(|error| Fatal::new(error.to_string()))?;
        let recovered = active.recover(UNFINISHED_AGE).map_err(|error| Fatal::new(error.to_string()))?;
        if recovered.resumed > 0 || recovered.removed > 0 {
            let (resumed, removed) = (recovered.resumed, recovered.removed);
            log::info!("recovery: {resumed} messages resumed, {removed} unfinished files removed");
        }
        let inbox = Arc::new(Mailbox::default());
        for listener in service.listeners.drain(..) {
            if let Listener::Unix(listener) = listener {
                words::listen(listener, Arc::clone(&inbox))?;
            }
        }
        let disk = Disk::start(&active, &router, recipients_at_once(&config), &inbox)?;
        for folder in [Folder::Incoming, Folder::Deferred] {
            disk.ask(Job::Scan { folder });
        }
        let bounce = service.socket_of(true, &config.get(param::BOUNCE_SERVICE_NAME));
        let deliveries = Deliveries::new(&config, service.socket_of(true, ""), Arc::clone(&inbox));
        let counts = Arc::new(Counts::default());
        let (shown, told) = (Arc::clone(&counts), Arc::clone(&inbox));
        service.lifecycle.describe_with(move || shown.to_string());
        service.lifecycle.tell(move |event| told.put(Input::Event(event)));
        service.lifecycle.ready();
        Ok(Self {
            times: Times::new(&config),
            active_limit: active_limit(&config),
            defer_transports: config.get(param::DEFER_TRANSPORTS),
            lifecycle: service.lifecycle,
            disk,
            deliveries,
            reports: Reports::new(bounce, Arc::clone(&inbox)),
            inbox,
            counts,
            messages: HashMap::new(),
            claiming: HashSet::new(),
            backlog: VecDeque::new(),
            deferred: Deferred::default(),
            next_scan: Instant::now() + SCAN_INTERVAL,
            config,
        })
    }

    /// Phases 3 and 4.
    pub(crate) fn run(mut self) -> Result<(), Fatal> {
        let mut inputs = Vec::new();
        loop {
            self.inbox.take(&mut inputs, self.pause());
            inputs.drain(..).for_each(|input| self.take(input));
            self.take_due();
            self.begin_deliveries();
            self.show_state();
            if self.lifecycle.draining() && self.deliveries.running() == 0 && self.reports.is_idle() {
                return self.finish();
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.obey(event),
            Input::Word(word) => self.hear(word),
            Input::Done(done) => self.take_done(done),
            Input::Agent(link, heard) => self.take_replies(link, heard),
            Input::Bounce(link, heard) => self.take_reports(link, heard),
        }
    }

    /// How long nothing will happen by itself.
    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let due = self.deferred.next_in(SystemTime::now());
        let resume = self.deliveries.next_resume().map(|time| time.saturating_duration_since(now));
        let scan = Some(self.next_scan.saturating_duration_since(now));
        due.into_iter().chain(resume).chain(scan).min()
    }

    fn obey(&mut self, event: Event) {
        match event {
            Event::Reload(snapshot) => match self.configure(&snapshot) {
                Ok(()) => log::info!("reload: going on with the new configuration"),
                Err(error) => log::error!("reload: {error}; going on with the old configuration"),
            },
            Event::Drain => self.backlog.clear(),
        }
    }

    fn configure(&mut self, snapshot: &Snapshot) -> Result<(), Fatal> {
        let read = Config::from_snapshot(self.config.directory(), snapshot, &[]);
        let (config, _) = read.map_err(|problems| {
            Fatal::new(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let router = Arc::new(Router::new(&config)?);
        self.disk.ask(Job::Configure { router, slice: recipients_at_once(&config) });
        self.times = Times::new(&config);
        self.active_limit = active_limit(&config);
        self.defer_transports = config.get(param::DEFER_TRANSPORTS);
        self.deliveries.configure(&config);
        self.reports.renew_when_idle();
        self.config = config;
        Ok(())
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Arrived(id) => self.claim(id, Reason::Arrived),
            Word::Flush => {
                self.deliveries.resume_all();
                self.deferred.flush();
            }
            Word::FlushMessage(id) => self.claim(id, Reason::Due),
            // The domains of a deferred message are in its file: all are looked at, and few are the worse for it.
            Word::FlushSite(_) => self.deferred.flush(),
            Word::Rescan => self.disk.ask(Job::Scan { folder: Folder::Incoming }),
        }
    }

    /// Has a message taken up, now or when there is room.
    fn claim(&mut self, id: QueueId, reason: Reason) {
        if self.lifecycle.draining() || self.claiming.contains(&id) {
            return;
        }
        if self.messages.contains_key(&id) {
            // An operator has put back a message that is being delivered: its file is looked for again after that.
            if reason != Reason::Arrived {
                self.deferred.add(id, SystemTime::now() + HELD_WAIT);
            }
            return;
        }
        if self.messages.len() + self.claiming.len() >= self.active_limit {
            self.backlog.push_back((id, reason));
            return;
        }
        self.claiming.insert(id);
        self.disk.ask(Job::Claim { id, verify: reason != Reason::Arrived });
    }

    fn take_due(&mut self) {
        let now = SystemTime::now();
        while self.messages.len() + self.claiming.len() < self.active_limit {
            let due = || self.deferred.take_due(now).map(|id| (id, Reason::Due));
            let next = self.backlog.pop_front().or_else(due);
            let Some((id, reason)) = next else { break };
            self.claim(id, reason);
        }
        if self.next_scan <= Instant::now() {
            self.next_scan = Instant::now() + SCAN_INTERVAL;
            self.disk.ask(Job::Scan { folder: Folder::Incoming });
        }
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Claimed(claimed) => self.take_up(*claimed),
            Done::Sliced(id, slice) => self.take_slice(id, slice),
            Done::Passed(id) => self.go_on(id, true),
            Done::Gone(id) => {
                self.claiming.remove(&id);
                self.messages.remove(&id);
            }
            Done::Busy(id) | Done::Stuck(id) => {
                self.claiming.remove(&id);
                self.messages.remove(&id);
                self.deferred.add(id, SystemTime::now() + BUSY_WAIT);
            }
            Done::Found(folder, found) => {
                for (id, next_attempt) in found {
                    match folder {
                        Folder::Deferred => self.deferred.add(id, next_attempt),
                        _ => self.claim(id, Reason::Found),
                    }
                }
            }
        }
    }

    fn take_up(&mut self, claimed: Claimed) {
        let id = claimed.template.id;
        self.claiming.remove(&id);
        log::active(id, &claimed.template.sender, claimed.template.size, claimed.total as usize);
        let message =
            ActiveMessage::new(claimed.file, claimed.template, claimed.total, claimed.forced_to_expire);
        self.messages.insert(id, message);
        self.take_slice(id, claimed.slice);
    }

    /// Sorts recipients by the way they go, and queues a job for each way.
    fn take_slice(&mut self, id: QueueId, mut slice: Slice) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let ways = std::mem::take(&mut slice.ways);
        message.take_slice(slice);
        let mut refused = Vec::new();
        let mut groups: HashMap<(String, String), Vec<(String, u32)>> = HashMap::new();
        for (position, way) in (0_u32..).zip(ways) {
            let Some(recipient) = message.recipients.get(position as usize) else { continue };
            match way {
                _ if message.forced_to_expire => refused.push((position, forced_to_expire())),
                Ok(way) if self.defer_transports.contains(&way.transport) => {
                    refused.push((position, put_off()));
                }
                Ok(way) if self.deliveries.knows(&way.transport) => {
                    let destination = self.deliveries.destination(&way, &recipient.address);
                    groups.entry((way.transport, destination)).or_default().push((way.nexthop, position));
                }
                Ok(way) => refused.push((position, unavailable(&way.transport))),
                Err(outcome) => refused.push((position, outcome)),
            }
        }
        for ((transport, destination), members) in groups {
            self.deliveries.queue(id, &transport, &destination, members);
        }
        for (position, outcome) in refused {
            self.decide_without_agent(id, position, &outcome);
        }
        self.go_on(id, false);
    }

    /// An outcome that qmgr knows without asking an agent; it is logged here.
    fn decide_without_agent(&mut self, id: QueueId, position: u32, outcome: &Outcome) {
        let Some(message) = self.messages.get(&id) else { return };
        let Some(recipient) = message.recipients.get(position as usize) else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let delays =
            log::Delays { queued: now.saturating_sub(message.template.arrival), ..log::Delays::default() };
        log::outcome(id, &recipient.address, recipient.original.as_ref(), delays, outcome);
        let index = recipient.index;
        self.decide(id, index, outcome.clone());
    }

    /// Notes an outcome and has it written down.
    fn decide(&mut self, id: QueueId, index: u32, outcome: Outcome) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        // A slice is in the order of the queue file.
        let known = message.recipients.binary_search_by_key(&index, |recipient| recipient.index);
        let Ok(notify) = known.map(|place| message.recipients[place].notify) else {
            log::warning!("{id}: an agent reports on recipient {index}, which it was not given");
            return;
        };
        let record = message.decide(index, &outcome, notify);
        if record.state.is_some() || record.journal {
            let time = SystemTime::now();
            let deferred = outcome.status == Status::Deferred;
            let next_attempt = deferred.then(|| time + self.times.backoff_after(age(message, time)));
            let attempt = record.journal.then_some(Attempt { time, recipient: index, outcome, next_attempt });
            self.disk.ask(Job::Record { id, index, state: record.state, attempt });
        }
    }

    fn take_replies(&mut self, link: u64, heard: Heard<ipc::agent::Reply>) {
        for verdict in self.deliveries.take(link, heard) {
            match verdict {
                Verdict::Outcome { id, index, outcome } => self.decide(id, index, outcome),
                Verdict::Done { id } => self.go_on(id, false),
                Verdict::Abandoned { id, positions } => self.abandon(id, &positions),
            }
        }
    }

    /// Defers recipients whose agent failed too often.
    fn abandon(&mut self, id: QueueId, positions: &[u32]) {
        let text = "mail transport unavailable: the delivery agent keeps failing; see the log";
        let outcome = Outcome::deferred("none", Dsn::new(4, 3, 0), text);
        positions.iter().for_each(|position| self.decide_without_agent(id, *position, &outcome));
        self.go_on(id, false);
    }

    /// Takes the next step with a message whose recipients are all decided. `recorded`: the journal has them all.
    fn go_on(&mut self, id: QueueId, recorded: bool) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if !message.is_decided() || self.deliveries.has_any(id) {
            return;
        }
        let now = SystemTime::now();
        let age = age(message, now);
        let expired = self.times.is_expired(age, message.template.sender.is_null());
        match message.next(expired) {
            Next::Slice(from) => self.disk.ask(Job::Slice { id, from }),
            Next::Report(kind, recipients) if recorded => self.report(Report { id, kind, recipients }),
            Next::Report(kind, recipients) => {
                // Bounce reads the reasons from the journal: they must be in it first.
                message.put_back_report(kind, recipients);
                self.disk.ask(Job::Barrier { id });
            }
            Next::Defer => self.defer(id, now + self.times.backoff_after(age)),
            Next::Remove => {
                // Its disk thread does what it is asked in order: whoever names the message again finds it gone.
                self.messages.remove(&id);
                self.disk.ask(Job::Remove { id });
            }
        }
    }

    fn defer(&mut self, id: QueueId, until: SystemTime) {
        self.messages.remove(&id);
        self.deferred.add(id, until);
        self.disk.ask(Job::Defer { id, until });
    }

    fn report(&mut self, report: Report) {
        let Some(message) = self.messages.get(&report.id) else { return };
        let file = Arc::clone(&message.file);
        if let Err((report, error)) = self.reports.ask(report, &file) {
            log::warning!("{}: ask the bounce service: {error}", report.id);
            self.report_failed(&report);
        }
    }

    fn take_reports(&mut self, link: u64, heard: Heard<ipc::bounce::Reply>) {
        match heard {
            Heard::Replies(replies) => {
                for reply in replies {
                    let Some(report) = self.reports.answered(&reply) else { continue };
                    match reply.result {
                        Ok(()) => self.reported(&report),
                        Err(reason) => {
                            log::warning!("{}: bounce service: {reason}", report.id);
                            self.report_failed(&report);
                        }
                    }
                }
            }
            Heard::Closed(error) => {
                if let Some(error) = error {
                    log::warning!("connection to the bounce service: {error}");
                }
                for report in self.reports.closed(link) {
                    log::warning!("{}: the bounce service went away before it answered", report.id);
                    self.report_failed(&report);
                }
            }
        }
    }

    /// The report is in the queue: nothing is owed to its recipients any more.
    fn reported(&mut self, report: &Report) {
        for index in &report.recipients {
            let state = Some(RecipientState::Done);
            self.disk.ask(Job::Record { id: report.id, index: *index, state, attempt: None });
        }
        self.go_on(report.id, true);
    }

    /// The report is tried again with the message's next attempt.
    fn report_failed(&mut self, report: &Report) {
        self.defer(report.id, SystemTime::now() + self.times.backoff_after(Duration::ZERO));
    }

    fn begin_deliveries(&mut self) {
        if self.lifecycle.draining() {
            return;
        }
        let messages = &self.messages;
        let abandoned = self.deliveries.begin(|id| messages.get(&id));
        for (id, positions) in abandoned {
            self.abandon(id, &positions);
        }
    }

    fn show_state(&self) {
        self.counts.active.store(self.messages.len(), Ordering::Relaxed);
        self.counts.deferred.store(self.deferred.len(), Ordering::Relaxed);
        self.counts.waiting.store(self.backlog.len(), Ordering::Relaxed);
    }

    /// Lets the disk threads write what was asked, and ends. What is active is taken up at the next start.
    fn finish(self) -> Result<(), Fatal> {
        self.disk.finish();
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let (active, deferred, waiting) = (count(&self.active), count(&self.deferred), count(&self.waiting));
        write!(f, "active {active}, deferred {deferred}, waiting {waiting}")
    }
}

/// `defer_transports` names the transport.
fn put_off() -> Outcome {
    Outcome::deferred("none", Dsn::new(4, 3, 2), "deferred transport")
}

/// The operator gave the message up (`postsuper -e`).
fn forced_to_expire() -> Outcome {
    Outcome::bounced("none", Dsn::new(5, 4, 7), "message expired by the administrator")
}

/// The transport is not in master.cf, or what it names is not here.
fn unavailable(transport: &str) -> Outcome {
    let text = format!("mail transport unavailable: no service \"{transport}\" in master.cf");
    Outcome::deferred("none", Dsn::new(4, 3, 0), text)
}

fn age(message: &ActiveMessage, now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH + message.template.arrival).unwrap_or_default()
}

fn recipients_at_once(config: &Config) -> usize {
    usize::try_from(config.get(param::QMGR_MESSAGE_RECIPIENT_LIMIT)).unwrap_or(usize::MAX).max(1)
}

fn active_limit(config: &Config) -> usize {
    usize::try_from(config.get(param::QMGR_MESSAGE_ACTIVE_LIMIT)).unwrap_or(usize::MAX).max(1)
}

/// The limits of a transport, from main.cf and master.cf.
pub(crate) fn limits_of(config: &Config, transport: &str, deliveries: Option<u32>) -> scheduler::Limits {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let concurrency = config.for_transport(
        transport,
        "destination_concurrency_limit",
        param::DEFAULT_DESTINATION_CONCURRENCY_LIMIT,
    );
    let recipients = config.for_transport(
        transport,
        "destination_recipient_limit",
        param::DEFAULT_DESTINATION_RECIPIENT_LIMIT,
    );
    scheduler::Limits {
        deliveries: deliveries.map_or(usize::MAX, |most| number(most.into())).max(1),
        destination_concurrency: number(concurrency),
        destination_recipients: if recipients == 0 { usize::MAX } else { number(recipients) },
    }
}
