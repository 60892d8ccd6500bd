//! `postroad` → master, over `private/master`: one request and one answer for each connection.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::frame::{self, Receiver};

/// The name of master's own socket under `private/`.
pub const SOCKET: &str = "master";

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Read main.cf and master.cf again; keep the running configuration if they contain an error.
    Reload,
    /// End in an orderly way: finish sessions and deliveries.
    Stop,
    /// End at once.
    Abort,
    /// What runs, since when, how busy.
    Status,
    /// Open `maillog_file` anew, everywhere.
    ReopenLog,
}

/// What master answers: lines for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done, or is under way.
    Done(Vec<String>),
    /// It was not done, and why.
    Failed(Vec<String>),
}

/// Asks the master of the instance with this queue directory.
///
/// # Errors
/// What connect, write and read say; `NotFound` or `ConnectionRefused` where no master runs.
pub fn ask(queue_directory: &Path, request: Request) -> io::Result<Answer> {
    let socket = UnixStream::connect(crate::socket_path(queue_directory, true, SOCKET))?;
    frame::send(&socket, &request, None)?;
    Receiver::new().next_message(&socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
