//! The client's session, which hears whatever a server says.

use mail::{Address, Body, Notify};
use smtp_proto::client::{Event, Forward, Probe, Protocol, Session, Settings, Transaction};
use smtp_proto::parameter::{Mail, Rcpt};
use smtp_proto::sasl::Mechanism;
use smtp_proto::sasl::client::{Credentials, Exchange};

use crate::pieces::take_byte;

/// How many events a session may have for each byte that a server says, and for none.
const EVENTS: usize = 64;

/// A whole session with a server that says `data`: the same replies are heard however they are cut, what the client sends is
/// whole lines that hold nothing of what the server said but what it must, and it comes to an end.
pub fn smtp_client(mut data: &[u8]) {
    let options = take_byte(&mut data);
    let replies: Vec<&[u8]> = replies(data);
    let whole = Dialogue::run(options, &replies, usize::MAX);
    let pieces = Dialogue::run(options, &replies, 1);
    assert_eq!(whole.events, pieces.events, "other events when replies are cut");
    assert_eq!(
        String::from_utf8_lossy(&whole.sent),
        String::from_utf8_lossy(&pieces.sent),
        "other commands when replies are cut"
    );
}

/// What the server says, cut where it would wait: at the last line of each reply.
fn replies(data: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        if line.get(3) != Some(&b'-') {
            found.push(&data[start..at]);
            start = at;
        }
    }
    found.push(&data[start..]);
    found
}

struct Dialogue {
    session: Session,
    options: u8,
    orders: usize,
    events: Vec<String>,
    sent: Vec<u8>,
}

impl Dialogue {
    fn run(options: u8, replies: &[&[u8]], step: usize) -> Self {
        let protocol = if options & 1 > 0 { Protocol::Lmtp } else { Protocol::Smtp };
        let settings =
            Settings { protocol, discard_keywords: vec!["DSN".to_owned()], line_length_limit: 998 };
        let session = Session::new(settings);
        let mut dialogue = Self { session, options, orders: 0, events: Vec::new(), sent: Vec::new() };
        let mut open = dialogue.turn();
        for reply in replies {
            for piece in reply.chunks(step.min(reply.len().max(1))) {
                if !open {
                    return dialogue;
                }
                dialogue.session.receive(piece);
                open = dialogue.turn();
            }
        }
        dialogue
    }

    /// Goes on until the server is to speak; `false` when the session is over.
    fn turn(&mut self) -> bool {
        for _ in 0..EVENTS * 100 {
            let event = self.session.next_event();
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.events.push(error.to_string());
                    return false;
                }
            };
            match event {
                Event::Read => {
                    self.sent.append(self.session.output());
                    return true;
                }
                Event::Idle => {
                    if !self.order() {
                        return false;
                    }
                    continue;
                }
                Event::Content => {
                    let _ = self.session.content(b"Subject: test\n\n.\nbody without end");
                    let _ = self.session.end_content();
                }
                Event::Handshake => drop(self.session.tls_started()),
                _ => {}
            }
            let over = matches!(event, Event::Closed(_));
            self.events.push(format!("{event:?}"));
            self.sent.append(self.session.output());
            if over {
                return false;
            }
        }
        assert!(self.events.len() < EVENTS, "the session never waits for the server");
        false
    }

    /// Gives the next order; `false` when there is none left.
    fn order(&mut self) -> bool {
        self.orders += 1;
        let given = match self.orders {
            1 if self.options & 2 > 0 => self.session.plain_hello("client.example"),
            1 => self.session.hello("client.example"),
            2 if self.options & 4 > 0 => self.session.start_tls(),
            2 => self.session.noop(),
            3 if self.options & 2 > 0 => self.session.reset(),
            3 => self.session.hello("client.example"),
            4 => self.session.authenticate(self.exchange()),
            5 | 6 => self.session.send(transaction(self.options)),
            7 => self.session.reset(),
            8 => self.session.quit(),
            _ => return false,
        };
        assert_eq!(given, Ok(()), "an order was refused that was asked for");
        true
    }

    #[allow(clippy::unwrap_used, reason = "these credentials go with each of these mechanisms")]
    fn exchange(&self) -> Exchange {
        let mechanism = match self.options >> 3 & 3 {
            0 => Mechanism::Plain,
            1 => Mechanism::Login,
            2 => Mechanism::CramMd5,
            _ => Mechanism::OAuthBearer,
        };
        let credentials = Credentials { username: "joe".to_owned(), password: "secret".into() };
        Exchange::new(mechanism, credentials, "0123456789abcdef01234567".to_owned(), None).unwrap()
    }
}

#[allow(clippy::unwrap_used, reason = "the addresses are right")]
fn transaction(options: u8) -> Transaction {
    let address = |text: &str| Address::new(text).unwrap();
    let rcpt = |text: &str| Rcpt { recipient: address(text), notify: Notify::UNSET, orcpt: None };
    Transaction {
        forward: (options & 32 > 0).then(Forward::default),
        mail: Mail {
            sender: address("sender@example.org"),
            size: Some(30),
            body: Body::Unspecified,
            smtputf8: false,
            ret: None,
            envid: None,
            auth: None,
        },
        requiretls: false,
        recipients: vec![rcpt("a@example.com"), rcpt("odd name@example.com"), rcpt("c@example.com")],
        chunking: options & 64 > 0,
        probe: if options & 128 > 0 { Probe::Recipients } else { Probe::No },
    }
}
