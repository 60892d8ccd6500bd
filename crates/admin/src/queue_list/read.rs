//! The queue on disk → parts of a listing.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::log;
use mail::QueueId;
use queue::{Folder, QueueError, ReadOnly, RecipientState, Stored};

use super::{Listed, ListedRecipient, Listing, Part, Place};

/// How many recipients are in memory at a time.
const SLICE: usize = 1000;

/// What is shown of a reason. A remote server may have sent four kilobytes of it for each of ten thousand recipients.
const REASON_LIMIT: usize = 1024;

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
        for id in queue.ids(folder) {
            match id.and_then(|id| Ok((id, queue.open(folder, id)?))) {
                Ok((id, stored)) if stored.is_ready() => list_message(id, place, &stored, null_sender, to)?,
                // Not committed yet, or moved on: it has been listed or will be.
                Ok(_) | Err(QueueError::NotFound(_)) => {}
                Err(error) => log::warning!("{error}; left out of the listing"),
            }
        }
    }
    to.take(Part::End)
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
