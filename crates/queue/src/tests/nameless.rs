//! Messages that are written and have no name.

use std::os::fd::AsFd;

use super::*;
use crate::{Folder, Nameless, QueueError, RecipientState};

impl Queue {
    fn nameless(&self, content: &[u8]) -> (QueueId, Nameless) {
        let id = QueueId::generate(SystemTime::now());
        let (sender, recipient) = (Address::null(), Recipient::new(Address::new("ann@example.com").unwrap()));
        let mut writer =
            self.incoming.create(id, &Envelope::new(sender, vec![recipient], Duration::ZERO), false).unwrap();
        writer.begin_nameless();
        writer.append(content).unwrap();
        (id, writer.finish_nameless().unwrap().expect("the file system of the tests knows nameless files"))
    }

    fn ids(&self, folder: Folder) -> Vec<QueueId> {
        self.active.scan(folder).map(|entry| entry.unwrap().id).collect()
    }
}

#[test]
fn a_message_without_a_name_is_taken_up_by_its_file_and_leaves_nothing() {
    let queue = queue();
    let (id, message) = queue.nameless(b"goes");
    let taken = queue.active.take_nameless(id, message.file()).unwrap();
    assert_eq!((taken.content_size(), taken.recipient_count()), (4, 1));
    assert!(nix::unistd::write(taken.file(), b"x").is_err(), "agents must not write to it");
    queue.incoming.commit_deliveries().unwrap();
    assert_eq!(message.delivered(), 4);
    assert!(queue.ids(Folder::Incoming).is_empty());
    // Nobody was told that this one is taken.
    let (_, message) = queue.nameless(b"given up");
    drop(message);
    assert!(queue.ids(Folder::Incoming).is_empty());
}

#[test]
fn one_that_stays_gets_its_name_from_who_keeps_it_or_who_brought_it() {
    let queue = queue();
    for size in [4, 200_000] {
        let (id, message) = queue.nameless(&vec![b'x'; size]);
        let mut taken = queue.active.take_nameless(id, message.file()).unwrap();
        // What becomes of recipients is written down whether or not it has one.
        taken.mark(0, RecipientState::Bounced).unwrap();
        queue.active.name(id, message.file()).unwrap();
        assert_eq!(message.sync_named().unwrap(), size as u64);
        taken.defer(SystemTime::now()).unwrap();
        let again = queue.active.claim(id).unwrap();
        assert_eq!(again.recipients_from(0, 1).unwrap()[0].state, RecipientState::Bounced);
        again.remove().unwrap();
    }
    let (id, message) = queue.nameless(b"stays");
    let taken = queue.active.take_nameless(id, message.file()).unwrap();
    assert_eq!(message.commit().unwrap(), 5);
    // Both may do it.
    let file = std::fs::File::from(taken.file().as_fd().try_clone_to_owned().unwrap());
    queue.active.name(id, &file).unwrap();
    assert_eq!(queue.ids(Folder::Incoming), [id]);
    assert!(queue.active.remove(id, Folder::Incoming).unwrap());
}

#[test]
fn one_that_is_held_after_all_is_named_there() {
    let queue = queue();
    let id = QueueId::generate(SystemTime::now());
    let mut writer = queue
        .incoming
        .create(id, &Envelope::new(Address::null(), Vec::new(), Duration::ZERO), false)
        .unwrap();
    writer.begin_nameless();
    writer.append(b"held").unwrap();
    writer.set_hold();
    let writer = writer.finish_nameless().unwrap().expect_err("it has its place");
    assert_eq!(writer.commit().unwrap(), 4);
    assert_eq!(queue.ids(Folder::Hold), [id]);
    assert!(matches!(queue.active.claim(id), Err(QueueError::NotFound(_))));
}
