//! The queue on disk: how a message is stored, who may change it, and what a crash leaves behind.
//!
//! Contract: no other crate builds a queue path or reads a queue file's bytes. A program asks [`Root`] for the handle
//! that carries the power it needs and no more: cleanup [`Incoming`], pickup [`Maildrop`], qmgr [`Active`], an agent
//! [`Content`], showq and postcat [`ReadOnly`], postsuper [`Operator`].
//!
//! | state | file | mode | who may change it | what a crash leaves |
//! |---|---|---|---|---|
//! | being written | none yet, or `incoming/X/ID` (`hold/ID`) | 0600 | cleanup | nothing, or a file that is ignored for its mode and removed by [`Active::recover`] when it is a day old |
//! | lent: to be delivered at once ([`Lent`]) | a sealed file in memory | | nobody | nothing: nobody was told that it is taken |
//! | ready, not yet synced | `incoming/X/ID` | 0700 | cleanup (fsync), qmgr: claim, and all that follows | any of: nothing, an empty file (removed), a whole message (delivered although it was not acknowledged), a torn one (its checksums tell: `corrupt/`) |
//! | waiting for qmgr | `incoming/X/ID` | 0700 | qmgr: claim; postsuper | a whole message |
//! | held | `hold/ID` | 0700 | postsuper: release, delete | a whole message |
//! | being delivered since a moment | `incoming/X/ID` | 0700 | qmgr: the journal, [`Active::settle`]; postsuper | as the next |
//! | being delivered | `active/X/ID` | 0700 | qmgr: the journal; postsuper | a whole message; [`Active::recover`] moves it to `incoming/`. What an agent delivered and qmgr had not yet marked is delivered again |
//! | waiting for its next attempt | `deferred/X/ID`, modification time = next attempt | 0700 | qmgr: claim; postsuper | a whole message |
//! | done | none | | | a file whose recipients are all done, where it was, if the unlink was lost: claimed again and removed |
//! | moved by a rename of which a power cut left both names | one file in two folders | 0700 | qmgr: [`Active::recover`] | one name: `hold/` if that is one of them, else `incoming/` |
//! | damaged | `corrupt/ID` | 0700 | the operator | the bytes that were found |
//!
//! A file's name is the queue id; `X` is one of sixteen folders `0` to `F` chosen by [`mail::QueueId::spread`]. A message is one
//! file from its commit to its end, so that each change of state is one atomic rename. What the bytes mean is specified
//! in postroad-queue(5) and written down once, in `format`.
//!
//! What became of recipients is appended to the file and not synced: the page cache outlives every process, and what only
//! a power cut can take away is the memory of an attempt, so that a recipient may get a message twice but never not at all.
//!
//! For that, a mark that can be read after a power cut must not be older than what it speaks of, and agents do not wait for
//! the journal of the file system ([`sys::fs::ordering_device`]): a delivery is a name in a Maildir. So a mark is never
//! written over something, which is data, and reaches the disk whenever it pleases. It makes the file longer, and the length is
//! committed in order with names: with ext4 by the transaction that is open when it is written, or by a later one that
//! allocates the block; with XFS when the data is written. Either the length is lost, or the name is there. Data that is not
//! there in time reads as zeros, or as what was there before, and has no right checksum. What could have one is a record
//! that reached the disk while the length did not, in a life that a power cut ended: so records are of a life
//! ([`Active`] has a number for it), and the first one that another life appends to a file is waited for.

mod active;
mod content;
mod error;
mod folder;
mod format;
mod incoming;
mod journal;
mod listing;
mod maildrop;
mod message;
mod operator;
mod root;
mod second_names;
mod stored;

pub use active::{Active, Recovered};
pub use content::Content;
pub use error::{Damage, QueueError};
pub use folder::{Entry, Folder, Scan};
pub use format::attempt::Attempt;
pub use format::envelope::RecipientState;
pub use incoming::{Incoming, Lent, Writer};
pub use journal::Journal;
pub use listing::{ReadOnly, Submission};
pub use maildrop::{Dropped, Maildrop};
pub use message::Message;
pub use operator::{Operator, Repaired};
pub use root::{Mended, Owner, Ownership, Root};
pub use stored::{Stored, StoredRecipient};

#[cfg(test)]
mod tests;
