//! The operator's work on the queue.

use std::fs;

use super::*;
use crate::{Folder, QueueError};

#[test]
fn a_message_that_is_put_back_is_known_as_such() {
    let queue = queue();
    let id = queue.commit(&full(), b"x\n");
    let operator = queue.root.operator().unwrap();
    operator.requeue_anew(id, &[Folder::Hold, Folder::Incoming]).unwrap();
    let message = queue.active.claim_verified(id).unwrap();
    assert!(message.is_requeued() && !message.is_forced_to_expire());
}

#[test]
fn an_operation_looks_only_where_it_is_told_to() {
    let queue = queue();
    let operator = queue.root.operator().unwrap();
    let id = queue.commit(&full(), b"\n");
    assert!(matches!(operator.delete(id, &[Folder::Deferred, Folder::Hold]), Err(QueueError::NotFound(_))));
    assert_eq!(operator.hold(id, &[Folder::Active, Folder::Incoming]).unwrap(), Folder::Incoming);
    assert_eq!(operator.requeue(id, &[Folder::Hold]).unwrap(), Folder::Hold);
    assert_eq!(operator.delete(id, &Folder::ALL).unwrap(), Folder::Incoming);
    assert!(queue.files().is_empty());
}

#[test]
fn a_message_that_is_being_written_is_left_alone() {
    let queue = queue();
    let id = QueueId::generate(SystemTime::now());
    let mut writer = queue.incoming.create(id, &full(), false).unwrap();
    writer.append(&[b'x'; 100_000]).unwrap();
    assert!(matches!(queue.root.operator().unwrap().delete(id, &Folder::ALL), Err(QueueError::NotReady(_))));
    writer.commit().unwrap();
}

#[test]
fn a_message_told_to_expire_says_so() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    queue.root.operator().unwrap().expire(id, &Folder::ALL).unwrap();
    assert!(queue.active.claim(id).unwrap().is_forced_to_expire());
}

#[test]
fn misplaced_messages_are_put_where_they_belong() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    let right = queue.only_file();
    let operator = queue.root.operator().unwrap();
    for wrong in ["deferred", "incoming/0", "incoming/1"]
        .map(|place| queue.folder.path().join(place).join(id.as_str()))
    {
        if wrong != right {
            fs::rename(queue.only_file(), &wrong).unwrap();
            assert_eq!(operator.repair().unwrap().moved, 1);
        }
    }
    assert_eq!(queue.only_file(), right.parent().unwrap().join(id.as_str()));
    fs::write(queue.folder.path().join("hold/.nfs01"), "").unwrap();
    assert_eq!(operator.repair().unwrap().strangers, ["hold/.nfs01"]);
}
