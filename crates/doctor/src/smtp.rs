//! As much of SMTP as it takes to see who answers, and to ask what must be refused.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// A server that is well answers sooner; one that tests its clients takes its time.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// More than any reply.
const MAX_REPLY: u64 = 64 * 1024;

/// A dialogue with a server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and reads the greeting.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<(Self, String)> {
        Self::over(TcpStream::connect_timeout(&to, CONNECT_PATIENCE)?)
    }

    /// As [`Client::connect`], from an address of this host.
    pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<(Self, String)> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
        bind(raw, &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        connect(raw, &SockaddrStorage::from(to))?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<(Self, String)> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self { stream: BufReader::new(stream) };
        let greeting = client.reply()?;
        Ok((client, greeting))
    }

    /// Says a line, and gives the last line of the reply.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<String> {
        let mut limited = (&mut self.stream).take(MAX_REPLY);
        loop {
            let mut line = String::new();
            if limited.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}

/// Recipients elsewhere, in all the forms that have opened relays: RFC 5321 source routes, the percent hack, bang paths,
/// quotes that hide a domain.
pub(crate) fn relay_forms(host: &str, ip: IpAddr) -> Vec<String> {
    let literal = if ip.is_ipv4() { format!("[{ip}]") } else { format!("[IPv6:{ip}]") };
    let (user, other) = ("relaytest", "relay-test.invalid");
    vec![
        format!("<{user}@{other}>"),
        format!("<{user}%{other}@{host}>"),
        format!("<{user}%{other}@{literal}>"),
        format!("<{user}%{other}>"),
        format!("<\"{user}@{other}\">"),
        format!("<\"{user}%{other}\">"),
        format!("<\"{user}@{other}\"@{host}>"),
        format!("<{user}@{other}@{host}>"),
        format!("<@{host}:{user}@{other}>"),
        format!("<{other}!{user}>"),
        format!("<{other}!{user}@{host}>"),
        format!("<{other}!{user}@{literal}>"),
    ]
}

/// The forms that a server takes from a stranger. A form that is this host's own name for a mailbox is no relaying: those
/// with a quoted or odd local part and our own domain are judged by whether the plain one is taken.
pub(crate) fn accepted_forms(from: IpAddr, to: SocketAddr, host: &str) -> io::Result<Vec<String>> {
    let mut accepted = Vec::new();
    // A server ends sessions with many errors: each form has its own.
    for form in relay_forms(host, to.ip()) {
        let (mut client, greeting) = Client::connect_from(from, to)?;
        if !greeting.starts_with("220") {
            return Err(io::Error::other(greeting));
        }
        client.say("EHLO relay-test.invalid")?;
        client.say(&format!("MAIL FROM:<relaytest@{host}>"))?;
        if client.say(&format!("RCPT TO:{form}"))?.starts_with('2') {
            accepted.push(form);
        }
        // Nothing is sent: the session ends before DATA.
        let _ = client.say("QUIT");
    }
    Ok(accepted)
}
