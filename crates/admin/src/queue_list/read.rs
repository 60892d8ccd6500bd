//! The queue on disk → the frames of a listing.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::{frame, log};
use mail::QueueId;
use queue::{Folder, QueueError, ReadOnly, RecipientState, Stored};

use super::{Listed, ListedRecipient, Part, Place};

/// How many recipients are in memory at a time.
const SLICE: usize = 1000;

/// What is shown of a reason. A remote server may have sent four kilobytes of it for each of ten thousand recipients.
const REASON_LIMIT: usize = 1024;

/// Messages that a thread reads before it writes what it has of them.
const BATCH: usize = 256;

/// What a thread has in memory at most before it writes, beside the slice it reads.
const FULL: usize = 64 * 1024;

/// The folders that are listed, in the order in which mail passes them: what moves on meanwhile is listed twice rather than
/// not at all. `corrupt/` is none of them, as in Postfix.
const PLACES: [(Folder, Place); 4] = [
    (Folder::Incoming, Place::Incoming),
    (Folder::Active, Place::Active),
    (Folder::Deferred, Place::Deferred),
    (Folder::Hold, Place::Hold),
];

/// Lists the queue. `null_sender` stands for the empty address. A message that cannot be read is logged and left out.
///
/// # Errors
/// What writing says.
pub(crate) fn list(queue: &ReadOnly, null_sender: &str, out: &mut (impl Write + Send)) -> io::Result<()> {
    let mut frames = Vec::new();
    match queue.submissions() {
        Ok(submissions) => {
            for found in submissions {
                let listed = Listed {
                    place: Place::Maildrop,
                    id: &found.name,
                    arrival: since_epoch(found.modified),
                    size: found.file_size,
                    forced_expire: false,
                    sender: &format!("(maildrop queue, sender UID {})", found.uid),
                    next_attempt: None,
                };
                frame::push_message(&mut frames, &Part::Message(listed))?;
                if frames.len() >= FULL {
                    write_out(out, &mut frames)?;
                }
            }
        }
        Err(error) => log::warning!("{error}; submissions are not listed"),
    }
    write_out(out, &mut frames)?;
    let out = Mutex::new(out);
    for (folder, place) in PLACES {
        Reader { queue, folder, place, null_sender, out: &out }.list_folder()?;
    }
    frame::push_message(&mut frames, &Part::End)?;
    write_out(&mut *lock(&out), &mut frames)
}

/// What reads a folder, in two threads.
struct Reader<'a, W> {
    queue: &'a ReadOnly,
    folder: Folder,
    place: Place,
    null_sender: &'a str,
    out: &'a Mutex<W>,
}

impl<W: Write + Send> Reader<'_, W> {
    /// Opening files is what takes the time, and a thread that writes waits for the reader of the listing.
    fn list_folder(&self) -> io::Result<()> {
        let ids = Mutex::new(self.queue.ids(self.folder));
        thread::scope(|scope| {
            // One thread is slower than two, and lists the same.
            let second = thread::Builder::new().spawn_scoped(scope, || self.read(&ids));
            let second =
                second.map_err(|error| log::warning!("start a second thread that reads: {error}")).ok();
            let first = self.read(&ids);
            let second = second.map_or(Ok(Ok(())), thread::ScopedJoinHandle::join);
            first.and(second.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Reads messages until there are no more, or nobody wants them any more.
    fn read(&self, ids: &Mutex<impl Iterator<Item = Result<QueueId, QueueError>>>) -> io::Result<()> {
        let mut frames = Vec::new();
        loop {
            let batch: Vec<_> = lock(ids).by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            for id in batch {
                match id.and_then(|id| Ok((id, self.queue.open(self.folder, id)?))) {
                    Ok((id, stored)) if stored.is_ready() => self.list_message(id, &stored, &mut frames)?,
                    // Not committed yet, or moved on: it has been listed or will be.
                    Ok(_) | Err(QueueError::NotFound(_)) => {}
                    Err(error) => log::warning!("{error}; left out of the listing"),
                }
                if frames.len() >= FULL {
                    write_out(&mut *lock(self.out), &mut frames)?;
                }
            }
            write_out(&mut *lock(self.out), &mut frames)?;
        }
    }

    fn list_message(&self, id: QueueId, stored: &Stored, frames: &mut Vec<u8>) -> io::Result<()> {
        let sender = if stored.sender().is_null() { self.null_sender } else { stored.sender().as_str() };
        let listed = Listed {
            place: self.place,
            id: id.as_str(),
            arrival: since_epoch(stored.arrival()),
            size: stored.content_size(),
            forced_expire: stored.is_forced_to_expire(),
            sender,
            next_attempt: (self.place == Place::Deferred).then(|| since_epoch(stored.modified())),
        };
        frame::push_message(frames, &Part::Message(listed))?;
        let listed = if is_long(stored) {
            // Nothing comes between a message and its recipients: who else has something to write waits.
            let mut out = lock(self.out);
            list_recipients(stored, frames, |frames| write_out(&mut *out, frames))?
        } else {
            list_recipients(stored, frames, |_| Ok(()))?
        };
        if let Err(error) = listed {
            log::warning!("{error}; recipients are left out of the listing");
        }
        Ok(())
    }
}

/// Whether a message has more recipients than are in memory at a time.
fn is_long(stored: &Stored) -> bool {
    usize::try_from(stored.recipient_count()).unwrap_or(usize::MAX) > SLICE
}

/// The outer result is that of writing, the inner one the queue's.
fn list_recipients(
    stored: &Stored,
    frames: &mut Vec<u8>,
    mut after_slice: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<Result<(), QueueError>> {
    let last = match stored.last_attempts() {
        Ok(last) => last,
        Err(error) => return Ok(Err(error)),
    };
    let mut index = 0;
    while index < stored.recipient_count() {
        let slice = match stored.recipients_from(index, SLICE) {
            Ok(slice) => slice,
            Err(error) => return Ok(Err(error)),
        };
        index = slice.last().map_or(u32::MAX, |recipient| recipient.index + 1);
        let pending = slice.iter().filter(|recipient| recipient.state == RecipientState::Pending);
        let listed = pending.map(|recipient| {
            let reason = last.get(&recipient.index).map(|attempt| shown(&attempt.outcome.text));
            ListedRecipient { address: recipient.recipient.address.as_str(), reason }
        });
        frame::push_message(frames, &Part::Recipients(listed.collect()))?;
        after_slice(frames)?;
    }
    Ok(Ok(()))
}

fn write_out(out: &mut impl Write, frames: &mut Vec<u8>) -> io::Result<()> {
    out.write_all(frames)?;
    frames.clear();
    Ok(())
}

/// A thread that panicked has left nothing half done that another one could stumble over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shown(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_LIMIT)]
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
