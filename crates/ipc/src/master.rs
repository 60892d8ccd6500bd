//! `postroad` → master, over `private/master`: one request and one answer for each connection.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, param};
use serde::{Deserialize, Serialize};

use crate::asking;
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

/// Asks the master of the instance with this configuration.
///
/// # Errors
/// What connect, write and read say; `NotFound` or `ConnectionRefused` where no master runs, `TimedOut` with what to do
/// where one runs and says nothing.
pub fn ask(config: &Config, request: Request) -> io::Result<Answer> {
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let patience = asking::patience(config);
    exchange(&queue_directory, request, patience).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => silent(&queue_directory, patience),
        _ => error,
    })
}

fn exchange(queue_directory: &Path, request: Request, patience: Duration) -> io::Result<Answer> {
    let socket = asking::connect(&crate::socket_path(queue_directory, true, SOCKET), patience)?;
    frame::send(&socket, &request, None)?;
    Receiver::new().next_message(&socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The file that a running master holds locked; it has its process id.
#[must_use]
pub fn pid_file(queue_directory: &Path) -> PathBuf {
    queue_directory.join("pid").join("master.pid")
}

fn silent(queue_directory: &Path, patience: Duration) -> io::Error {
    let pid_file = pid_file(queue_directory);
    let pid = std::fs::read_to_string(&pid_file);
    let pid = pid.map_or_else(|_| format!("the pid in {}", pid_file.display()), |pid| pid.trim().to_owned());
    let text = format!(
        "master says nothing for {} s; it may still do what it was asked. Where it stays silent, \
         `kill -KILL {pid}`, then `postroad start`: no mail is lost by that",
        patience.as_secs()
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}
