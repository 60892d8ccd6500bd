//! Dovecot's authentication protocol, as its manual publishes it ("Authentication Protocol", version 1): lines of fields
//! parted by tabs.
//!
//! One connection serves all sessions of the process: each exchange has a number, and a thread hands the answers out.
//! Dovecot knows a client by its process id and takes one connection from each.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Step;
use crate::client::Client;

/// How long Dovecot may take: it delays its refusals, and more for a client that fails often.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest line: a challenge with its fields.
const MAX_LINE: u64 = 64 * 1024;
/// More mechanisms than there are.
const MAX_MECHANISMS: usize = 64;

/// What is said to a client when the connection broke.
const LOST: &str = "Connection lost to authentication server";

/// Where Dovecot listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// `host:port`
    Inet(String),
}

impl Address {
    /// Reads `smtpd_sasl_path`: `inet:host:port`, or a path, which is relative to the queue directory.
    pub(super) fn parse(path: &str, queue_directory: &std::path::Path) -> Self {
        match path.strip_prefix("inet:") {
            Some(host) => Self::Inet(host.to_owned()),
            None => Self::Unix(queue_directory.join(path.strip_prefix("unix:").unwrap_or(path))),
        }
    }
}

/// A mechanism as Dovecot announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mechanism {
    pub(crate) name: String,
    /// `plaintext`, `dictionary`, `active`, `anonymous`, `mutual-auth`, `forward-secrecy`, `private`.
    pub(crate) traits: Vec<String>,
}

/// The way to Dovecot, shared by all sessions.
pub(super) struct Server {
    address: Address,
    /// As it stands in the log.
    path: String,
    service: String,
    link: Mutex<Option<Arc<Link>>>,
}

/// An open connection.
struct Link {
    mechanisms: Vec<Mechanism>,
    writer: Mutex<Stream>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u32,
    senders: HashMap<u32, Sender<Vec<String>>>,
    closed: bool,
}

enum Stream {
    Unix(UnixStream),
    Inet(TcpStream),
}

/// One exchange.
pub(super) struct Exchange {
    link: Arc<Link>,
    id: u32,
    answers: Receiver<Vec<String>>,
    ended: bool,
}

impl Server {
    pub(super) fn new(address: Address, path: String, service: String) -> Self {
        Self { address, path, service, link: Mutex::default() }
    }

    /// What Dovecot offers.
    pub(super) fn mechanisms(&self) -> Result<Vec<Mechanism>, String> {
        Ok(self.link()?.mechanisms.clone())
    }

    /// Begins an exchange; `initial` is in base64 and none where the client gave none.
    pub(super) fn begin(
        &self,
        mechanism: &str,
        initial: Option<&str>,
        client: &Client,
        encrypted: bool,
    ) -> Result<(Exchange, Step), String> {
        let link = self.link()?;
        let mut exchange = link.register().ok_or(LOST)?;
        let mut line = format!("AUTH\t{}\t{mechanism}\tservice={}\tnologin", exchange.id, self.service);
        let _ = write!(line, "\tlip={}\trip={}", client.server_address, client.address);
        let _ = write!(line, "\tlport={}\trport={}", client.server_port, client.port);
        if encrypted {
            line.push_str("\tsecured");
        }
        if let Some((subject, _)) = client.tls.as_ref().and_then(|tls| tls.trusted_names()) {
            line.push_str("\tvalid-client-cert");
            // What would end the field, the line or the name in Dovecot is no name.
            if !subject.is_empty() && !subject.contains(|c: char| c.is_control()) {
                let _ = write!(line, "\tcert_username={subject}");
            }
        }
        if let Some(initial) = initial {
            // Dovecot takes the rest of the line for the response: it must be the last field. `=` stands for an empty one.
            let _ = write!(line, "\tresp={}", if initial == "=" { "" } else { initial });
        }
        line.push('\n');
        let step = exchange.ask(&line);
        Ok((exchange, step))
    }

    /// The open connection, or another.
    fn link(&self) -> Result<Arc<Link>, String> {
        let mut current = lock(&self.link);
        if let Some(link) = current.as_ref().filter(|link| !lock(&link.waiting).closed) {
            return Ok(Arc::clone(link));
        }
        let link = self.connect().map_err(|error| {
            format!("SASL: Connect to Dovecot auth socket '{}' failed: {error}", self.path)
        })?;
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    fn connect(&self) -> io::Result<Arc<Link>> {
        let (reader, mut writer) = match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                (Stream::Unix(stream.try_clone()?), Stream::Unix(stream))
            }
            Address::Inet(host) => {
                let address = host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
                let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                (Stream::Inet(stream.try_clone()?), Stream::Inet(stream))
            }
        };
        writer.write_all(format!("VERSION\t1\t1\nCPID\t{}\n", std::process::id()).as_bytes())?;
        let mut reader = BufReader::new(reader);
        let mechanisms = read_greeting(&mut reader)?;
        // From here on silence is no fault.
        reader.get_ref().set_read_timeout(None)?;
        let link = Arc::new(Link { mechanisms, writer: Mutex::new(writer), waiting: Mutex::default() });
        let shared = Arc::clone(&link);
        std::thread::Builder::new()
            .name("dovecot".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || shared.hand_out(&mut reader))?;
        Ok(link)
    }
}

/// Reads what Dovecot says of itself, up to `DONE`.
pub(crate) fn read_greeting(reader: &mut impl BufRead) -> io::Result<Vec<Mechanism>> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut mechanisms = Vec::new();
    while let Some(fields) = read_line(reader)? {
        let field = |place: usize| fields.get(place).map_or("", String::as_str);
        match field(0) {
            "VERSION" if field(1) != "1" => {
                return Err(wrong(&format!("Protocol version mismatch ({} vs. 1)", field(1))));
            }
            // A master socket gives passwords out: whoever configured it made a mistake that must not go unnoticed.
            "SPID" if mechanisms.is_empty() => {
                return Err(wrong("Connected to wrong auth socket (auth-master instead of auth-client)"));
            }
            "MECH" if mechanisms.len() < MAX_MECHANISMS => {
                let traits = fields.get(2..).unwrap_or_default().to_vec();
                mechanisms.push(Mechanism { name: field(1).to_ascii_uppercase(), traits });
            }
            "DONE" => return Ok(mechanisms),
            _ => {}
        }
    }
    Err(wrong("the connection was closed"))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).split('\t').map(str::to_owned).collect())),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end")),
    }
}

impl Link {
    /// The thread of the connection: gives each answer to the exchange with its number.
    fn hand_out(&self, reader: &mut BufReader<Stream>) {
        while let Ok(Some(fields)) = read_line(reader) {
            let Some(id) = fields.get(1).and_then(|id| id.parse::<u32>().ok()) else { continue };
            if matches!(fields[0].as_str(), "OK" | "FAIL" | "CONT") {
                let sender = lock(&self.waiting).senders.get(&id).cloned();
                // Whoever gave up needs no answer.
                drop(sender.map(|sender| sender.send(fields)));
            }
        }
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        waiting.senders.clear();
    }

    fn register(self: &Arc<Self>) -> Option<Exchange> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return None;
        }
        let (sender, answers) = channel();
        loop {
            waiting.last = waiting.last.wrapping_add(1);
            if waiting.last > 0 && !waiting.senders.contains_key(&waiting.last) {
                break;
            }
        }
        let id = waiting.last;
        waiting.senders.insert(id, sender);
        Some(Exchange { link: Arc::clone(self), id, answers, ended: false })
    }

    fn say(&self, line: &str) -> io::Result<()> {
        let written = lock(&self.writer).write_all(line.as_bytes());
        if written.is_err() {
            lock(&self.waiting).closed = true;
        }
        written
    }
}

impl Exchange {
    /// The client's answer to a challenge, in base64.
    pub(super) fn go_on(&mut self, response: &str) -> Step {
        let line = format!("CONT\t{}\t{response}\n", self.id);
        self.ask(&line)
    }

    fn ask(&mut self, line: &str) -> Step {
        let answered = self.link.say(line).ok().and_then(|()| self.answers.recv_timeout(PATIENCE).ok());
        let Some(fields) = answered else {
            return Step::Unavailable(LOST.to_owned());
        };
        self.ended = fields[0] != "CONT";
        understood(&fields)
    }
}

/// What the fields of an answer mean.
pub(crate) fn understood(fields: &[String]) -> Step {
    let value = |name: &str| {
        fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let has = |name: &str| fields.iter().any(|field| field == name);
    match fields.first().map_or("", String::as_str) {
        "CONT" => Step::Challenge(fields.get(2).cloned().unwrap_or_default()),
        "OK" => match value("user").filter(|user| !user.is_empty()) {
            // The server's last word of SCRAM comes with the success; SMTP has no place for it there, so that
            // Dovecot is not told that the client could take it, and sends it as a challenge before.
            Some(user) => Step::Accepted(printable(&user)),
            None => Step::Unavailable("the authentication server names no user".to_owned()),
        },
        _ => {
            let reason = value("reason").map(|reason| printable(&reason));
            let reason = reason.unwrap_or_else(|| "(reason unavailable)".to_owned());
            match has("temp") {
                true => Step::Unavailable(reason),
                false => Step::Refused(value("user").map(|user| printable(&user)), reason),
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        lock(&self.link.waiting).senders.remove(&self.id);
        if !self.ended {
            // Nobody waits for an answer.
            let _ = self.link.say(&format!("CANCEL\t{}\n", self.id));
        }
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Inet(stream) => stream.set_read_timeout(timeout),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Inet(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Inet(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
