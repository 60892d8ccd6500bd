//! A queue in a folder of its own, with a cleanup that serves it from threads of this process.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, mpsc};

use ipc::cleanup::Client;
use ipc::queue_manager::{self, Answer, Fate, Word};
use mail::{Address, Envelope, Origin, QueueId, Recipient};
use queue::{Folder, ReadOnly, Root};
use service::{Connection, Stream};

use crate::prospects::Prospects;
use crate::session::{self, Door};

pub(crate) struct Instance {
    pub(crate) root: Root,
    pub(crate) client: Client,
    /// What qmgr is told.
    pub(crate) words: mpsc::Receiver<Word>,
    /// What it does with a message that is offered.
    pub(crate) manner: Arc<Mutex<Manner>>,
    pub(crate) folder: tempfile::TempDir,
    /// Held by this instance, its listener and every session.
    door: Arc<Door>,
}

/// What the stand-in for qmgr does with a message that is offered.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    Delivers,
    Keeps,
    /// Closes the connection.
    Dies,
    SaysNothing,
}

impl Instance {
    pub(crate) fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::prepare(folder.path(), None).unwrap();
        let manner = Arc::new(Mutex::new(Manner::Keeps));
        let words = manage_queue(&root, Arc::clone(&manner));
        let (incoming, committing) = (root.incoming().unwrap(), root.incoming().unwrap());
        let queue_manager = queue_manager::Client::new(folder.path().join("public/qmgr"));
        let door = Arc::new(Door {
            rules: super::rules(folder.path(), settings),
            incoming,
            queue_manager: queue_manager.that_offers(move || committing.commit_journal()),
            early_delivery_concurrency: 1,
            prospects: Prospects::default(),
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
        Self { root, client, words, manner, folder, door }
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
fn manage_queue(root: &Root, manner: Arc<Mutex<Manner>>) -> mpsc::Receiver<Word> {
    let listener = UnixListener::bind(root.path().join("public/qmgr")).unwrap();
    let (sender, receiver) = mpsc::channel();
    let active = root.active().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            let (active, manner) = (active.clone(), Arc::clone(&manner));
            std::thread::spawn(move || {
                let mut frames = ipc::frame::Receiver::new();
                while let Ok(Some(word)) = frames.next_message(&stream) {
                    let offered = if let Word::Offered(id) = word { Some(id) } else { None };
                    let _ = sender.send(word);
                    let manner = *manner.lock().unwrap();
                    let fate = match (offered, manner) {
                        (Some(id), Manner::Delivers) => {
                            let file = ipc::frame::expect_descriptor(&mut frames).unwrap();
                            assert_eq!(active.claim_lent(id, file).unwrap().recipient_count(), 1);
                            Fate::Delivered { relies_on_order: true }
                        }
                        (Some(_), Manner::Keeps) => Fate::Kept,
                        (Some(_), Manner::Dies) => return,
                        (Some(_), Manner::SaysNothing) | (None, _) => continue,
                    };
                    let Some(id) = offered else { continue };
                    let mut answer = Vec::new();
                    ipc::frame::push_message(&mut answer, &Answer { id, fate }).unwrap();
                    (&stream).write_all(&answer).unwrap();
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
