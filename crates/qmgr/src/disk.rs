//! The threads that touch the queue and ask tables, so that the loop never waits for a disk.
//!
//! A message belongs to one thread from claim to removal: what is written about it keeps its order without a lock.

mod borrowed;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipc::agent::{Request, RequestRecipient};
use ipc::log;
use mail::{Notify, Outcome, QueueId, Trace};
use queue::{Active, Attempt, Folder, Message, QueueError, RecipientState, StoredRecipient};
use service::{Fatal, Mailbox};

use crate::event_loop::Input;
use crate::flush::FlushSites;
use crate::message::Flags;
use crate::offers::Asker;
use crate::routing::{Router, Way};
use borrowed::Borrowed;

/// Threads: enough to keep several removals in the file system's journal at once.
const THREADS: usize = 4;

/// Messages that a thread keeps open and understood from claim to removal. When there are more, most of them wait, and
/// what must be known of one is read again when its time comes.
const MOST_KEPT: usize = 250;

/// A message that has come is moved to `active/` when it was not delivered within this time, so that who looks at the
/// folders sees what waits for delivery there.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// How long until that is tried again where it failed: a disk in trouble is not to fill the log, too.
const SETTLED_AGAIN: Duration = Duration::from_secs(60);

/// What the loop wants done.
pub(crate) enum Job {
    /// Take a message up. `verify`: it has lain on the disk, so that its content must be compared with its checksum.
    /// `most`: how many recipients to read.
    Claim { id: QueueId, verify: bool, most: usize },
    /// Take up a message that is lent: who has offered it waits.
    Borrow { id: QueueId, file: File, asker: Arc<Asker>, most: usize },
    /// One that is lent is delivered: forget it.
    GiveBack { id: QueueId },
    /// One that was lent is in `incoming/` now.
    Attach { id: QueueId },
    /// One that was lent could not be stored: forget it.
    Withdraw { id: QueueId },
    /// Nothing more is heard of all that this one has lent.
    Orphan { asker: Arc<Asker> },
    /// A scan of `incoming/` has found it while it is being delivered: see why it is there.
    Settle { id: QueueId },
    /// Read its recipients from this number on.
    Slice { id: QueueId, from: u32, most: usize },
    /// Ask anew for the ways of these recipients, in ascending order.
    Resolve { id: QueueId, indexes: Vec<u32> },
    /// Write down what became of a recipient.
    Record { id: QueueId, index: u32, state: Option<RecipientState>, attempt: Option<Attempt> },
    /// Note that the sender was told of the delay.
    NoteDelay { id: QueueId },
    /// Say when all that was asked before is done.
    Barrier { id: QueueId },
    /// Put it aside.
    Defer { id: QueueId, until: SystemTime },
    /// Remove it.
    Remove { id: QueueId },
    /// Route by another configuration.
    Configure { router: Arc<Router>, sites: Arc<FlushSites> },
    /// Find out in which domains that may be asked for these have recipients.
    Inspect { ids: Vec<QueueId> },
    /// List what is deferred, or what lies in `incoming/`.
    Scan { folder: Folder },
    /// Nothing more will be asked.
    End,
}

/// What was done.
pub(crate) enum Done {
    /// The message is active.
    Claimed(Box<Claimed>),
    /// The file of one that was lent.
    Attached(QueueId, Arc<File>),
    /// It is in `incoming/`, and is not lent (any more).
    NotLent(QueueId),
    /// It is no longer there, or was found to be damaged: forget it.
    Gone(QueueId),
    /// It cannot be taken up at this moment: come again.
    Busy(QueueId),
    /// More recipients.
    Sliced(QueueId, Slice),
    /// Recipients with the ways that they have now.
    Resolved(QueueId, Slice),
    /// The domains that may be asked for in which a message in `deferred/` has recipients that wait.
    Waits(QueueId, Vec<String>),
    /// The barrier was reached.
    Passed(QueueId),
    /// It could be neither put aside nor removed: it is where it was.
    Stuck(QueueId),
    /// An operator has put it into `incoming/` while it is being delivered.
    PutBack(QueueId),
    /// Messages that a scan found, with the time of their next attempt.
    Found(Folder, Vec<(QueueId, SystemTime)>),
    /// All messages of the folder were found.
    Scanned(Folder),
}

/// A message that was taken up.
pub(crate) struct Claimed {
    pub(crate) file: Arc<File>,
    pub(crate) template: Request,
    pub(crate) total: u32,
    /// How many the log counts: what was expanded on arrival is not delivered to.
    pub(crate) addressees: usize,
    pub(crate) flags: Flags,
    pub(crate) slice: Slice,
}

/// Some recipients of a message and their ways.
#[derive(Default)]
pub(crate) struct Slice {
    /// Those to deliver to.
    pub(crate) recipients: Vec<RequestRecipient>,
    /// The way of each of them.
    pub(crate) ways: Vec<Result<Way, Box<Outcome>>>,
    /// Those that failed in an earlier attempt whose report could not be written.
    pub(crate) unreported_failures: Vec<u32>,
    /// Those that were reached or expanded in an earlier attempt, likewise.
    pub(crate) unreported_successes: Vec<u32>,
    /// Where to read on.
    pub(crate) next: Option<u32>,
}

/// The threads.
pub(crate) struct Disk {
    shards: Vec<Arc<Mailbox<Job>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Starts the threads.
    pub(crate) fn start(
        active: &Active,
        router: &Arc<Router>,
        sites: &Arc<FlushSites>,
        inbox: &Arc<Mailbox<Input>>,
    ) -> Result<Self, Fatal> {
        let mut disk = Self { shards: Vec::with_capacity(THREADS), threads: Vec::with_capacity(THREADS) };
        for _ in 0..THREADS {
            let jobs = Arc::new(Mailbox::default());
            let shard = Shard::new(active.clone(), Arc::clone(router), Arc::clone(sites), Arc::clone(inbox));
            let waiting = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name("disk".into());
            let thread = thread.spawn(move || shard.run(&waiting));
            disk.threads.push(thread.map_err(|e| Fatal::new(format!("start a disk thread: {e}")))?);
            disk.shards.push(jobs);
        }
        Ok(disk)
    }

    /// Waits until all that was asked is done.
    pub(crate) fn finish(self) {
        self.shards.iter().for_each(|shard| shard.put(Job::End));
        for thread in self.threads {
            // A thread that panicked has said so; what it left is taken up at the next start.
            let _ = thread.join();
        }
    }

    /// Hands a job to the thread of its message; those about the whole queue go to the first, settings to all.
    pub(crate) fn ask(&self, job: Job) {
        match &job {
            Job::Configure { router, sites } => {
                for shard in &self.shards[1..] {
                    shard.put(Job::Configure { router: Arc::clone(router), sites: Arc::clone(sites) });
                }
            }
            Job::Orphan { asker } => {
                self.shards[1..].iter().for_each(|shard| shard.put(Job::Orphan { asker: Arc::clone(asker) }));
            }
            _ => {}
        }
        self.shard_of(&job).put(job);
    }

    /// The same with one that is in no hurry.
    pub(crate) fn leave(&self, job: Job) {
        self.shard_of(&job).leave(job);
    }

    fn shard_of(&self, job: &Job) -> &Mailbox<Job> {
        &self.shards[job.message().map_or(0, |id| usize::from(id.spread()) % self.shards.len())]
    }
}

impl Job {
    /// The message that it is about.
    fn message(&self) -> Option<QueueId> {
        match self {
            Self::Claim { id, .. }
            | Self::Borrow { id, .. }
            | Self::GiveBack { id }
            | Self::Attach { id }
            | Self::Withdraw { id }
            | Self::Settle { id }
            | Self::Slice { id, .. }
            | Self::Resolve { id, .. }
            | Self::NoteDelay { id }
            | Self::Record { id, .. }
            | Self::Barrier { id }
            | Self::Defer { id, .. }
            | Self::Remove { id } => Some(*id),
            Self::Orphan { .. }
            | Self::Configure { .. }
            | Self::Inspect { .. }
            | Self::Scan { .. }
            | Self::End => None,
        }
    }
}

struct Shard {
    active: Active,
    router: Arc<Router>,
    sites: Arc<FlushSites>,
    inbox: Arc<Mailbox<Input>>,
    /// Those that are kept.
    messages: HashMap<QueueId, Box<Message>>,
    /// Those that are lent.
    borrowed: HashMap<QueueId, Borrowed>,
    /// Those that were taken up in `incoming/` and lie there still, and since when.
    arrived: HashMap<QueueId, Instant>,
    /// Those that are not kept, and of whose files it is known what lies behind their ends ([`Message::is_clean`]).
    clean: HashSet<QueueId>,
    /// Those that are done and could not be removed, and where they lie: they are not to be delivered again.
    unremoved: HashMap<QueueId, Folder>,
    /// What is to be written, by message.
    records: HashMap<QueueId, Records>,
    /// When messages are next to be settled.
    next_settling: Instant,
}

/// What is to be written about recipients of a message.
#[derive(Default)]
struct Records {
    attempts: Vec<Attempt>,
    marks: Vec<(u32, RecipientState)>,
}

impl Shard {
    fn new(active: Active, router: Arc<Router>, sites: Arc<FlushSites>, inbox: Arc<Mailbox<Input>>) -> Self {
        Self {
            active,
            router,
            sites,
            inbox,
            messages: HashMap::new(),
            borrowed: HashMap::new(),
            arrived: HashMap::new(),
            clean: HashSet::new(),
            unremoved: HashMap::new(),
            records: HashMap::new(),
            next_settling: Instant::now(),
        }
    }

    fn run(mut self, waiting: &Mailbox<Job>) {
        let mut jobs = Vec::new();
        loop {
            waiting.take(&mut jobs, self.until_settled());
            for job in jobs.drain(..) {
                if matches!(job, Job::End) {
                    return self.write_all();
                }
                if let Some(done) = self.perform(job) {
                    self.inbox.put(Input::Done(done));
                }
            }
            self.write_all();
            self.settle_old();
        }
    }

    fn perform(&mut self, job: Job) -> Option<Done> {
        let job = self.hold_back(job)?;
        match job {
            Job::Borrow { id, file, asker, most } => Some(self.borrow(id, file, asker, most)),
            Job::GiveBack { id } => {
                self.give_back(id);
                None
            }
            Job::Attach { id } => self.attach(id),
            Job::Withdraw { id } => self.withdraw(id),
            Job::Orphan { asker } => {
                self.see_to_orphans(&asker);
                None
            }
            Job::Claim { id, verify, most } => Some(self.claim(id, verify, most)),
            Job::Settle { id } if !self.arrived.contains_key(&id) => Some(Done::PutBack(id)),
            Job::Settle { id } => {
                self.settle(id);
                None
            }
            Job::Slice { id, from, most } => Some(self.read_slice(id, from, most)),
            Job::Resolve { id, indexes } => Some(self.resolve(id, &indexes)),
            Job::Record { id, index, state, attempt } => {
                let records = self.records.entry(id).or_default();
                records.attempts.extend(attempt);
                records.marks.extend(state.map(|state| (index, state)));
                None
            }
            Job::NoteDelay { id } => {
                self.note_delay(id);
                None
            }
            Job::Barrier { id } => {
                self.write(id);
                Some(Done::Passed(id))
            }
            Job::Defer { id, until } => self.defer(id, until),
            Job::Remove { id } => self.remove_from(self.place_of(id), id),
            Job::Configure { router, sites } => {
                (self.router, self.sites) = (router, sites);
                None
            }
            Job::Inspect { ids } => {
                self.write_all();
                self.inspect(&ids);
                None
            }
            Job::Scan { folder } => {
                self.write_all();
                self.scan(folder);
                None
            }
            Job::End => None,
        }
    }

    fn claim(&mut self, id: QueueId, verify: bool, most: usize) -> Done {
        if let Some(lies_in) = self.unremoved.remove(&id) {
            return self.remove_from(lies_in, id).unwrap_or(Done::Gone(id));
        }
        // What was known of it when it could not be read or put aside.
        self.messages.remove(&id);
        self.arrived.remove(&id);
        self.clean.remove(&id);
        let claimed = if verify { self.active.claim_verified(id) } else { self.active.claim(id) };
        // It may be in active/ still, from a removal or deferral that failed.
        let claimed = match claimed {
            Err(QueueError::NotFound(_)) => self.active.reclaim(id),
            result => result,
        };
        match claimed.and_then(|message| Ok((self.read(&message, most)?, message))) {
            Ok((claimed, message)) => {
                if message.lies_in() == Folder::Incoming {
                    self.arrived.insert(id, Instant::now());
                }
                // One that is read in slices knows where to read on.
                if self.messages.len() < MOST_KEPT || claimed.slice.next.is_some() {
                    self.messages.insert(id, Box::new(message));
                } else if message.is_clean() {
                    self.clean.insert(id);
                }
                Done::Claimed(Box::new(claimed))
            }
            Err(QueueError::NotFound(_)) => Done::Gone(id),
            Err(QueueError::NotReady(_)) => Done::Busy(id),
            Err(error @ QueueError::Damaged { .. }) => {
                log::error!("{id}: {error}");
                Done::Gone(id)
            }
            Err(error) => {
                log::warning!("{id}: {error}");
                Done::Busy(id)
            }
        }
    }

    /// What the loop is to know of a message.
    fn read(&self, message: &Message, most: usize) -> Result<Claimed, QueueError> {
        let slice = slice_of(message, 0, most, &self.router)?;
        let addressees = message.recipient_count().saturating_sub(message.expanded_count()?);
        Ok(Claimed {
            file: message.share(),
            template: template_of(message),
            total: message.recipient_count(),
            addressees: usize::try_from(addressees).unwrap_or(usize::MAX),
            flags: flags_of(message),
            slice,
        })
    }

    /// Where a message lies that was claimed.
    fn place_of(&self, id: QueueId) -> Folder {
        if self.arrived.contains_key(&id) { Folder::Incoming } else { Folder::Active }
    }

    /// How long until a message may have to be settled, or is given back; `None` where there is none.
    fn until_settled(&self) -> Option<Duration> {
        // Most are delivered before their time comes: to look at all of them then is less than to keep them in order.
        (!self.arrived.is_empty() || !self.borrowed.is_empty()).then_some(SETTLED_AFTER / 2)
    }

    /// Moves to `active/` what has been waiting for long.
    fn settle_old(&mut self) {
        let now = Instant::now();
        if now < self.next_settling {
            return;
        }
        self.next_settling = now + SETTLED_AFTER / 2;
        let old = self.arrived.iter().filter(|(_, since)| now.duration_since(**since) >= SETTLED_AFTER / 2);
        let old: Vec<QueueId> = old.map(|(id, _)| *id).collect();
        old.into_iter().for_each(|id| self.settle(id));
    }

    /// Moves a message that was taken up in `incoming/` to `active/`. One that cannot be moved is as safe where it is.
    fn settle(&mut self, id: QueueId) {
        let settled = match self.messages.get_mut(&id) {
            Some(message) => message.settle(),
            None => self.active.settle(id),
        };
        match settled {
            Ok(()) | Err(QueueError::NotFound(_)) => drop(self.arrived.remove(&id)),
            Err(error) => {
                log::warning!("{id}: {error}");
                self.arrived.insert(id, Instant::now() + SETTLED_AGAIN);
            }
        }
    }

    /// A message that was claimed: kept, or opened again and kept from then on.
    fn message(&mut self, id: QueueId) -> Result<&mut Message, QueueError> {
        let lies_in = self.place_of(id);
        match self.messages.entry(id) {
            Entry::Occupied(kept) => Ok(kept.into_mut()),
            Entry::Vacant(place) => {
                let message = self.active.reopen(id, lies_in, self.clean.contains(&id))?;
                self.clean.remove(&id);
                Ok(place.insert(Box::new(message)))
            }
        }
    }

    fn read_slice(&mut self, id: QueueId, from: u32, most: usize) -> Done {
        let router = Arc::clone(&self.router);
        match self.message(id).and_then(|message| slice_of(message, from, most, &router)) {
            Ok(slice) => Done::Sliced(id, slice),
            Err(error) => unreadable(id, &error),
        }
    }

    fn resolve(&mut self, id: QueueId, indexes: &[u32]) -> Done {
        let router = Arc::clone(&self.router);
        let mut slice = Slice::default();
        let resolved = self.message(id).and_then(|message| {
            for run in indexes.chunk_by(|one, next| one + 1 == *next) {
                let stored = message.recipients_from(run[0], run.len())?;
                stored.into_iter().for_each(|stored| slice.take(message, stored, &router));
            }
            Ok(())
        });
        match resolved {
            Ok(()) => Done::Resolved(id, slice),
            Err(error) => unreadable(id, &error),
        }
    }

    fn note_delay(&mut self, id: QueueId) {
        if let Err(error) = self.message(id).and_then(Message::note_delay_reported) {
            log::warning!("{id}: note that the sender knows of the delay: {error}; it may be told again");
        }
    }

    /// Writes what was asked: what comes in together is one write for each message.
    fn write_all(&mut self) {
        let ids: Vec<QueueId> = self.records.keys().copied().collect();
        ids.into_iter().for_each(|id| self.write(id));
    }

    /// What cannot be written down is done again: better twice than never, and the log says so.
    fn write(&mut self, id: QueueId) {
        let Some(Records { attempts, marks }) = self.records.remove(&id) else { return };
        match self.message(id).and_then(|message| message.append(&attempts, &marks)) {
            Ok(()) | Err(QueueError::NotFound(_)) => {}
            Err(error) => {
                let count = attempts.len().max(marks.len());
                log::warning!(
                    "{id}: record the outcomes of {count} recipients: {error}; they may be delivered to again"
                );
            }
        }
    }

    fn defer(&mut self, id: QueueId, until: SystemTime) -> Option<Done> {
        self.write(id);
        let (lies_in, is_clean) = (self.place_of(id), self.clean.remove(&id));
        self.arrived.remove(&id);
        let kept = self.messages.remove(&id);
        let kept = kept.map_or_else(|| self.active.reopen(id, lies_in, is_clean), |message| Ok(*message));
        let deferred = kept.and_then(|message| {
            let domains = self.sites.domains_of(&message);
            message.defer(until).map(|()| domains)
        });
        match deferred {
            Ok(domains) => Some(Done::Waits(id, domains)).filter(|_| !self.sites.is_empty()),
            Err(error) => stuck(id, Err(error)),
        }
    }

    /// Looks into messages in `deferred/` that an earlier process put there.
    fn inspect(&self, ids: &[QueueId]) {
        for id in ids {
            // What is not there any more, or cannot be read now, has no domain to be asked for by.
            let domains = self.active.peek(*id).map(|stored| self.sites.domains_of(&stored));
            self.inbox.put(Input::Done(Done::Waits(*id, domains.unwrap_or_default())));
        }
    }

    /// Removes a message that is done, or notes that this is left to do.
    fn remove_from(&mut self, lies_in: Folder, id: QueueId) -> Option<Done> {
        let result = self.active.remove(id, lies_in);
        match result {
            Ok(true) => {
                // Marks that were not written yet would be for nobody.
                self.records.remove(&id);
                log::removed(id);
            }
            Ok(false) => self.note_done(id),
            Err(_) => drop(self.unremoved.insert(id, lies_in)),
        }
        self.write(id);
        self.messages.remove(&id);
        self.arrived.remove(&id);
        self.clean.remove(&id);
        stuck(id, result.map(drop))
    }

    /// Has it known of a message that is done and that an operator has put elsewhere: it would be delivered again when it is
    /// released. Of one with several recipients each was recorded already.
    fn note_done(&mut self, id: QueueId) {
        match self.message(id).map(|message| message.recipient_count()) {
            Ok(1) => self.records.entry(id).or_default().marks.push((0, RecipientState::Done)),
            Ok(_) => {}
            Err(QueueError::NotFound(_)) => log::removed(id),
            Err(error) => log::warning!("{id}: {error}; it may be delivered again"),
        }
    }

    fn scan(&self, folder: Folder) {
        /// How many are told of at once.
        const BATCH: usize = 1000;
        let mut found = Vec::new();
        for entry in self.active.scan(folder) {
            match entry {
                Ok(entry) => found.push((entry.id, entry.modified)),
                Err(error) => {
                    log::warning!("scan {}: {error}", folder.as_str());
                    break;
                }
            }
            if found.len() == BATCH {
                self.inbox.put(Input::Done(Done::Found(folder, std::mem::take(&mut found))));
            }
        }
        if !found.is_empty() {
            self.inbox.put(Input::Done(Done::Found(folder, found)));
        }
        self.inbox.put(Input::Done(Done::Scanned(folder)));
    }
}

/// What becomes of a message whose recipients cannot be read.
fn unreadable(id: QueueId, error: &QueueError) -> Done {
    if matches!(error, QueueError::NotFound(_)) {
        return Done::Gone(id);
    }
    log::warning!("{id}: {error}");
    Done::Stuck(id)
}

/// What the loop must know of a move or removal that failed; an operator may have done it first.
fn stuck(id: QueueId, result: Result<(), QueueError>) -> Option<Done> {
    match result {
        Ok(()) | Err(QueueError::NotFound(_)) => None,
        Err(error) => {
            log::warning!("{id}: {error}");
            Some(Done::Stuck(id))
        }
    }
}

/// Reads recipients and asks for the way of each that is still to be delivered to.
fn slice_of(message: &Message, from: u32, most: usize, router: &Router) -> Result<Slice, QueueError> {
    let mut slice = Slice::default();
    let stored = message.recipients_from(from, most)?;
    let end = stored.last().map_or(message.recipient_count(), |last| last.index + 1);
    slice.next = (end < message.recipient_count()).then_some(end);
    stored.into_iter().for_each(|stored| slice.take(message, stored, router));
    Ok(slice)
}

impl Slice {
    /// Sorts a recipient in, and asks for its way if it is still to be delivered to.
    fn take(&mut self, message: &Message, stored: StoredRecipient, router: &Router) {
        let StoredRecipient { index, state, recipient } = stored;
        match state {
            RecipientState::Pending if !recipient.notify.contains(Notify::EXPANDED) => {}
            RecipientState::Bounced => {
                if recipient.notify.contains(Notify::SUCCESS) {
                    // It may have been expanded before it failed: bounce finds that in the journal.
                    self.unreported_successes.push(index);
                }
                return self.unreported_failures.push(index);
            }
            // One that was expanded on arrival is done but for the report of it.
            RecipientState::Pending | RecipientState::Delivered => {
                return self.unreported_successes.push(index);
            }
            RecipientState::Done => return,
        }
        let way = match router.filter_of(message) {
            Some(filter) => Ok(router.way_through(filter, &recipient.address)),
            None => router.way_of(message.sender(), &recipient.address, message.trace()),
        };
        let address = way.as_ref().map_or_else(|_| recipient.address.clone(), |way| way.recipient.clone());
        self.recipients.push(RequestRecipient {
            index,
            address,
            original: recipient.original,
            notify: recipient.notify,
            orcpt: recipient.orcpt,
        });
        self.ways.push(way);
    }
}

fn flags_of(message: &Message) -> Flags {
    Flags {
        forced_to_expire: message.is_forced_to_expire(),
        delay_reported: message.delay_was_reported(),
        // Only asked where it matters: it takes a read.
        tried_before: message.trace() != Trace::None && message.journal().next().is_some(),
    }
}

/// The request to an agent, without what differs from one delivery to the next.
fn template_of(message: &Message) -> Request {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let envelope = message.envelope_without_recipients();
    Request {
        delivery: 0,
        id: message.id,
        nexthop: String::new(),
        sender: message.sender().clone(),
        arrival: since(message.arrival()),
        active_since: since(SystemTime::now()),
        size: message.content_size(),
        envid: message.envid().map(str::to_owned),
        ret: message.ret(),
        body: message.body(),
        smtputf8: message.smtputf8(),
        trace: message.trace(),
        client: envelope.first_client(),
        first_id: envelope.forwarded.as_ref().and_then(|forwarded| forwarded.id.clone()),
        is_local: envelope.is_local(),
        recipients: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
