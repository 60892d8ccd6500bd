//! The queue as its users see it.

mod crash;
mod damage;
mod lent;
mod maildrop;
mod operator;
mod round_trips;
mod way;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::{
    Address, Body, Client, Dsn, DsnReturn, Envelope, Notify, Origin, Outcome, QueueId, Recipient, Served,
};

use crate::{Active, Attempt, Incoming, Message, Root};

/// A queue in a folder of its own, with each program's handle.
struct Queue {
    folder: tempfile::TempDir,
    root: Root,
    incoming: Incoming,
    active: Active,
}

fn queue() -> Queue {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::prepare(folder.path(), None).unwrap();
    let (incoming, active) = (root.incoming().unwrap(), root.active().unwrap());
    Queue { folder, root, incoming, active }
}

impl Queue {
    /// Commits a message and says its id.
    fn commit(&self, envelope: &Envelope, content: &[u8]) -> QueueId {
        let id = QueueId::generate(SystemTime::now());
        let mut writer = self.incoming.create(id, envelope, false).unwrap();
        writer.append(content).unwrap();
        assert_eq!(writer.commit().unwrap(), content.len() as u64);
        id
    }

    /// Takes a message up and moves it to `active/`.
    fn settled(&self, id: QueueId) -> Message {
        let mut message = self.active.claim(id).unwrap();
        message.settle().unwrap();
        message
    }

    /// Where the files of the queue are: `incoming/3/ID` and so on.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(self.folder.path()).unwrap().display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    /// The one file of a queue that has one.
    fn only_file(&self) -> PathBuf {
        let [name] = &self.files()[..] else { panic!("not one file: {:?}", self.files()) };
        self.folder.path().join(name)
    }

    /// The folder of the one message, without the hash.
    fn only_folder(&self) -> String {
        let [name] = &self.files()[..] else { panic!("not one file: {:?}", self.files()) };
        name.split('/').next().unwrap().to_owned()
    }
}

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn plain(recipients: &[&str]) -> Envelope {
    Envelope::new(
        address("sender@example.org"),
        recipients.iter().map(|r| Recipient::new(address(r))).collect(),
        Duration::new(1_795_362_868, 123_456_789),
    )
}

/// An envelope that uses every part of the format.
fn full() -> Envelope {
    Envelope {
        recipients: vec![
            Recipient {
                address: address("jane@example.com"),
                original: Some(address("sales@example.com")),
                notify: Notify::SUCCESS.and(Notify::DELAY),
                orcpt: Some("rfc822;sales@example.com".into()),
            },
            Recipient::new(address("jürgen@example.net")),
        ],
        origin: Origin::Smtp { rewrite_headers: true },
        client: Client {
            name: "client.example.org".into(),
            address: "2001:db8::1".into(),
            port: 40_000,
            helo: "[IPv6:2001:db8::1]".into(),
            protocol: "ESMTPSA".into(),
            ..Client::default()
        },
        envid: Some("QQ314159+2B".into()),
        ret: Some(DsnReturn::Headers),
        body: Body::EightBitMime,
        smtputf8: true,
        ..plain(&[])
    }
}

fn attempt(recipient: u32, text: &str) -> Attempt {
    Attempt {
        time: UNIX_EPOCH + Duration::from_micros(1_795_362_900_000_001),
        recipient,
        outcome: Outcome::deferred("mx.example.com[192.0.2.1]:25", Dsn::new(4, 4, 1), text),
        next_attempt: Some(UNIX_EPOCH + Duration::from_secs(1_795_363_200)),
    }
}
