//! The handshake over a socket whose waiting can be limited, for both sides.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustls::{ConnectionCommon, SideData};

/// The least time that a system call is given to end in: a timeout of zero means for ever.
const LEAST: Duration = Duration::from_millis(1);

/// A socket whose waiting can be limited.
pub trait Socket: Read + Write {
    /// Limits each read and each write to come.
    ///
    /// # Errors
    /// What `setsockopt` says.
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience.max(LEAST)))?;
        self.set_write_timeout(Some(patience.max(LEAST)))
    }
}

impl Socket for UnixStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience.max(LEAST)))?;
        self.set_write_timeout(Some(patience.max(LEAST)))
    }
}

/// The handshake, to the last byte of ours.
///
/// # Errors
/// The reason, in words for the log.
pub(super) fn shake_hands<T: SideData>(
    connection: &mut ConnectionCommon<T>,
    stream: &mut impl Socket,
    deadline: Instant,
) -> Result<(), String> {
    while connection.is_handshaking() || connection.wants_write() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("timeout".into());
        }
        stream.set_patience(left).map_err(|e| e.to_string())?;
        if connection.wants_write() {
            connection.write_tls(stream).map_err(|e| words(&e))?;
            continue;
        }
        match connection.read_tls(stream) {
            Ok(0) => return Err("lost connection".into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(words(&error)),
        }
        if let Err(error) = connection.process_new_packets() {
            // The alert that says what is wrong; it may never arrive.
            let _ = connection.write_tls(stream);
            return Err(error.to_string());
        }
    }
    Ok(())
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "timeout".into(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
            "lost connection".into()
        }
        _ => error.to_string(),
    }
}
