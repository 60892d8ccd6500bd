//! A delivery that another agent makes, asked as the queue manager would ask it: `mailbox_transport`, `best_mx_transport`.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ipc::agent::{Reply, Request};
use ipc::frame::{self, Receiver};
use mail::Outcome;

/// As long as the slowest delivery that the other agent may make.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Has the agent of a transport deliver; `give` gets the number of each recipient and its outcome, which that agent has
/// logged.
///
/// # Errors
/// The agent could not be asked, or went away: some recipients may have no outcome.
pub fn deliver(
    queue_directory: &Path,
    transport: &str,
    request: &Request,
    file: &File,
    mut give: impl FnMut(u32, Outcome),
) -> io::Result<()> {
    let socket = UnixStream::connect(ipc::socket_path(queue_directory, true, transport))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    frame::send(&socket, request, Some(file.as_fd()))?;
    let mut receiver = Receiver::new();
    loop {
        match receiver.next_message::<Reply>(&socket)? {
            Some(Reply::Ready) => {}
            Some(Reply::Outcome { recipient, outcome, .. }) => {
                give(recipient, Outcome { logged: true, ..outcome });
            }
            Some(Reply::Done { .. }) => return Ok(()),
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}
