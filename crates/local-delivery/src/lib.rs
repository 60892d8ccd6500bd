//! The delivery agents local(8), virtual(8) and pipe(8), and spawn(8), which runs programs for connections.
//!
//! Contract: an agent turns one request of the queue manager into one outcome per recipient. It reads the message
//! through the descriptor it was handed, and touches files as the recipient only: a thread takes the recipient's
//! identity for as long as it looks at or writes his files ([`sys::credentials::AsUser`]), and commands run in
//! processes that are the recipient for good. An instance of an ordinary user delivers to that user alone.

mod command;
mod command_user;
mod destination;
mod failure;
mod folder_sync;
#[doc(hidden)]
pub mod fuzzing;
mod letter;
pub mod local;
mod lock;
mod maildir;
mod mbox;
pub mod pipe;
mod program;
mod rights;
#[cfg(test)]
mod scratch;
pub mod spawn;
mod template;
pub mod virtual_mailbox;
