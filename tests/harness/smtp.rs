//! A client that says exactly what a scenario wants it to say.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt, socket, sockopt};

/// A connection to an SMTP server.
pub struct Smtp {
    reader: BufReader<TcpStream>,
}

/// Has a connection end with a reset as soon as it is closed.
///
/// # Panics
/// When the system refuses.
pub(crate) fn reset(stream: &TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &at_once).expect("have a connection end with a reset");
}

/// A server's reply: its code and its lines without the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The text of each line.
    pub lines: Vec<String>,
}

impl Reply {
    /// All lines in one.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

impl Smtp {
    /// Connects and reads the greeting.
    ///
    /// # Panics
    /// When nobody listens or the greeting is not 220.
    #[must_use]
    pub fn connect(port: u16) -> Self {
        let mut client = Self::connect_silently(port);
        let greeting = client.read_reply();
        assert_eq!(greeting.code, 220, "{greeting:?}");
        client
    }

    /// Connects and does not read.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect_silently(port: u16) -> Self {
        Self::try_connect(port).expect("connect to the instance")
    }

    /// Connects and does not read, `None` if nobody listens.
    #[must_use]
    pub fn try_connect(port: u16) -> Option<Self> {
        Some(Self::over(TcpStream::connect(("127.0.0.1", port)).ok()?))
    }

    /// The same from another address of this host, `None` also if it has no such address.
    #[must_use]
    pub fn try_connect_from(address: Ipv4Addr, port: u16) -> Option<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
        let ends = [SocketAddrV4::new(address, 0), SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)];
        let [own, server] = ends.map(SockaddrIn::from);
        socket::bind(socket.as_raw_fd(), &own).ok()?;
        socket::connect(socket.as_raw_fd(), &server).ok()?;
        Some(Self::over(TcpStream::from(socket)))
    }

    /// Speaks over this connection, of which nothing has been read yet.
    ///
    /// # Panics
    /// When the system refuses a limit to the time of a read.
    #[must_use]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(crate::PATIENCE)).expect("limit the time of a read");
        Self { reader: BufReader::new(stream) }
    }

    /// Waits no longer than this for a reply; a server that takes longer counts as gone.
    ///
    /// # Panics
    /// As [`Smtp::over`].
    #[must_use]
    pub fn within(self, patience: std::time::Duration) -> Self {
        self.reader.get_ref().set_read_timeout(Some(patience)).expect("limit the time of a read");
        self
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the server closed the connection.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("send to the instance");
    }

    /// Sends bytes and does not mind if the server closed.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Ends as a machine does that forgets its connections: the server hears of a reset.
    pub fn reset(self) {
        reset(self.reader.get_ref());
    }

    /// Sends a command and reads its reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send_raw(format!("{line}\r\n").as_bytes());
        self.read_reply()
    }

    /// Sends a command and reads its reply, `None` if the server closed.
    pub fn try_command(&mut self, line: &str) -> Option<Reply> {
        if self.try_send_raw(format!("{line}\r\n").as_bytes()) { self.try_read_reply() } else { None }
    }

    /// Sends a command whose reply must have this code.
    ///
    /// # Panics
    /// When it has another.
    pub fn expect(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line} was answered {reply:?}");
        reply
    }

    /// Reads one reply.
    ///
    /// # Panics
    /// When the server closes or does not speak SMTP.
    pub fn read_reply(&mut self) -> Reply {
        self.try_read_reply().expect("a reply before the connection closes")
    }

    /// Reads one reply, `None` if the server closed.
    pub fn try_read_reply(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            let code: u16 = line.get(..3)?.parse().ok()?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(Reply { code, lines });
            }
        }
    }

    /// Sends one message; the content's lines end in CRLF already, without the final dot. Gives the final reply.
    pub fn message(&mut self, sender: &str, recipients: &[&str], content: &str) -> Reply {
        self.expect(&format!("MAIL FROM:<{sender}>"), 250);
        for recipient in recipients {
            self.expect(&format!("RCPT TO:<{recipient}>"), 250);
        }
        self.expect("DATA", 354);
        self.send_raw(content.as_bytes());
        self.command(if content.ends_with("\r\n") || content.is_empty() { "." } else { "\r\n." })
    }
}
