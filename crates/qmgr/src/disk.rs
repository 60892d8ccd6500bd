//! The threads that touch the queue and ask tables, so that the loop never waits for a disk.
//!
//! A message belongs to one thread from claim to removal: what is written about it keeps its order without a lock.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::agent::{Request, RequestRecipient};
use ipc::log;
use mail::{Outcome, QueueId};
use queue::{Active, Attempt, Folder, Message, QueueError, RecipientState};
use service::{Fatal, Mailbox};

use crate::event_loop::Input;
use crate::routing::{Router, Way};

/// Threads: enough to keep several removals in the file system's journal at once.
const THREADS: usize = 4;

/// What the loop wants done.
pub(crate) enum Job {
    /// Take a message up. `verify`: it has lain on the disk, so that its content must be compared with its checksum.
    Claim { id: QueueId, verify: bool },
    /// Read its recipients from this number on.
    Slice { id: QueueId, from: u32 },
    /// Write down what became of a recipient.
    Record { id: QueueId, index: u32, state: Option<RecipientState>, attempt: Option<Attempt> },
    /// Say when all that was asked before is done.
    Barrier { id: QueueId },
    /// Put it aside.
    Defer { id: QueueId, until: SystemTime },
    /// Remove it.
    Remove { id: QueueId },
    /// Route by another configuration.
    Configure { router: Arc<Router>, slice: usize },
    /// List what is deferred, or what lies in `incoming/`.
    Scan { folder: Folder },
    /// Nothing more will be asked.
    End,
}

/// What was done.
pub(crate) enum Done {
    /// The message is active.
    Claimed(Box<Claimed>),
    /// It is no longer there, or was found to be damaged: forget it.
    Gone(QueueId),
    /// It cannot be taken up at this moment: come again.
    Busy(QueueId),
    /// More recipients.
    Sliced(QueueId, Slice),
    /// The barrier was reached.
    Passed(QueueId),
    /// It could be neither put aside nor removed: it is still in `active/`.
    Stuck(QueueId),
    /// Messages that a scan found, with the time of their next attempt.
    Found(Folder, Vec<(QueueId, SystemTime)>),
}

/// A message that was taken up.
pub(crate) struct Claimed {
    pub(crate) file: Arc<File>,
    pub(crate) template: Request,
    pub(crate) total: u32,
    pub(crate) forced_to_expire: bool,
    pub(crate) slice: Slice,
}

/// Some recipients of a message and their ways.
#[derive(Default)]
pub(crate) struct Slice {
    /// Those to deliver to.
    pub(crate) recipients: Vec<RequestRecipient>,
    /// The way of each of them.
    pub(crate) ways: Vec<Result<Way, Outcome>>,
    /// Those that failed in an earlier attempt whose report could not be written.
    pub(crate) unreported_failures: Vec<u32>,
    /// Those that were reached in an earlier attempt, likewise.
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
        slice: usize,
        inbox: &Arc<Mailbox<Input>>,
    ) -> Result<Self, Fatal> {
        let mut disk = Self { shards: Vec::with_capacity(THREADS), threads: Vec::with_capacity(THREADS) };
        for _ in 0..THREADS {
            let jobs = Arc::new(Mailbox::default());
            let shard = Shard {
                active: active.clone(),
                router: Arc::clone(router),
                slice,
                inbox: Arc::clone(inbox),
                messages: HashMap::new(),
            };
            let waiting = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name("disk".into());
            disk.threads.push(thread.spawn(move || shard.run(&waiting))?);
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
        let shard = match &job {
            Job::Configure { router, slice } => {
                for shard in &self.shards[1..] {
                    shard.put(Job::Configure { router: Arc::clone(router), slice: *slice });
                }
                0
            }
            Job::Scan { .. } | Job::End => 0,
            Job::Claim { id, .. }
            | Job::Slice { id, .. }
            | Job::Record { id, .. }
            | Job::Barrier { id }
            | Job::Defer { id, .. }
            | Job::Remove { id } => usize::from(id.spread()) % self.shards.len(),
        };
        self.shards[shard].put(job);
    }
}

struct Shard {
    active: Active,
    router: Arc<Router>,
    slice: usize,
    inbox: Arc<Mailbox<Input>>,
    messages: HashMap<QueueId, Message>,
}

impl Shard {
    fn run(mut self, waiting: &Mailbox<Job>) {
        let mut jobs = Vec::new();
        loop {
            waiting.take(&mut jobs, None);
            for job in jobs.drain(..) {
                if matches!(job, Job::End) {
                    return;
                }
                if let Some(done) = self.perform(job) {
                    self.inbox.put(Input::Done(done));
                }
            }
        }
    }

    fn perform(&mut self, job: Job) -> Option<Done> {
        match job {
            Job::Claim { id, verify } => Some(self.claim(id, verify)),
            Job::Slice { id, from } => Some(self.read_slice(id, from)),
            Job::Record { id, index, state, attempt } => {
                self.record(id, index, state, attempt.as_ref());
                None
            }
            Job::Barrier { id } => Some(Done::Passed(id)),
            Job::Defer { id, until } => self.defer(id, until),
            Job::Remove { id } => self.remove(id),
            Job::Configure { router, slice } => {
                (self.router, self.slice) = (router, slice);
                None
            }
            Job::Scan { folder } => {
                self.scan(folder);
                None
            }
            Job::End => None,
        }
    }

    fn claim(&mut self, id: QueueId, verify: bool) -> Done {
        let claimed = if verify { self.active.claim_verified(id) } else { self.active.claim(id) };
        // It may be in active/ still, from a removal or deferral that failed.
        let claimed = match claimed {
            Err(QueueError::NotFound(_)) => self.active.reclaim(id),
            result => result,
        };
        let claimed = claimed.and_then(|message| {
            let slice = slice_of(&message, 0, self.slice, &self.router)?;
            Ok((message, slice))
        });
        match claimed {
            Ok((message, slice)) => {
                let claimed = Claimed {
                    file: message.share(),
                    template: template_of(&message),
                    total: message.recipient_count(),
                    forced_to_expire: message.is_forced_to_expire(),
                    slice,
                };
                self.messages.insert(id, message);
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

    fn read_slice(&mut self, id: QueueId, from: u32) -> Done {
        let Some(message) = self.messages.get(&id) else { return Done::Gone(id) };
        match slice_of(message, from, self.slice, &self.router) {
            Ok(slice) => Done::Sliced(id, slice),
            Err(error) => {
                log::warning!("{id}: {error}");
                Done::Stuck(id)
            }
        }
    }

    /// What cannot be written down is done again: better twice than never, and the log says so.
    fn record(&mut self, id: QueueId, index: u32, state: Option<RecipientState>, attempt: Option<&Attempt>) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let journal = attempt.map_or(Ok(()), |attempt| message.append_attempt(attempt));
        let written = journal.and_then(|()| state.map_or(Ok(()), |state| message.mark(index, state)));
        match written {
            Ok(()) | Err(QueueError::NotFound(_)) => {}
            Err(error) => log::warning!(
                "{id}: record the outcome of recipient {index}: {error}; it may be delivered again"
            ),
        }
    }

    fn defer(&mut self, id: QueueId, until: SystemTime) -> Option<Done> {
        let result = self.messages.remove(&id)?.defer(until);
        stuck(id, result)
    }

    fn remove(&mut self, id: QueueId) -> Option<Done> {
        let result = self.messages.remove(&id)?.remove();
        if result.is_ok() {
            log::removed(id);
        }
        stuck(id, result)
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
    }
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
    for stored in stored {
        match stored.state {
            RecipientState::Pending => {}
            RecipientState::Bounced => slice.unreported_failures.push(stored.index),
            RecipientState::Delivered => slice.unreported_successes.push(stored.index),
            RecipientState::Done => continue,
        }
        if stored.state != RecipientState::Pending {
            continue;
        }
        let recipient = stored.recipient;
        let way = match message.content_filter() {
            Some(filter) => Ok(router.way_through(filter, &recipient.address)),
            None => router.way_of(message.sender(), &recipient.address),
        };
        let address = way.as_ref().map_or_else(|_| recipient.address.clone(), |way| way.recipient.clone());
        slice.recipients.push(RequestRecipient {
            index: stored.index,
            address,
            original: recipient.original,
            notify: recipient.notify,
            orcpt: recipient.orcpt,
        });
        slice.ways.push(way);
    }
    Ok(slice)
}

/// The request to an agent, without what differs from one delivery to the next.
fn template_of(message: &Message) -> Request {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
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
        client: message.client().clone(),
        recipients: Vec::new(),
    }
}
