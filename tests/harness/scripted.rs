//! An SMTP or LMTP server that says what a scenario wants it to say, and remembers every byte that it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{Host, free_port, reset};

/// What is said where a scenario has nothing else in mind.
const USUAL: [(&str, &str); 8] = [
    ("", "250 2.0.0 OK"),
    ("CONNECT", "220 scripted.example ESMTP"),
    ("EHLO", "250 scripted.example"),
    ("LHLO", "250 scripted.example"),
    ("DATA", "354 go on"),
    (".", "250 2.0.0 taken"),
    ("QUIT", "221 2.0.0 bye"),
    ("AUTH", "235 2.7.0 welcome"),
];

/// What is said to what; [`Scripted::start`] tells how both are written.
pub type Says = [(&'static str, &'static str)];

/// The server. Dropping it closes its port; conversations go on until their clients end them.
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    host: Option<Host>,
}

#[derive(Default)]
struct State {
    replies: Mutex<Vec<(String, String)>>,
    /// Of each connection what was received.
    sessions: Mutex<Vec<(IpAddr, Vec<u8>)>>,
    closed: AtomicBool,
}

impl Scripted {
    /// A server at a free port of the loopback interface.
    ///
    /// A reply is a pair of what is answered and the answer. What is answered: `CONNECT`, the beginning of a command's
    /// line, `.` for the end of content, over LMTP `.<recipient>`, `+` and the line for one that continues AUTH; the
    /// longest that fits counts. The answer: lines parted by LF. One that ends in `!` closes the connection, and `!!` resets
    /// it; `...` is silence until the client gives up. `CONTENT` is the middle of content or of a chunk: with `...` no more
    /// of it is read.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(replies: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("listen at a port");
        Self::serve(listener, None, replies)
    }

    /// The same at an address and port of a host.
    ///
    /// # Panics
    /// As [`Scripted::start`].
    #[must_use]
    pub fn start_on(host: &Host, address: SocketAddr, replies: &[(&str, &str)]) -> Self {
        let listener = host.listen(address).expect("listen in a host");
        Self::serve(listener, Some(host.clone()), replies)
    }

    fn serve(listener: TcpListener, host: Option<Host>, replies: &[(&str, &str)]) -> Self {
        let address = listener.local_addr().expect("the address of a listener");
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&serving);
                std::thread::spawn(move || Session::new(&state, &stream).run());
            }
        });
        let server = Self { address, state, host };
        server.say(replies);
        server
    }

    /// Says other things from here on.
    pub fn say(&self, replies: &[(&str, &str)]) {
        let owned = USUAL.iter().chain(replies).map(|(to, reply)| ((*to).to_owned(), (*reply).to_owned()));
        *self.state.replies.lock().unwrap_or_else(PoisonError::into_inner) = owned.collect();
    }

    /// What came over each connection, in the order in which they were made.
    #[must_use]
    pub fn sessions(&self) -> Vec<String> {
        let sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Where the connections came from.
    #[must_use]
    pub fn clients(&self) -> Vec<IpAddr> {
        let sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|(client, _)| *client).collect()
    }

    /// How often something came, over all connections.
    #[must_use]
    pub fn count(&self, what: &str) -> usize {
        self.sessions().iter().map(|session| session.matches(what).count()).sum()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that listens, which then closes the port.
        let _ = match &self.host {
            Some(host) => host.connect(self.address),
            None => TcpStream::connect(self.address),
        };
    }
}

/// One conversation; the client may go away at any time, which ends it.
struct Session<'a> {
    state: &'a State,
    reader: BufReader<&'a TcpStream>,
    number: usize,
    lmtp: bool,
    taken: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(state: &'a State, stream: &'a TcpStream) -> Self {
        let mut sessions = state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let client = stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.ip());
        sessions.push((client, Vec::new()));
        let number = sessions.len() - 1;
        Self { state, reader: BufReader::new(stream), number, lmtp: false, taken: Vec::new() }
    }

    fn run(mut self) -> Option<()> {
        let mut code = self.answer("CONNECT")?;
        loop {
            let line = self.read()?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let what = if code == "334" { format!("+{text}") } else { text };
            self.lmtp |= what.starts_with("LHLO");
            if let Some(size) = what.strip_prefix("BDAT ") {
                let number: u64 = size.split(' ').next()?.parse().ok()?;
                self.interrupt()?;
                let mut chunk = Vec::new();
                self.reader.by_ref().take(number).read_to_end(&mut chunk).ok()?;
                self.note(&chunk);
            }
            code = self.answer(&what)?;
            if what.starts_with("RCPT") && code.starts_with('2') {
                self.taken.push(what[what.find('<')?..=what.find('>')?].to_owned());
            } else if what == "DATA" && code == "354" {
                self.content()?;
                let taken = std::mem::take(&mut self.taken);
                if self.lmtp {
                    taken.iter().try_for_each(|recipient| self.answer(&format!(".{recipient}")).map(drop))?;
                } else {
                    self.answer(".")?;
                }
            } else if what == "QUIT" {
                return None;
            }
        }
    }

    fn content(&mut self) -> Option<()> {
        self.interrupt()?;
        while self.read()? != b".\r\n" {}
        Some(())
    }

    /// What a scenario has in mind for the middle of content; none ends the conversation.
    fn interrupt(&mut self) -> Option<()> {
        let is_meant = {
            let replies = self.state.replies.lock().unwrap_or_else(PoisonError::into_inner);
            replies.iter().rev().find(|(to, _)| to == "CONTENT").map(|(_, reply)| reply == "...")
        };
        match is_meant {
            None => Some(()),
            Some(false) => self.answer("CONTENT").map(drop),
            Some(true) => {
                while !self.state.closed.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                None
            }
        }
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
        self.note(&line);
        Some(line)
    }

    fn note(&self, bytes: &[u8]) {
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions[self.number].1.extend_from_slice(bytes);
    }

    /// Says what is to be said; the code of that. None ends the conversation.
    fn answer(&mut self, what: &str) -> Option<String> {
        let reply = {
            let replies = self.state.replies.lock().unwrap_or_else(PoisonError::into_inner);
            let fitting = replies.iter().filter(|(to, _)| what.starts_with(to.as_str()));
            // Of equal ones the last, which is the scenario's.
            fitting.max_by_key(|(to, _)| to.len())?.1.clone()
        };
        if reply == "..." {
            let _ = std::io::copy(&mut self.reader, &mut std::io::sink());
            return None;
        }
        if reply == "!!" {
            reset(self.reader.get_ref());
            return None;
        }
        let (text, closes) = match reply.strip_suffix('!') {
            Some(text) => (text, true),
            None => (reply.as_str(), false),
        };
        if !text.is_empty() {
            let wire = text.replace('\n', "\r\n") + "\r\n";
            self.reader.get_mut().write_all(wire.as_bytes()).ok()?;
        }
        (!closes).then(|| text.get(..3).unwrap_or_default().to_owned())
    }
}
