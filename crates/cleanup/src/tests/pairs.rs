//! The pairs of messages under `tests/messages`: what a client hands over, and what is queued.
//!
//! Each folder has `settings` (lines for main.cf; the folder is `$config_directory`), `envelope`, `in`, and `out`: the
//! final envelope, an empty line and the content, or the refusal. `BLESS=1 cargo test -p cleanup` writes `out` anew; look
//! at the difference before you keep it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ipc::cleanup::{Options, Refusal};
use mail::{Address, Client, Envelope, Notify, Origin, Recipient};

use crate::Rules;
use crate::clock::Clock;
use crate::message::{Buffers, Given, Message, Sink};
use crate::tests::rules;

#[test]
fn every_pair_of_messages_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 10);
    for case in cases {
        let read = |name: &str| fs::read(case.join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8(read(name)).unwrap();
        let rules = rules(&case, &text("settings"));
        let content = read("in");
        let out = process(&rules, given(&text("envelope")), content.chunks(content.len().max(1)));
        for size in [1, 7, 100] {
            let pieces = process(&rules, given(&text("envelope")), content.chunks(size));
            assert_eq!(shown(&pieces), shown(&out), "{} in pieces of {size}", case.display());
        }
        if std::env::var_os("BLESS").is_some() {
            fs::write(case.join("out"), &out).unwrap();
        }
        assert_eq!(shown(&out), shown(&read("out")), "{}", case.display());
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads an `envelope` file: a word and its value on each line.
fn given(text: &str) -> Given {
    let mut envelope = Envelope {
        origin: Origin::Smtp { rewrite_headers: false },
        ..Envelope::new(Address::null(), Vec::new(), Duration::from_secs(1_795_362_868))
    };
    let mut options = Options::default();
    let mut full_name = String::new();
    for line in text.lines() {
        let (word, value) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "sender" => envelope.sender = value.parse().unwrap(),
            "recipient" => envelope.recipients.push(Recipient::new(value.parse().unwrap())),
            "original" => envelope.recipients.last_mut().unwrap().original = Some(value.parse().unwrap()),
            "notify" => {
                envelope.recipients.last_mut().unwrap().notify = Notify::from_bits(value.parse().unwrap());
            }
            "filter" => envelope.content_filter = Some(value.to_owned()),
            "origin" => envelope.origin = origin(value),
            "client" => envelope.client = client(value),
            "name" => full_name = value.to_owned(),
            "option" if value == "no-mapping" => options.map_addresses = false,
            "option" if value == "no-filter" => options.filter = false,
            _ => {
                panic!("{line}: expected sender, recipient, original, notify, origin, client, name or option")
            }
        }
    }
    Given { id: "4XQ9PS1rGCz3B2Gk9L".parse().unwrap(), envelope, options, full_name }
}

fn origin(text: &str) -> Origin {
    match text {
        "smtp" => Origin::Smtp { rewrite_headers: false },
        "smtp-rewritten" => Origin::Smtp { rewrite_headers: true },
        "internal" => Origin::Internal,
        uid => Origin::Local { uid: uid.parse().unwrap() },
    }
}

fn client(text: &str) -> Client {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let [name, address, helo, protocol] = words.try_into().unwrap();
    Client { name, address, port: 4711, helo, protocol, ..Client::default() }
}

fn process<'a>(rules: &Rules, given: Given, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut sink = Kept::default();
    let mut clock = Clock::new(rules.zone.clone());
    let mut buffers = Buffers::default();
    let result = Message::begin(rules, &mut clock, &mut buffers, given).and_then(|mut message| {
        for piece in pieces {
            message.take(piece, &mut sink)?;
        }
        message.finish(&mut sink)
    });
    match result {
        Ok(true) => sink.shown(),
        Ok(false) => b"discarded\n".to_vec(),
        Err(refusal) => format!("refused {} {refusal}\n", refusal.dsn()).into_bytes(),
    }
}

#[derive(Default)]
struct Kept {
    head: String,
    content: Vec<u8>,
    held: bool,
}

impl Kept {
    fn shown(self) -> Vec<u8> {
        let end = if self.held { "held\n\n" } else { "\n" };
        [self.head.as_bytes(), end.as_bytes(), &self.content].concat()
    }
}

impl Sink for Kept {
    fn open(&mut self, envelope: &Envelope, hold: bool) -> Result<(), Refusal> {
        self.held = hold;
        self.replace_envelope(envelope)
    }

    fn replace_envelope(&mut self, envelope: &Envelope) -> Result<(), Refusal> {
        let mut text = format!("sender {}\n", envelope.sender);
        if let Some(filter) = &envelope.content_filter {
            let _ = writeln!(text, "filter {filter}");
        }
        for recipient in &envelope.recipients {
            let _ = writeln!(text, "recipient {}", recipient.address);
            if let Some(original) = &recipient.original {
                let _ = writeln!(text, "original {original}");
            }
            if recipient.notify != Notify::UNSET {
                let _ = writeln!(text, "notify {}", recipient.notify.bits());
            }
        }
        self.head = text;
        Ok(())
    }

    fn append(&mut self, content: &[u8]) -> Result<(), Refusal> {
        self.content.extend_from_slice(content);
        Ok(())
    }

    fn hold(&mut self) {
        self.held = true;
    }
}
