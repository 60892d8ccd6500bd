//! The queue on disk → parts of a listing.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::log;
use mail::QueueId;
use queue::{Folder, QueueError, ReadOnly, RecipientState, Stored};

use super::{Listed, ListedRecipient, Listing, Part, Place};

/// How many recipients are in memory at a time.
const SLICE: usize = 1000;

/// What is shown of a reason. A remote server may have sent four kilobytes of it for each of ten thousand recipients.
const REASON_LIMIT: usize = 1024;

/// Threads that read: opening files is what takes the time, and the reader of the listing needs a processor, too.
const THREADS: usize = 2;

/// Messages that a thread reads before it gives them on.
const BATCH: usize = 128;

/// Messages that were read together, and the rest of the last of them where that is long.
struct Run {
    parts: Vec<Part>,
    more: Option<Receiver<Part>>,
}

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
/// What the receiver of the listing says.
pub(crate) fn list(queue: &ReadOnly, null_sender: &str, to: &mut impl Listing) -> io::Result<()> {
    match queue.submissions() {
        Ok(submissions) => {
            for found in submissions {
                to.take(Part::Message(Listed {
                    place: Place::Maildrop,
                    id: found.name,
                    arrival: since_epoch(found.modified),
                    size: found.file_size,
                    forced_expire: false,
                    sender: format!("(maildrop queue, sender UID {})", found.uid),
                    next_attempt: None,
                }))?;
            }
        }
        Err(error) => log::warning!("{error}; submissions are not listed"),
    }
    for (folder, place) in PLACES {
        list_folder(queue, folder, place, null_sender, to)?;
    }
    to.take(Part::End)
}

/// Lists a folder, with some threads that open files: that is what takes the time.
fn list_folder(
    queue: &ReadOnly,
    folder: Folder,
    place: Place,
    null_sender: &str,
    to: &mut impl Listing,
) -> io::Result<()> {
    let ids = Mutex::new(queue.ids(folder));
    thread::scope(|scope| {
        let (runs, received) = sync_channel(THREADS);
        for number in 0..THREADS {
            let (ids, runs) = (&ids, runs.clone());
            let reading = move || read(queue, folder, place, null_sender, ids, &runs);
            match thread::Builder::new().spawn_scoped(scope, reading) {
                // One is slower than all of them.
                Err(_) if number > 0 => break,
                Err(error) => {
                    log::warning!(
                        "start a thread to read the folder {folder}/: {error}; the listing ends here"
                    );
                    return Err(error);
                }
                Ok(_) => {}
            }
        }
        drop(runs);
        received.into_iter().try_for_each(|Run { parts, more }| {
            parts.into_iter().chain(more.into_iter().flatten()).try_for_each(|part| to.take(part))
        })
    })
}

/// Reads messages until there are no more, or nobody wants them any more.
fn read(
    queue: &ReadOnly,
    folder: Folder,
    place: Place,
    null_sender: &str,
    ids: &Mutex<impl Iterator<Item = Result<QueueId, QueueError>>>,
    runs: &SyncSender<Run>,
) {
    loop {
        let batch: Vec<_> = ids.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return;
        }
        let mut parts = Vec::new();
        for id in batch {
            let sent = match id.and_then(|id| Ok((id, queue.open(folder, id)?))) {
                Ok((id, stored)) if stored.is_ready() && is_long(&stored) => {
                    let (part, more) = sync_channel(1);
                    let run = Run { parts: std::mem::take(&mut parts), more: Some(more) };
                    runs.send(run).map_err(|_| gone()).and_then(|()| {
                        let mut to = |listed| part.send(listed).map_err(|_| gone());
                        list_message(id, place, &stored, null_sender, &mut to)
                    })
                }
                Ok((id, stored)) if stored.is_ready() => {
                    let mut to = |listed| {
                        parts.push(listed);
                        Ok(())
                    };
                    list_message(id, place, &stored, null_sender, &mut to)
                }
                // Not committed yet, or moved on: it has been listed or will be.
                Ok(_) | Err(QueueError::NotFound(_)) => Ok(()),
                Err(error) => {
                    log::warning!("{error}; left out of the listing");
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
        if runs.send(Run { parts, more: None }).is_err() {
            return;
        }
    }
}

/// Whether a message has more recipients than are in memory at a time.
fn is_long(stored: &Stored) -> bool {
    usize::try_from(stored.recipient_count()).unwrap_or(usize::MAX) > SLICE
}

/// Who wanted the listing is gone.
fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn list_message(
    id: QueueId,
    place: Place,
    stored: &Stored,
    null_sender: &str,
    to: &mut impl Listing,
) -> io::Result<()> {
    let sender = if stored.sender().is_null() { null_sender } else { stored.sender().as_str() };
    to.take(Part::Message(Listed {
        place,
        id: id.to_string(),
        arrival: since_epoch(stored.arrival()),
        size: stored.content_size(),
        forced_expire: stored.is_forced_to_expire(),
        sender: sender.to_owned(),
        next_attempt: (place == Place::Deferred).then(|| since_epoch(stored.modified())),
    }))?;
    if let Err(error) = list_recipients(stored, to)? {
        log::warning!("{error}; recipients are left out of the listing");
    }
    Ok(())
}

/// The outer result is the receiver's, the inner one the queue's.
fn list_recipients(stored: &Stored, to: &mut impl Listing) -> io::Result<Result<(), QueueError>> {
    let mut last = match stored.last_attempts() {
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
        let pending = slice.into_iter().filter(|recipient| recipient.state == RecipientState::Pending);
        let listed = pending.map(|recipient| {
            let reason = last.remove(&recipient.index).map(|attempt| shown(attempt.outcome.text));
            ListedRecipient { address: recipient.recipient.address, reason }
        });
        to.take(Part::Recipients(listed.collect()))?;
    }
    Ok(Ok(()))
}

fn shown(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_LIMIT));
    reason
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
