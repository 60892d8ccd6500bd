//! Nothing that was acknowledged is lost, whenever programs are killed or the power goes.
//!
//! The programs of a mail system are followed with ptrace(2) while a message goes its way. From what is seen follow the
//! cases to try, so that they grow with the code, and nothing here knows how a queue file is written. What became of a
//! message is asked of the mail system's commands and read from mailboxes.

// Clippy knows tests by their attribute; what they share has none.
#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stdout)]
#![cfg(target_arch = "x86_64")]

mod calls;
mod disk;
mod kill;
mod plan;
mod power_cut;
mod recording;
mod replay;
mod site;
mod tracer;
mod ways;
