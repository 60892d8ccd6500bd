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
            send_all(connection, stream).map_err(|e| words(&e))?;
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

/// Sends what TLS has to say. A process that stood still for a while finds its calls interrupted, which is no failure.
///
/// # Errors
/// What the stream says.
pub(super) fn send_all<T: SideData>(
    connection: &mut ConnectionCommon<T>,
    stream: &mut impl Write,
) -> io::Result<()> {
    while connection.wants_write() {
        match connection.write_tls(stream) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => drop(result?),
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::tls::client::{self, Level, Peer};
    use crate::tls::server;
    use crate::tls::testing::{Authority, NEW_KEY, config};

    /// A socket every other call of which is interrupted.
    struct Restless(UnixStream, bool);

    impl Restless {
        fn rest(&mut self) -> io::Result<()> {
            self.1 = !self.1;
            if self.1 { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
        }
    }

    impl Read for Restless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.rest()?;
            self.0.read(buffer)
        }
    }

    impl Write for Restless {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.rest()?;
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Socket for Restless {
        fn set_patience(&self, patience: Duration) -> io::Result<()> {
            self.0.set_patience(patience)
        }
    }

    #[test]
    fn interruptions_break_no_connection() {
        let authority = Authority::new();
        authority.issue("good", "mail.example.com", NEW_KEY);
        let chain = format!(
            "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n",
            authority.path("good.pem"),
            authority.path("good.key")
        );
        let server = server::Context::new(&config(&chain), None).unwrap();
        let client = client::Context::new(&config(""), "smtp", None).unwrap();
        let policy = client.policy_of_level(Level::Encrypt).unwrap();
        let [ours, theirs] = <[_; 2]>::from(UnixStream::pair().unwrap()).map(|end| Restless(end, false));
        let deadline = Instant::now() + Duration::from_secs(20);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut theirs = theirs;
                let mut session = server.handshake(&mut theirs, &"client", deadline).unwrap();
                session.write_all(&mut theirs, b"220 hello\r\n").unwrap();
                let mut said = [0; 6];
                while session.read(&mut theirs, &mut said).is_err() {}
                assert_eq!(said, *b"EHLO\r\n");
            });
            let peer = Peer { host: "mail.example.com", address: None, port: 25, nexthop: "example.com" };
            let mut stream = client.handshake(ours, &policy, &peer, deadline).unwrap();
            let mut said = [0; 11];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(said, *b"220 hello\r\n");
            stream.write_all(b"EHLO\r\n").unwrap();
            stream.flush().unwrap();
        });
    }
}
