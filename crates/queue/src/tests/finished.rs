//! Messages that are written and not yet durable.

use super::*;
use crate::{Finished, Folder, QueueError};

impl Queue {
    fn finish(&self, content: &[u8]) -> (QueueId, Finished) {
        let id = QueueId::generate(SystemTime::now());
        let envelope = Envelope::new(Address::null(), Vec::new(), Duration::ZERO);
        let mut writer = self.incoming.create(id, &envelope, false).unwrap();
        writer.append(content).unwrap();
        (id, writer.finish().unwrap())
    }
}

#[test]
fn a_finished_message_can_be_taken_up_before_it_is_durable() {
    let queue = queue();
    let active = &queue.active;
    // It is synced where it stays, and where it has been removed meanwhile.
    let (id, finished) = queue.finish(b"stays");
    assert_eq!(active.claim(id).unwrap().content_size(), 5);
    assert_eq!(finished.sync().unwrap(), 5);
    assert_eq!(active.claim(id).unwrap().content_size(), 5);
    let (id, finished) = queue.finish(b"goes");
    assert!(active.remove(id, Folder::Incoming).unwrap());
    assert_eq!(finished.sync().unwrap(), 4);
    let (id, finished) = queue.finish(b"removed");
    assert!(active.remove(id, Folder::Incoming).unwrap());
    queue.incoming.commit_removals().unwrap();
    assert_eq!(finished.removed(), 7);
    // Nobody was told that this one is taken.
    let (id, finished) = queue.finish(b"given up");
    drop(finished);
    assert!(matches!(active.claim(id), Err(QueueError::NotFound(_))));
}
