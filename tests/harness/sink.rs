//! An SMTP server that takes everything, and remembers what it took and when; but nothing for recipients that are called
//! `nobody`, and for `later` not yet.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::free_port;

/// A server on a port of the loopback interface. Dropping it closes the port.
pub struct Sink {
    /// Its port.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    taken: Mutex<Vec<Taken>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    closed: AtomicBool,
    pause: Duration,
    /// Its reply to EHLO.
    offers: String,
}

/// A message that the server took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its recipients.
    pub recipients: Vec<String>,
    /// The commands MAIL and RCPT that were said before, with those for refused recipients.
    pub commands: Vec<String>,
    /// When its content had come.
    pub at: Instant,
}

impl Sink {
    /// Listens at a port, which must be free; each message takes it so long.
    ///
    /// # Panics
    /// When it cannot listen there.
    #[must_use]
    pub fn start(port: u16, pause: Duration) -> Self {
        Self::start_with(port, pause, &[])
    }

    /// The same at a free port, offering these extensions.
    ///
    /// # Panics
    /// As [`Sink::start`].
    #[must_use]
    pub fn offering(extensions: &[&str]) -> Self {
        Self::start_with(free_port(), Duration::ZERO, extensions)
    }

    fn start_with(port: u16, pause: Duration, extensions: &[&str]) -> Self {
        let mut offers: Vec<String> = vec!["250-sink\r\n".to_owned()];
        offers.extend(extensions.iter().map(|extension| format!("250-{extension}\r\n")));
        offers.push("250 HELP\r\n".to_owned());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("listen at a port");
        let state = Arc::new(State { pause, offers: offers.concat(), ..State::default() });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&serving);
                std::thread::spawn(move || state.serve(&stream));
            }
        });
        Self { port, state }
    }

    /// What it took until now.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        self.state.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All recipients of what it took, in the order in which they came.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        self.taken().into_iter().flat_map(|taken| taken.recipients).collect()
    }

    /// The largest number of messages that were on their way at a time.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that listens, which then closes the port.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl State {
    /// One client; it may go away at any time.
    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let mut reply = stream;
        let (mut recipients, mut commands) = (Vec::new(), Vec::new());
        if reply.write_all(b"220 sink ESMTP\r\n").is_err() {
            return;
        }
        while let Some(line) = lines.next() {
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            if matches!(verb.as_str(), "MAIL" | "RCPT") {
                commands.push(line.clone());
            }
            let answer: &[u8] = match verb.as_str() {
                "EHLO" => self.offers.as_bytes(),
                "RCPT" => {
                    let address = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                    let (address, _) = address.unwrap_or_default();
                    match address.split('@').next() {
                        Some("nobody") => b"550 5.1.1 nobody is here\r\n",
                        Some("later") => b"450 4.2.0 not yet\r\n",
                        _ => {
                            recipients.push(address.to_owned());
                            b"250 OK\r\n"
                        }
                    }
                }
                "DATA" if recipients.is_empty() => b"554 no recipients\r\n",
                "DATA" => {
                    if reply.write_all(b"354 go on\r\n").is_err() {
                        return;
                    }
                    let at_hand = (std::mem::take(&mut recipients), std::mem::take(&mut commands));
                    self.take(&mut lines, at_hand);
                    b"250 taken\r\n"
                }
                "RSET" => {
                    (recipients, commands) = Default::default();
                    b"250 OK\r\n"
                }
                "QUIT" => {
                    let _ = reply.write_all(b"221 bye\r\n");
                    return;
                }
                _ => b"250 OK\r\n",
            };
            if reply.write_all(answer).is_err() {
                return;
            }
        }
    }

    fn take(
        &self,
        lines: &mut impl Iterator<Item = String>,
        (recipients, commands): (Vec<String>, Vec<String>),
    ) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        lines.by_ref().take_while(|line| line != ".").for_each(drop);
        let at = Instant::now();
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(Taken { recipients, commands, at });
        std::thread::sleep(self.pause);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}
