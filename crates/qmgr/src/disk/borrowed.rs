//! Messages that cleanup has lent: they are in memory only until they are delivered, or cleanup has brought them into the queue.
//! Until then nothing can be written down about them, so that whatever would change a file waits.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use ipc::log;
use mail::QueueId;
use queue::QueueError;

use super::{Done, Job, Shard};
use crate::event_loop::Input;
use crate::offers::Asker;

/// A message that is lent.
pub(super) struct Borrowed {
    /// Whose it is.
    asker: Arc<Asker>,
    /// What is to be done when its file is there.
    waiting: Vec<Job>,
}

impl Shard {
    /// Takes a message up that is lent.
    pub(super) fn borrow(&mut self, id: QueueId, file: File, asker: Arc<Asker>, most: usize) -> Done {
        let borrowed = self.active.claim_lent(id, file);
        match borrowed.and_then(|message| Ok((self.read(&message, most)?, message))) {
            Ok((claimed, message)) => {
                self.messages.insert(id, Box::new(message));
                self.borrowed.insert(id, Borrowed { asker, waiting: Vec::new() });
                Done::Claimed(Box::new(claimed))
            }
            // It stays, and is read again from its file.
            Err(error) => {
                log::warning!("{id}: read a message that is not in the queue yet: {error}");
                Done::Gone(id)
            }
        }
    }

    /// Puts a job aside that has to do with the file of a message which has none yet.
    pub(super) fn hold_back(&mut self, job: Job) -> Option<Job> {
        let changes_file = match job {
            Job::Claim { .. }
            | Job::Settle { .. }
            | Job::Record { .. }
            | Job::NoteDelay { .. }
            | Job::Barrier { .. }
            | Job::Defer { .. }
            | Job::Remove { .. } => true,
            Job::Borrow { .. }
            | Job::GiveBack { .. }
            | Job::Attach { .. }
            | Job::Withdraw { .. }
            | Job::Orphan { .. }
            | Job::Slice { .. }
            | Job::Resolve { .. }
            | Job::Configure { .. }
            | Job::Inspect { .. }
            | Job::Scan { .. }
            | Job::End => false,
        };
        if changes_file && let Some(borrowed) = job.message().and_then(|id| self.borrowed.get_mut(&id)) {
            borrowed.waiting.push(job);
            return None;
        }
        Some(job)
    }

    /// Nothing is owed to any recipient of a message that is lent: it never was in the queue.
    pub(super) fn give_back(&mut self, id: QueueId) {
        self.borrowed.remove(&id);
        self.messages.remove(&id);
    }

    /// Takes up the file of a message that was lent, and does what has waited for it.
    pub(super) fn attach(&mut self, id: QueueId) -> Option<Done> {
        let Some(Borrowed { waiting, .. }) = self.borrowed.remove(&id) else {
            return Some(Done::NotLent(id));
        };
        self.messages.remove(&id);
        let message = match self.active.attach(id) {
            Ok(message) => message,
            // An operator was quicker; or its writer has died over it, and nobody was told that it is taken.
            Err(QueueError::NotFound(_) | QueueError::NotReady(_)) => return Some(Done::Gone(id)),
            Err(error) => {
                log::warning!("{id}: {error}; recipients may be delivered to again");
                return Some(Done::Busy(id));
            }
        };
        self.inbox.put(Input::Done(Done::Attached(id, message.share())));
        self.arrived.insert(id, Instant::now());
        self.messages.insert(id, Box::new(message));
        for job in waiting {
            if let Some(done) = self.perform(job) {
                self.inbox.put(Input::Done(done));
            }
        }
        None
    }

    /// Forgets a message that could not be stored.
    pub(super) fn withdraw(&mut self, id: QueueId) -> Option<Done> {
        self.borrowed.remove(&id)?;
        self.messages.remove(&id);
        Some(Done::Gone(id))
    }

    /// Goes on with what one has lent who is gone: from its file, where it had written that.
    pub(super) fn see_to_orphans(&mut self, gone: &Arc<Asker>) {
        let orphans = self.borrowed.iter().filter(|(_, borrowed)| Arc::ptr_eq(&borrowed.asker, gone));
        let orphans: Vec<QueueId> = orphans.map(|(id, _)| *id).collect();
        for done in orphans.into_iter().filter_map(|id| self.attach(id)).collect::<Vec<_>>() {
            self.inbox.put(Input::Done(done));
        }
    }
}
