//! Messages that are lent before they have a name in the queue.

use std::io::Read;

use super::*;
use crate::{Folder, Lent, QueueError, Writer};

impl Queue {
    fn in_memory(&self, content: &[u8]) -> (QueueId, Writer) {
        let id = QueueId::generate(SystemTime::now());
        let envelope = Envelope::new(Address::null(), Vec::new(), Duration::ZERO);
        let mut writer = self.incoming.create(id, &envelope, false).unwrap();
        writer.write_to_memory();
        content.chunks(50_000).for_each(|piece| writer.append(piece).unwrap());
        (id, writer)
    }

    fn lend(&self, content: &[u8]) -> (QueueId, Lent) {
        let (id, writer) = self.in_memory(content);
        (id, writer.lend().unwrap())
    }

    fn content_of(&self, message: &crate::Message) -> Vec<u8> {
        let mut content = Vec::new();
        crate::Content::from_file(message.share()).unwrap().read_to_end(&mut content).unwrap();
        content
    }
}

#[test]
fn a_message_that_is_lent_is_in_the_queue_only_when_it_stays() {
    let queue = queue();
    let active = &queue.active;
    for size in [0, 5, 250_000] {
        let content = vec![b'x'; size];
        let (id, lent) = queue.lend(&content);
        let file = lent.file().try_clone().unwrap();
        assert_eq!(
            queue.content_of(&active.claim_lent(id, lent.file().try_clone().unwrap()).unwrap()),
            content
        );
        assert!(matches!(active.claim(id), Err(QueueError::NotFound(_))));
        assert!(matches!(active.attach(id), Err(QueueError::NotFound(_))));
        assert!(sys::lent::is_only_here(&file).unwrap());
        assert_eq!(lent.store().unwrap(), size as u64);
        assert!(!sys::lent::is_only_here(&file).unwrap());
        let mut stored = active.attach(id).unwrap();
        assert_eq!(queue.content_of(&stored), content);
        stored.mark(0, crate::RecipientState::Done).unwrap();
        drop(stored);
        assert_eq!(queue.content_of(&active.claim_verified(id).unwrap()), content);
        assert!(active.remove(id, Folder::Active).unwrap());
    }
}

#[test]
fn what_is_delivered_or_given_up_leaves_nothing() {
    let queue = queue();
    let (id, lent) = queue.lend(b"delivered");
    assert_eq!(lent.delivered(), 9);
    assert!(matches!(queue.active.claim(id), Err(QueueError::NotFound(_))));
    drop(queue.lend(b"given up"));
    drop(queue.in_memory(&[0; 100_000]));
    assert_eq!(queue.incoming.in_hand(), 0);
    assert_eq!(queue.active.scan(Folder::Incoming).count(), 0);
}

#[test]
fn who_waits_for_one_that_cannot_be_stored_sees_that() {
    let queue = queue();
    let (id, lent) = queue.lend(b"there is one of this name");
    let (file, again) = (lent.file().try_clone().unwrap(), lent.file().try_clone().unwrap());
    lent.store().unwrap();
    let writer =
        queue.incoming.create(id, &Envelope::new(Address::null(), Vec::new(), Duration::ZERO), false);
    let (mut writer, before) = (writer.unwrap(), queue.active.attach(id).unwrap().content_size());
    writer.write_to_memory();
    let lent = writer.lend().unwrap();
    let second = lent.file().try_clone().unwrap();
    assert!(lent.store().is_err());
    assert!(sys::lent::is_given_up(&second).unwrap() && sys::lent::is_only_here(&second).unwrap());
    assert!(!sys::lent::is_given_up(&file).unwrap() && !sys::lent::is_only_here(&again).unwrap());
    assert_eq!(queue.active.attach(id).unwrap().content_size(), before);
}

#[test]
fn what_is_too_large_or_is_held_is_not_lent() {
    let queue = queue();
    let content = vec![b'x'; 300_000];
    let (id, writer) = queue.in_memory(&content);
    assert!(!writer.is_in_memory());
    assert_eq!(writer.commit().unwrap(), 300_000);
    assert_eq!(queue.content_of(&queue.active.claim_verified(id).unwrap()), content);
    for size in [5, 200_000] {
        let (_, mut writer) = queue.in_memory(&content[..size]);
        assert!(writer.is_in_memory());
        writer.set_hold();
        assert!(!writer.is_in_memory());
        assert_eq!(writer.commit().unwrap(), size as u64);
    }
    let held: Vec<_> = queue.active.scan(Folder::Hold).map(Result::unwrap).collect();
    assert!(held.len() == 2 && held.iter().all(|entry| entry.ready && entry.file_size > 0));
    let (id, writer) = queue.in_memory(b"after all committed");
    writer.commit().unwrap();
    assert_eq!(queue.content_of(&queue.active.claim_verified(id).unwrap()), b"after all committed");
}

#[test]
fn what_is_in_memory_can_have_its_envelope_replaced() {
    let queue = queue();
    let content = vec![b'x'; 200_000];
    let (id, mut writer) = queue.in_memory(&content);
    let recipient = mail::Recipient::new(Address::new("someone@example.com").unwrap());
    let envelope = Envelope::new(Address::null(), vec![recipient], Duration::ZERO);
    writer.replace_envelope(&envelope).unwrap();
    let lent = writer.lend().unwrap();
    let message = queue.active.claim_lent(id, lent.file().try_clone().unwrap()).unwrap();
    assert_eq!((message.recipient_count(), queue.content_of(&message)), (1, content));
}
