//! How commands ask a daemon: somebody waits for them, so none waits for a silent peer for long.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use config::{Config, param};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

/// How long a command waits for a daemon that says nothing, whatever `ipc_timeout` says.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a daemon may say nothing to a command.
#[must_use]
pub fn patience(config: &Config) -> Duration {
    let patience: Duration = config.get(param::IPC_TIMEOUT);
    if patience.is_zero() { LONGEST } else { patience.min(LONGEST) }
}

/// A connection that waits no longer than this for its place in the row, nor for each piece that is sent or comes: then
/// the error is `WouldBlock`.
///
/// # Errors
/// What the system says.
pub fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}
