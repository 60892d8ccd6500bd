//! The queue on disk: how a message is stored, who may change it, and what a crash leaves behind.
//!
//! Contract: no other crate builds a queue path or reads a queue file's bytes. A program asks [`Root`] for the handle
//! that carries the power it needs and no more: cleanup [`Incoming`], pickup [`Maildrop`], qmgr [`Active`], an agent
//! [`Content`], showq and postcat [`ReadOnly`], postsuper [`Operator`].
//!
//! | state | file | mode | who may change it | what a crash leaves |
//! |---|---|---|---|---|
//! | being written | none yet, or `incoming/X/ID` (`hold/ID`) | 0600 | cleanup | nothing, or a file that is ignored for its mode and removed by [`Active::recover`] when it is an hour old |
//! | committed, not yet synced | `incoming/X/ID` | 0700 | cleanup (fsync) | any of: nothing, an empty file (removed), a whole message (delivered although it was not acknowledged), a torn one (its checksums tell: `corrupt/`) |
//! | waiting for qmgr | `incoming/X/ID` | 0700 | qmgr: claim; postsuper | a whole message |
//! | held | `hold/ID` | 0700 | postsuper: release, delete | a whole message |
//! | being delivered | `active/X/ID` | 0700 | qmgr: recipient states, journal | a whole message; [`Active::recover`] moves it to `incoming/`. What an agent delivered and qmgr had not yet marked is delivered again |
//! | waiting for its next attempt | `deferred/X/ID`, modification time = next attempt | 0700 | qmgr: claim; postsuper | a whole message |
//! | done | none | | | an `active/` file whose recipients are all done, if the unlink was lost: claimed again and removed |
//! | moved by a rename of which a power cut left both names | one file in two folders | 0700 | qmgr: [`Active::recover`] | one name: `hold/` if that is one of them, else `incoming/` |
//! | damaged | `corrupt/ID` | 0700 | the operator | the bytes that were found |
//!
//! A file's name is the queue id; `X` is one of sixteen folders `0` to `F` chosen by [`mail::QueueId::spread`]. A message is one
//! file from its commit to its end, so that each change of state is one atomic rename. What the bytes mean is specified
//! in postroad-queue(5) and written down once, in `format`.
//!
//! Recipient states and journal records are not synced: the page cache outlives every process, and what only a power
//! cut can take away is the memory of an attempt, so that a recipient may get a message twice but never not at all.

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
pub use incoming::{Incoming, Writer};
pub use journal::Journal;
pub use listing::{ReadOnly, Submission};
pub use maildrop::{Dropped, Maildrop};
pub use message::Message;
pub use operator::{Operator, Repaired};
pub use root::{Owner, Ownership, Root};
pub use stored::{Stored, StoredRecipient};

#[cfg(test)]
mod tests;
