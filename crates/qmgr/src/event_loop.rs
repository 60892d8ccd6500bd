//! The loop: takes what happened from its channels, decides, and tells the disk threads and the agents what to do.

mod attempts;
mod reporting;
mod settings;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use config::{Config, Snapshot, param};
use ipc::log;
use ipc::queue_manager::Word;
use mail::QueueId;
use queue::{Folder, Ownership, Root};
use service::{Event, Fatal, Lifecycle, Listener, Mailbox, Service};

use crate::deferred::Deferred;
use crate::deliveries::Deliveries;
use crate::disk::{Disk, Done, Job};
use crate::flush::FlushSites;
use crate::intake::{Intake, Reason};
use crate::link::Heard;
use crate::message::ActiveMessage;
use crate::offers::{Asker, Offers};
use crate::pace_record::PaceRecord;
use crate::reports::Reports;
use crate::routing::Router;
use crate::words;
use settings::Settings;

/// Files that nobody finished are removed when they are this old: their writer is gone.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long a message waits that could not be taken up, moved or removed.
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// How long until a message is looked for again that was found in the queue while it was being delivered.
const HELD_WAIT: Duration = Duration::from_secs(1);

/// Messages that a disk thread looks into before it does something else.
const INSPECTED_AT_ONCE: usize = 500;

/// Messages that the disk threads may be asked to take up at a time: enough that none of them waits for the loop, few
/// enough that what they have read and the loop has not seen is little.
const MOST_CLAIMING: usize = 512;

/// Messages that were active at a time, from which on their memory is given back to the system after the last of them.
const PEAK: usize = 1000;

/// How far a flush and a reload may be apart that belong together; the flush may have overtaken the reload before it.
const OVERTAKEN: Duration = Duration::from_secs(30);

/// How long cleanup may take at the end to bring into the queue what it has offered.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct EventLoop {
    /// Held as long as this queue manager lives.
    _ownership: Ownership,
    config: Config,
    settings: Settings,
    lifecycle: Arc<Lifecycle>,
    inbox: Arc<Mailbox<Input>>,
    counts: Arc<Counts>,
    disk: Disk,
    deliveries: Deliveries,
    reports: Reports,
    /// A tree has no doubling, and gives back what it does not need.
    messages: BTreeMap<QueueId, Box<ActiveMessage>>,
    /// Messages that a disk thread was asked to take up, and why.
    claiming: HashMap<QueueId, Reason>,
    /// Messages that cleanup waits for.
    offers: Offers,
    /// Messages that wait for their turn because enough are active.
    intake: Intake,
    deferred: Deferred,
    /// Recipients in memory.
    recipients: usize,
    /// The most messages that were active since memory was last given back.
    peak: usize,
    /// When all was last to be tried.
    flushed: Option<Instant>,
    /// When the configuration was last read anew.
    reloaded: Option<Instant>,
    /// Those that are to be tried once more although they are being tried: they may go the ways of an old configuration.
    once_more: HashSet<QueueId>,
    next_scan: Instant,
    next_clog_warning: Instant,
    /// At the end, until when cleanup may bring into the queue what stays.
    settled_by: Option<Instant>,
}

/// What can happen.
pub(crate) enum Input {
    /// Master said something.
    Event(Event),
    /// Cleanup or an operator's command said something.
    Word(Word),
    /// Cleanup has offered a message by its file, and waits to hear by this connection what becomes of it.
    Offered(QueueId, File, Arc<Asker>),
    /// Nothing more is heard by this connection.
    Left(Arc<Asker>),
    /// A disk thread has done something.
    Done(Done),
    /// An agent's connection, by number, has something to say.
    Agent(u64, Heard<ipc::agent::Reply>),
    /// The bounce service's connection, likewise.
    Bounce(u64, Heard<ipc::bounce::Reply>),
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
        let sites = Arc::new(FlushSites::new(&config)?);
        let files = service.allow_most_files();
        service.drop_privileges()?;
        let root = Root::open(&service.queue_directory()).map_err(|error| service.without_queue(&error))?;
        let ownership = root
            .own(|| {
                log::warning!(
                    "another queue manager still runs; waiting until it has finished its deliveries"
                )
            })
            .map_err(|error| Fatal::new(error.to_string()))?;
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
        let disk = Disk::start(&active, &router, &sites, &inbox)?;
        for folder in [Folder::Incoming, Folder::Deferred] {
            disk.ask(Job::Scan { folder });
        }
        let bounce = service.socket_of(true, &config.get(param::BOUNCE_SERVICE_NAME));
        let data: PathBuf = config.get(param::DATA_DIRECTORY);
        let pace = PaceRecord::open(&data, SystemTime::now());
        let deliveries = Deliveries::new(&config, service.socket_of(true, ""), Arc::clone(&inbox), pace);
        let counts = Arc::new(Counts::default());
        let (shown, told) = (Arc::clone(&counts), Arc::clone(&inbox));
        service.lifecycle.describe_with(move || shown.to_string());
        service.lifecycle.tell(move |event| told.put(Input::Event(event)));
        service.lifecycle.ready();
        let (settings, now) = (Settings::new(&config, files), Instant::now());
        Ok(Self {
            _ownership: ownership,
            lifecycle: service.lifecycle,
            disk,
            deliveries,
            reports: Reports::new(bounce, Arc::clone(&inbox)),
            inbox,
            counts,
            messages: BTreeMap::new(),
            claiming: HashMap::new(),
            offers: Offers::default(),
            intake: Intake::default(),
            deferred: Deferred::to_be_found(),
            recipients: 0,
            peak: 0,
            flushed: None,
            reloaded: None,
            once_more: HashSet::new(),
            next_scan: now + settings.scan_interval,
            next_clog_warning: now,
            settled_by: None,
            settings,
            config,
        })
    }

    /// Phases 3 and 4.
    pub(crate) fn run(mut self) -> Result<(), Fatal> {
        let mut inputs = Vec::new();
        loop {
            let pause = self.pause();
            self.inbox.take(&mut inputs, pause);
            inputs.drain(..).for_each(|input| self.take(input));
            self.wake();
            self.take_up_more();
            self.offers.answer();
            self.begin_deliveries();
            self.show_state();
            self.rest();
            // What was delivered of a message that is on its way into the queue is written down when it is there.
            let is_over = || self.settled_by.is_some_and(|time| time <= Instant::now());
            if self.has_drained() && (self.offers.are_settled() || is_over()) {
                return self.finish();
            }
        }
    }

    /// Whether nothing is left to do but to hear what cleanup has brought into the queue.
    fn has_drained(&self) -> bool {
        self.lifecycle.draining() && self.deliveries.running() == 0 && self.reports.is_idle()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.obey(event),
            Input::Word(word) => self.hear(word),
            Input::Offered(id, file, asker) => self.take_offer(id, file, asker),
            Input::Left(asker) => {
                self.offers.leave(&asker);
                self.disk.ask(Job::Orphan { asker });
            }
            Input::Done(done) => self.take_done(done),
            Input::Agent(link, heard) => {
                let verdicts = self.deliveries.take(link, heard, Instant::now());
                self.take_verdicts(verdicts);
            }
            Input::Bounce(link, heard) => self.take_reports(link, heard),
        }
    }

    /// How long nothing will happen by itself.
    fn pause(&mut self) -> Option<Duration> {
        let now = Instant::now();
        // What is due and does not fit waits for a message to end, or for the next queue manager.
        let takes = self.may_claim() && !self.lifecycle.draining();
        let due = self.deferred.next_in(SystemTime::now()).filter(|_| takes);
        let wake = self.deliveries.next_wake(now).map(|time| time.saturating_duration_since(now));
        let settled_by = self.settled_by.filter(|_| self.has_drained());
        let times = [Some(self.next_scan), self.offers.next_overdue(), settled_by];
        let times = times.into_iter().flatten().map(|time| time.saturating_duration_since(now));
        due.into_iter().chain(wake).chain(times).min()
    }

    fn obey(&mut self, event: Event) {
        match event {
            Event::Reload(snapshot) => match self.configure(&snapshot) {
                Ok(()) => {
                    log::info!("reload: going on with the new configuration");
                    self.reloaded = Some(Instant::now());
                    // Master and the operator's command speak on connections of their own: of a reload and a flush
                    // that followed each other, the second may be heard first, and find the old ways.
                    if self.flushed.is_some_and(|at| at.elapsed() < OVERTAKEN) {
                        self.hear(Word::Flush);
                        self.flushed = None;
                    }
                }
                Err(error) => log::error!("reload: {error}; going on with the old configuration"),
            },
            Event::Drain => {
                self.intake.clear();
                self.offers.keep_all();
                self.settled_by = Some(Instant::now() + SETTLED_WITHIN);
            }
        }
    }

    fn configure(&mut self, snapshot: &Snapshot) -> Result<(), Fatal> {
        let read = Config::from_snapshot(self.config.directory(), snapshot, &[]);
        let (config, _) = read.map_err(|problems| {
            Fatal::new(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let router = Arc::new(Router::new(&config)?);
        let sites = Arc::new(FlushSites::new(&config)?);
        let now = Instant::now();
        let unread = self.deferred.forget_domains(!sites.is_empty());
        self.disk.ask(Job::Configure { router, sites });
        self.inspect(&unread);
        self.settings = Settings::new(&config, self.settings.files);
        self.deliveries.configure(&config, now);
        self.deliveries.revive_all(now);
        self.reports.renew_when_idle();
        self.config = config;
        self.resolve_anew(now);
        Ok(())
    }

    /// Asks for the ways of all that waits for an agent: they may lead elsewhere now.
    fn resolve_anew(&mut self, now: Instant) {
        let mut indexes: HashMap<QueueId, Vec<u32>> = HashMap::new();
        for job in self.deliveries.withdraw(now) {
            indexes.entry(job.message).or_default().extend(job.recipients.iter().map(|known| known.index));
        }
        for (id, mut indexes) in indexes {
            indexes.sort_unstable();
            self.disk.ask(Job::Resolve { id, indexes });
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            // An offer comes with a file, and the connection by which it is answered.
            Word::Arrived(id) | Word::Offered(id) => self.claim(id, Reason::Arrived),
            Word::Stored(id) => {
                self.offers.settle(id);
                self.disk.ask(Job::Attach { id });
            }
            Word::Withdrawn(id) => {
                self.offers.settle(id);
                self.disk.ask(Job::Withdraw { id });
            }
            Word::Flush => {
                self.flushed = Some(Instant::now());
                if self.reloaded.is_some_and(|at| at.elapsed() < OVERTAKEN) {
                    self.once_more.extend(self.messages.keys().chain(self.claiming.keys()));
                }
                self.deliveries.revive_all(Instant::now());
                self.deferred.flush();
                self.intake.flush();
                // Whoever brought a message may have been killed before it could tell.
                self.disk.ask(Job::Scan { folder: Folder::Incoming });
            }
            Word::FlushMessage(id) => {
                self.deliveries.revive_all(Instant::now());
                self.claim(id, Reason::Asked);
            }
            Word::FlushSite(site) => {
                self.deliveries.revive_all(Instant::now());
                // What an earlier process put aside is looked through when it is first asked for.
                let unread = self.deferred.flush_domain(site.to_lowercase());
                self.inspect(&unread);
            }
            Word::Rescan => self.disk.ask(Job::Scan { folder: Folder::Incoming }),
        }
    }

    /// Takes up a message that cleanup waits for; one that must wait itself is not waited for.
    fn take_offer(&mut self, id: QueueId, file: File, asker: Arc<Asker>) {
        self.offers.add(id, Arc::clone(&asker), Instant::now());
        if !self.may_claim() || self.lifecycle.draining() {
            return self.offers.keep(id);
        }
        self.claiming.insert(id, Reason::Arrived);
        let most = self.recipients_to_read();
        self.disk.ask(Job::Borrow { id, file, asker, most });
    }

    /// Has the domains of messages looked at.
    fn inspect(&self, ids: &[QueueId]) {
        for ids in ids.chunks(INSPECTED_AT_ONCE) {
            self.disk.ask(Job::Inspect { ids: ids.to_vec() });
        }
    }

    /// Whether one more message may be taken up at this moment.
    fn may_claim(&self) -> bool {
        let claiming = self.claiming.len();
        claiming < MOST_CLAIMING && self.messages.len() + claiming < self.settings.active_limit
    }

    /// Has a message taken up, now or when there is room.
    fn claim(&mut self, id: QueueId, reason: Reason) {
        if self.lifecycle.draining() || self.claiming.contains_key(&id) {
            return;
        }
        if self.messages.contains_key(&id) {
            match reason {
                Reason::Arrived => {}
                Reason::Found => self.disk.ask(Job::Settle { id }),
                Reason::Due | Reason::Asked => self.look_again(id),
            }
            return;
        }
        if self.may_claim() {
            self.deferred.remove(id);
            self.claiming.insert(id, reason);
            let most = self.recipients_to_read();
            self.disk.ask(Job::Claim { id, verify: reason != Reason::Arrived, most });
        } else {
            self.intake.push(id, reason);
        }
    }

    /// An operator may have put back a message that is being delivered: its file is looked for again after that.
    fn look_again(&mut self, id: QueueId) {
        self.deferred.add(id, SystemTime::now() + HELD_WAIT, &[]);
    }

    /// How many recipients of a message may be read now: half of what memory has room for, so that the next message
    /// finds some too.
    fn recipients_to_read(&self) -> usize {
        let left = self.settings.recipient_limit.saturating_sub(self.recipients);
        (left / 2).max(self.settings.recipient_minimum)
    }

    fn take_up_more(&mut self) {
        let now = SystemTime::now();
        while self.may_claim() && !self.lifecycle.draining() {
            let deferred = &mut self.deferred;
            let Some((id, reason)) = self.intake.next(|| deferred.take_due(now)) else { break };
            self.claim(id, reason);
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        if self.next_scan <= now {
            self.next_scan = now + self.settings.scan_interval;
            self.disk.ask(Job::Scan { folder: Folder::Incoming });
        }
        self.offers.keep_overdue(now);
        let (revived, verdicts) = self.deliveries.wake(now);
        for site in revived {
            // One finds out whether the destination is back; the others follow if it is.
            self.deferred.hasten_for(&site, 1);
        }
        self.take_verdicts(verdicts);
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Claimed(claimed) => self.take_up(*claimed),
            Done::Sliced(id, slice) => self.take_slice(id, slice),
            Done::Resolved(id, slice) => {
                self.send_on_their_ways(id, slice.recipients, slice.ways);
                self.go_on(id, false);
            }
            Done::Passed(id) => self.go_on(id, true),
            Done::Waits(id, domains) => self.deferred.set_domains(id, &domains),
            Done::Attached(id, file) => {
                if let Some(message) = self.messages.get_mut(&id) {
                    message.file = file;
                }
            }
            Done::NotLent(id) => self.claim(id, Reason::Arrived),
            Done::Gone(id) => self.forget(id),
            Done::Busy(id) | Done::Stuck(id) => {
                self.forget(id);
                self.deferred.add(id, SystemTime::now() + BUSY_WAIT, &[]);
            }
            Done::PutBack(id) if self.messages.contains_key(&id) => self.look_again(id),
            Done::PutBack(id) => self.claim(id, Reason::Found),
            Done::Found(Folder::Deferred, found) => self.find(found),
            Done::Found(_, found) => found.into_iter().for_each(|(id, _)| self.claim(id, Reason::Found)),
            Done::Scanned(Folder::Deferred) => self.deferred.end_scan(),
            Done::Scanned(_) => {}
        }
    }

    /// Takes what a scan has found in `deferred/`.
    fn find(&mut self, found: Vec<(QueueId, SystemTime)>) {
        let (deferred, reads_domains) = (&mut self.deferred, self.settings.has_flush_domains);
        let asked = found.into_iter().filter(|(id, due)| deferred.find(*id, *due, reads_domains));
        let asked: Vec<QueueId> = asked.map(|(id, _)| id).collect();
        self.inspect(&asked);
    }

    /// Forgets an active message.
    fn forget(&mut self, id: QueueId) {
        self.offers.keep(id);
        self.claiming.remove(&id);
        self.once_more.remove(&id);
        if let Some(message) = self.messages.remove(&id) {
            self.recipients = self.recipients.saturating_sub(message.undecided());
        }
    }

    fn begin_deliveries(&mut self) {
        if self.lifecycle.draining() {
            return;
        }
        let messages = &self.messages;
        let verdicts =
            self.deliveries.begin(|id| messages.get(&id).map(|message| &**message), Instant::now());
        self.take_verdicts(verdicts);
    }

    fn show_state(&self) {
        self.counts.active.store(self.messages.len(), Ordering::Relaxed);
        self.counts.deferred.store(self.deferred.len(), Ordering::Relaxed);
        self.counts.waiting.store(self.intake.len(), Ordering::Relaxed);
    }

    /// After a peak, gives memory back when nothing is active any more.
    fn rest(&mut self) {
        self.peak = self.peak.max(self.messages.len());
        if self.peak >= PEAK && self.messages.is_empty() && self.claiming.is_empty() {
            self.peak = 0;
            sys::memory::give_back();
        }
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
