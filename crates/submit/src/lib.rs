//! Mail from the machine itself: `sendmail`, which is also `mailq` and `newaliases`, and `postdrop`.
//!
//! Contract: these programs are run by every user, with whatever arguments, environment and limits that user chose.
//! `sendmail` never has more rights than its user. `postdrop` is set-gid where users may not write to `maildrop/`
//! themselves: it believes nothing but the main.cf it trusts, and its input is one more message from anybody. Exit
//! code 0 means that the message is on disk for good.

mod authorization;
mod dialogue;
mod failure;
mod handover;
mod invoker;
mod maildrop;
mod message;
mod options;
mod outgoing;
mod postdrop;
mod sendmail;
mod settings;
mod submission;

pub use postdrop::postdrop;
pub use sendmail::{mailq, newaliases, sendmail};
