//! A queue in a folder of its own, with a cleanup that serves it from threads of this process.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use ipc::cleanup::Client;
use ipc::queue_manager::{self, Word};
use mail::{Address, Envelope, Origin, QueueId, Recipient};
use queue::{Folder, ReadOnly, Root};
use service::{Connection, Stream};

use crate::session::{self, Door};

pub(crate) struct Instance {
    pub(crate) root: Root,
    pub(crate) client: Client,
    /// What qmgr is told.
    pub(crate) words: mpsc::Receiver<Word>,
    pub(crate) folder: tempfile::TempDir,
    /// Held by this instance, its listener and every session.
    door: Arc<Door>,
}

impl Instance {
    pub(crate) fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::prepare(folder.path(), None).unwrap();
        let words = manage_queue(folder.path().join("public/qmgr"));
        let door = Arc::new(Door {
            rules: super::rules(folder.path(), settings),
            incoming: root.incoming().unwrap(),
            queue_manager: queue_manager::Client::new(folder.path().join("public/qmgr")),
        });
        let listener = UnixListener::bind(folder.path().join("public/cleanup")).unwrap();
        let served = Arc::clone(&door);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (door, stream) = (Arc::clone(&served), Arc::new(Stream::Unix(stream.unwrap())));
                let connection = Connection { stream, peer: None, local: None };
                std::thread::spawn(move || session::serve(&door, &connection));
            }
        });
        let client = Client::new(folder.path().join("public/cleanup"));
        Self { root, client, words, folder, door }
    }

    /// How many connections are being served, of those that were made before one that has had an answer.
    pub(crate) fn sessions(&self) -> usize {
        Arc::strong_count(&self.door) - 2
    }

    /// The messages of a folder of the queue, each with its content.
    pub(crate) fn messages(&self, folder: Folder) -> Vec<(QueueId, Envelope, String)> {
        let queue: ReadOnly = self.root.read_only().unwrap();
        let ids: Vec<QueueId> = queue.ids(folder).map(Result::unwrap).collect();
        let read = |id: &QueueId| {
            // One that is being written, or given up, is no message.
            let stored = queue.open(folder, *id).ok()?;
            let mut text = String::new();
            stored.content().read_to_string(&mut text).unwrap();
            Some((*id, stored.envelope_without_recipients().clone(), text))
        };
        ids.iter().filter_map(read).collect()
    }
}

/// Stands in for qmgr: passes on what it is told.
fn manage_queue(socket: PathBuf) -> mpsc::Receiver<Word> {
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut frames = ipc::frame::Receiver::new();
                while let Ok(Some(word)) = frames.next_message(&stream) {
                    let _ = sender.send(word);
                }
            });
        }
    });
    receiver
}

pub(crate) fn envelope() -> Envelope {
    Envelope {
        origin: Origin::Smtp { rewrite_headers: false },
        ..Envelope::new(
            Address::new("jane@example.net").unwrap(),
            vec![Recipient::new(Address::new("joe@example.org").unwrap())],
            std::time::Duration::from_secs(1_795_362_868),
        )
    }
}
