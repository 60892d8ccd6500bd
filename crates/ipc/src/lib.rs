//! What one program of the suite says to another: one file per service, and the vocabulary of the mail log.
//!
//! Contract: every message is made anew from bytes on arrival (the types of `mail` check themselves while they are
//! decoded), every frame has a limit, and a peer that breaks the protocol costs its connection and nothing more.

pub mod agent;
pub mod anvil;
pub mod asking;
pub mod bounce;
pub mod check;
pub mod cleanup;
pub mod control;
pub mod frame;
pub mod log;
pub mod master;
mod offers;
pub mod outbox;
pub mod queue_manager;
pub mod verify;

use std::path::{Path, PathBuf};

/// Where the socket of a service lives: `queue_directory/private/NAME` or `queue_directory/public/NAME`.
#[must_use]
pub fn socket_path(queue_directory: &Path, private: bool, service: &str) -> PathBuf {
    queue_directory.join(if private { "private" } else { "public" }).join(service)
}

/// Where users hand submissions to the pickup service of this name: `queue_directory/submit/NAME`.
#[must_use]
pub fn submission_socket_path(queue_directory: &Path, service: &str) -> PathBuf {
    queue_directory.join(mail::submission::SOCKET_FOLDER).join(service)
}
