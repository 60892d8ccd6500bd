//! Runs every `client/*.smtp` against the client's session. `client/README` says how they are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use mail::{Address, Body, DsnReturn, Notify};
use smtp_proto::client::{Event, Forward, Probe, Protocol, Session, Settings, Transaction};
use smtp_proto::parameter::{Mail, Rcpt};
use smtp_proto::sasl::Mechanism;
use smtp_proto::sasl::client::{Credentials, Exchange};

use notation::{matches, unescape};

mod notation;

#[test]
fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    assert!(files.len() > 5);
    for file in files {
        let script = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for step in [1, 2, 3, 5, 1000] {
            Dialogue::new(&script).run(&name, &script, step);
        }
    }
}

struct Dialogue {
    session: Session,
    written: Vec<u8>,
    events: VecDeque<String>,
    state: Event,
}

impl Dialogue {
    fn new(script: &str) -> Self {
        let (mut protocol, mut discard_keywords, mut line_length_limit) = (Protocol::Smtp, Vec::new(), 998);
        for line in script.lines().filter_map(|line| line.strip_prefix("set ")) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("lmtp", _) => protocol = Protocol::Lmtp,
                ("discard", words) => discard_keywords = words.split(' ').map(str::to_owned).collect(),
                ("limit", number) => line_length_limit = number.parse().unwrap(),
                other => panic!("{other:?}"),
            }
        }
        let session = Session::new(Settings { protocol, discard_keywords, line_length_limit });
        Self { session, written: Vec::new(), events: VecDeque::new(), state: Event::Read }
    }

    fn run(mut self, name: &str, script: &str, step: usize) {
        let mut said = Vec::new();
        for (number, line) in script.lines().enumerate() {
            let place = format!("{name}:{} in steps of {step}", number + 1);
            let text = line.get(3..).unwrap_or("");
            match line.get(..2).unwrap_or("") {
                "S+" => said.extend([text.as_bytes(), b"\r\n"].concat()),
                "S:" | "S=" => {
                    assert!(self.written.is_empty(), "{place}: written: {:?}", self.said());
                    let bytes = if line.starts_with("S=") {
                        unescape(text)
                    } else {
                        [text.as_bytes(), b"\r\n"].concat()
                    };
                    said.extend(bytes);
                    for piece in std::mem::take(&mut said).chunks(step) {
                        self.session.receive(piece);
                        self.turn();
                    }
                }
                "O:" => self.order(text, &place),
                "D:" | "D=" => {
                    assert_eq!(self.state, Event::Content, "{place}");
                    let bytes = if line.starts_with("D=") {
                        unescape(text)
                    } else {
                        [text.as_bytes(), b"\n"].concat()
                    };
                    for piece in bytes.chunks(step) {
                        self.session.content(piece).unwrap();
                    }
                    self.turn();
                }
                "D." => {
                    self.session.end_content().unwrap();
                    self.turn();
                }
                "C:" => {
                    let end = self
                        .written
                        .iter()
                        .position(|b| *b == b'\n')
                        .map_or(self.written.len(), |end| end + 1);
                    let got = String::from_utf8_lossy(&self.written[..end]).into_owned();
                    self.written.drain(..end);
                    let got =
                        got.strip_suffix("\r\n").unwrap_or_else(|| panic!("{place}: line end of {got:?}"));
                    assert!(
                        matches(text, got),
                        "{place}: expected {text:?}, written {got:?}, then {:?}",
                        self.said()
                    );
                }
                "E:" => {
                    let got = self.events.pop_front();
                    let right = got.as_deref().is_some_and(|got| matches(text, got));
                    assert!(right, "{place}: expected {text:?}, got {got:?}, then {:?}", self.events);
                }
                _ => {}
            }
        }
        assert!(self.written.is_empty(), "{name}: written: {:?}", self.said());
        assert!(self.events.is_empty(), "{name}: events left: {:?}", self.events);
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }

    /// Lets the session act until it wants something.
    fn turn(&mut self) {
        loop {
            let event = match self.session.next_event() {
                Ok(event) => event,
                Err(error) => {
                    self.events.push_back(format!("error: {error}"));
                    continue;
                }
            };
            self.written.append(self.session.output());
            let again = event == self.state;
            self.state = event.clone();
            match event {
                Event::Read => return,
                Event::Reply { to, accepted, response } => {
                    let yes = if accepted { "yes" } else { "no" };
                    self.events.push_back(format!("{to:?} {yes} {} {response}", response.dsn()));
                    continue;
                }
                Event::AuthAbandoned(error) => {
                    self.events.push_back(format!("abandoned: {error}"));
                    continue;
                }
                Event::Idle if !again => self.events.push_back("idle".to_owned()),
                Event::Content if !again => self.events.push_back("content".to_owned()),
                Event::Handshake if !again => self.events.push_back("handshake".to_owned()),
                Event::Closed(response) if !again => {
                    let said = response.map(|response| format!(" {response}")).unwrap_or_default();
                    self.events.push_back(format!("closed{said}"));
                }
                _ => {}
            }
            return;
        }
    }

    fn order(&mut self, order: &str, place: &str) {
        let words: Vec<_> = order.split(' ').collect();
        let session = &mut self.session;
        let done = match words[0] {
            "hello" => session.hello(words[1]),
            "helo" => session.plain_hello(words[1]),
            "starttls" => session.start_tls(),
            "tls" => session.tls_started(),
            "reset" => session.reset(),
            "noop" => session.noop(),
            "quit" => session.quit(),
            "send" => session.send(transaction(&words[1..])),
            "send-after-reset" => {
                session.reset_first();
                session.send(transaction(&words[1..]))
            }
            "auth" => {
                let mechanism = Mechanism::from_name(words[1]).unwrap();
                let credentials = Credentials { username: words[2].to_owned(), password: words[3].into() };
                session.authenticate(
                    Exchange::new(mechanism, credentials, "fyko+d2lbbFgONRv9qkxdawL".to_owned(), None)
                        .unwrap(),
                )
            }
            other => panic!("{place}: no order: {other}"),
        };
        assert_eq!(done, Ok(()), "{place}");
        self.state = Event::Read;
        self.turn();
    }
}

fn transaction(words: &[&str]) -> Transaction {
    let address = |text: &str| Address::new(text.trim_matches(['<', '>'])).unwrap();
    let (sender, size, body) = (address(words[0]), None, Body::Unspecified);
    let mail = Mail { sender, size, body, smtputf8: false, ret: None, envid: None, auth: None };
    let mut made = Transaction {
        forward: None,
        mail,
        requiretls: false,
        recipients: Vec::new(),
        chunking: false,
        probe: Probe::No,
    };
    for word in &words[1..] {
        match word.split_once('=').unwrap_or((word, "")) {
            ("size", size) => made.mail.size = size.parse().ok(),
            ("8bit", _) => made.mail.body = Body::EightBitMime,
            ("utf8", _) => made.mail.smtputf8 = true,
            ("ret", _) => made.mail.ret = Some(DsnReturn::Headers),
            ("envid", id) => made.mail.envid = Some(id.to_owned()),
            ("auth", auth) => made.mail.auth = Some(auth.to_owned()),
            ("bdat", _) => made.chunking = true,
            ("probe", "data") => made.probe = Probe::Data,
            ("probe", _) => made.probe = Probe::Recipients,
            ("requiretls", _) => made.requiretls = true,
            ("forward", _) => {
                made.forward = Some(Forward {
                    name: Some("c.example".to_owned()),
                    address: Some("IPv6:2001:db8::1".to_owned()),
                    helo: Some("a b+c".to_owned()),
                    protocol: Some("ESMTP".to_owned()),
                    ..Forward::default()
                });
            }
            ("notify", "never") => made.recipients.last_mut().unwrap().notify = Notify::NEVER,
            ("notify", _) => {
                made.recipients.last_mut().unwrap().notify =
                    Notify::SUCCESS.and(Notify::FAILURE).and(Notify::DELAY);
            }
            ("orcpt", orcpt) => made.recipients.last_mut().unwrap().orcpt = Some(orcpt.to_owned()),
            ("many", count) => {
                let many = (0..count.parse().unwrap()).map(|n: u32| format!("recipient{n:05}@example.com"));
                made.recipients.extend(many.map(|to| Rcpt {
                    recipient: address(&to),
                    notify: Notify::UNSET,
                    orcpt: None,
                }));
            }
            _ => made.recipients.push(Rcpt { recipient: address(word), notify: Notify::UNSET, orcpt: None }),
        }
    }
    made
}

/// With more recipients than the window holds, commands wait for replies, and all go out in the end.
#[test]
fn unanswered_commands_stay_within_the_window() {
    let mut session = Dialogue::new("").session;
    session.receive(b"220 x\r\n");
    while session.next_event() != Ok(Event::Idle) {}
    session.hello("me").unwrap();
    session.receive(b"250-x\r\n250 PIPELINING\r\n");
    while session.next_event() != Ok(Event::Idle) {}
    session.output().clear();
    session.send(transaction(&["a@b", "many=5000"])).unwrap();
    let (mut commands, mut accepted) = (0, 0);
    loop {
        match session.next_event().unwrap() {
            Event::Read => {
                let written = std::mem::take(session.output());
                assert!(!written.is_empty() && written.len() <= smtp_proto::client::WINDOW);
                for line in written.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    commands += 1;
                    session.receive(if line == b"DATA\r" { b"354 go\r\n" } else { b"250 2.1.5 ok\r\n" });
                }
            }
            Event::Reply { accepted: yes, .. } => accepted += u32::from(yes),
            Event::Content => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((commands, accepted), (5002, 5002));
}
