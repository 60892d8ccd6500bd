//! The way of a message through the folders.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{Content, Folder, QueueError, RecipientState, Stored};

fn recipients(stored: &Stored) -> Vec<Recipient> {
    stored.recipients_from(0, usize::MAX).unwrap().into_iter().map(|r| r.recipient).collect()
}

/// The content comes through, however much of it was on the disk when the envelope changed, and whichever way it moves.
#[test]
fn an_envelope_may_be_replaced_while_content_comes() {
    for size in [0, 10, 70_000, 400_000] {
        for (first, second) in [(plain(&["a@example.com"]), full()), (full(), plain(&["a@example.com"]))] {
            let queue = queue();
            let id = QueueId::generate(SystemTime::now());
            let mut writer = queue.incoming.create(id, &first, false).unwrap();
            let text: Vec<u8> = (0..size).map(|at: u32| b'a' + u8::try_from(at % 23).unwrap()).collect();
            text.chunks(7_000).for_each(|piece| writer.append(piece).unwrap());
            writer.replace_envelope(&second).unwrap();
            writer.append(b"end\n").unwrap();
            assert_eq!(writer.commit().unwrap(), u64::from(size) + 4);
            let message = queue.active.claim_verified(id).unwrap();
            assert_eq!(message.envelope_without_recipients().client, second.client);
            assert_eq!(recipients(&message), second.recipients);
            let mut copied = Vec::new();
            message.content().copy_to(&mut copied).unwrap();
            assert!(copied == [&text[..], b"end\n"].concat(), "{size}");
            let journal_offset = message.offsets()[3];
            assert_eq!(std::fs::metadata(queue.only_file()).unwrap().len(), journal_offset);
            message.remove().unwrap();
        }
    }
}

#[test]
fn an_envelope_comes_back_as_it_was() {
    for envelope in
        [plain(&["a@example.com"]), full(), Envelope { origin: Origin::Local { uid: 1000 }, ..full() }]
    {
        let queue = queue();
        let id = queue.commit(&envelope, b"Subject: x\n\nbody\n");
        let message = queue.active.claim(id).unwrap();
        let read =
            Envelope { recipients: recipients(&message), ..message.envelope_without_recipients().clone() };
        assert_eq!(read, envelope);
        message.remove().unwrap();
        assert!(queue.files().is_empty());
    }
}

#[test]
fn content_of_any_size_comes_back_byte_for_byte() {
    let queue = queue();
    for size in [0_usize, 1, 7_000, 65_000, 65_536, 200_001] {
        let content = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>();
        for piece in [1_000, 65_536, 1 << 20] {
            let id = QueueId::generate(SystemTime::now());
            let mut writer = queue.incoming.create(id, &full(), false).unwrap();
            content.chunks(piece).for_each(|part| writer.write_all(part).unwrap());
            assert_eq!(writer.content_size(), u64::try_from(size).unwrap());
            writer.commit().unwrap();
            let message = queue.active.claim_verified(id).unwrap();
            let (mut read, mut copied) = (Vec::new(), Vec::new());
            Content::from_file(message.share()).unwrap().read_to_end(&mut read).unwrap();
            message.content().copy_to(&mut copied).unwrap();
            assert!(read == content && copied == content, "{size} bytes in pieces of {piece}");
            message.remove().unwrap();
        }
    }
}

#[test]
fn a_message_that_is_dropped_leaves_nothing() {
    let queue = queue();
    let mut writer = queue.incoming.create(QueueId::generate(SystemTime::now()), &full(), false).unwrap();
    writer.append(&[b'x'; 200_000]).unwrap();
    assert_eq!(std::fs::metadata(queue.only_file()).unwrap().permissions().mode() & 0o777, 0o600);
    drop(writer);
    assert!(queue.files().is_empty());
}

#[test]
fn a_small_message_is_not_on_disk_before_its_commit() {
    let queue = queue();
    let mut writer = queue.incoming.create(QueueId::generate(SystemTime::now()), &full(), false).unwrap();
    writer.append(b"Subject: x\n\n").unwrap();
    assert!(queue.files().is_empty());
    writer.commit().unwrap();
    assert_eq!(std::fs::metadata(queue.only_file()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn recipients_may_be_added_until_the_content_begins() {
    let queue = queue();
    let id = QueueId::generate(SystemTime::now());
    let mut writer = queue.incoming.create(id, &plain(&["a@example.com"]), false).unwrap();
    writer.add_recipient(&Recipient::new(address("b@example.com"))).unwrap();
    writer.append(b"\n").unwrap();
    assert!(writer.add_recipient(&Recipient::new(address("c@example.com"))).is_err());
    writer.commit().unwrap();
    assert_eq!(recipients(&queue.active.claim(id).unwrap()).len(), 2);
}

#[test]
fn a_held_message_is_out_of_reach_until_it_is_released() {
    let queue = queue();
    for late in [false, true] {
        let id = QueueId::generate(SystemTime::now());
        let mut writer = queue.incoming.create(id, &full(), !late).unwrap();
        writer.append(&[b'x'; 100_000]).unwrap();
        if late {
            writer.set_hold();
        }
        writer.commit().unwrap();
        assert_eq!(queue.only_folder(), "hold");
        assert!(matches!(queue.active.claim(id), Err(QueueError::NotFound(_))));
        queue.root.operator().unwrap().requeue(id, &[Folder::Hold]).unwrap();
        queue.active.claim(id).unwrap().remove().unwrap();
    }
}

#[test]
fn many_recipients_are_read_in_slices() {
    let queue = queue();
    let names = (0..12_345).map(|n| format!("user{n}@example.com")).collect::<Vec<_>>();
    let envelope = plain(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let id = queue.commit(&envelope, b"\n");
    let mut message = queue.active.claim(id).unwrap();
    assert_eq!(message.recipient_count(), 12_345);
    message.mark(10_000, RecipientState::Done).unwrap();
    let mut index = 0;
    loop {
        let slice = message.recipients_from(index, 1_000).unwrap();
        for recipient in &slice {
            assert_eq!(recipient.recipient.address.as_str(), names[index as usize]);
            assert_eq!((recipient.index, recipient.state == RecipientState::Done), (index, index == 10_000));
            index += 1;
        }
        if slice.len() < 1_000 {
            break;
        }
    }
    assert_eq!(index, 12_345);
    let back = message.recipients_from(17, 1).unwrap();
    assert_eq!(back[0].recipient.address.as_str(), "user17@example.com");
    assert!(message.recipients_from(12_345, 1).unwrap().is_empty());
}

#[test]
fn states_and_attempts_survive_a_deferral() {
    let queue = queue();
    let id = queue.commit(&full(), b"Subject: x\n\nbody\n");
    let mut message = queue.active.claim(id).unwrap();
    message.mark(0, RecipientState::Bounced).unwrap();
    message.append_attempt(&attempt(0, "first")).unwrap();
    message.append(&[attempt(1, "second"), attempt(0, "third")], &[]).unwrap();
    message.note_delay_reported().unwrap();
    let due = UNIX_EPOCH + Duration::new(1_795_400_000, 5_000);
    message.defer(due).unwrap();

    let entry = queue.active.scan(Folder::Deferred).next().unwrap().unwrap();
    assert_eq!((entry.id, entry.modified, entry.ready), (id, due, true));
    let message = queue.active.claim(id).unwrap();
    let states = message.recipients_from(0, 9).unwrap().iter().map(|r| r.state).collect::<Vec<_>>();
    assert_eq!(states, [RecipientState::Bounced, RecipientState::Pending]);
    assert!(message.delay_was_reported() && !message.is_forced_to_expire());
    let texts = message.journal().map(|a| a.unwrap().outcome.text).collect::<Vec<_>>();
    assert_eq!(texts, ["first", "second", "third"]);
    let last = message.last_attempts().unwrap();
    assert_eq!((last[&0].clone(), last[&1].clone()), (attempt(0, "third"), attempt(1, "second")));
}

/// What has come stays where it is until it is settled; what a scan or its time brings back is moved at once.
#[test]
fn a_message_is_settled_or_ends_where_it_came() {
    let queue = queue();
    for by_handle in [false, true] {
        let id = queue.commit(&full(), b"\n");
        let mut message = queue.active.claim(id).unwrap();
        assert_eq!((message.lies_in(), queue.only_folder()), (Folder::Incoming, "incoming".into()));
        if by_handle {
            message.settle().unwrap()
        } else {
            queue.active.settle(id).unwrap()
        }
        assert_eq!(queue.only_folder(), "active");
        assert!(matches!(queue.active.settle(id), Err(QueueError::NotFound(_))));
        queue.active.reclaim(id).unwrap().defer(SystemTime::now()).unwrap();
        assert_eq!(queue.active.claim(id).unwrap().lies_in(), Folder::Active);
        assert_eq!(queue.only_folder(), "active");
        queue.active.remove(id, Folder::Active).unwrap();
    }
    let id = queue.commit(&full(), b"\n");
    assert_eq!(queue.active.claim_verified(id).unwrap().lies_in(), Folder::Active);
    queue.active.remove(id, Folder::Active).unwrap();
    type End = fn(Message) -> Result<(), QueueError>;
    let ends: [(End, &str); 2] = [(|m| m.defer(SystemTime::now()), "deferred"), (Message::hold, "hold")];
    for (end, folder) in ends {
        let id = queue.commit(&full(), b"\n");
        end(queue.active.claim(id).unwrap()).unwrap();
        assert_eq!(queue.only_folder(), folder);
        queue.root.operator().unwrap().delete(id, &Folder::ALL).unwrap();
    }
    let id = queue.commit(&full(), b"\n");
    queue.active.claim(id).unwrap().remove().unwrap();
    assert!(queue.files().is_empty());
}

#[test]
fn a_message_can_be_put_down_and_taken_up_again() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    drop(queue.active.claim(id).unwrap());
    drop(queue.settled(id));
    assert!(matches!(queue.active.claim(id), Err(QueueError::NotFound(_))));
    queue.active.reclaim(id).unwrap().remove().unwrap();
}

/// What could not be put aside is not delivered again before the queue can be changed.
#[test]
fn a_message_in_a_folder_that_cannot_be_changed_is_not_taken_up_again() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    drop(queue.settled(id));
    let in_the_way = PathBuf::from(queue.only_file().display().to_string().replace("/active/", "/deferred/"));
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(queue.active.reclaim(id), Err(QueueError::Io { .. })));
    assert_eq!(queue.only_folder(), "active");
    std::fs::remove_dir(in_the_way).unwrap();
    queue.active.reclaim(id).unwrap().remove().unwrap();
    assert!(queue.files().is_empty());
}

#[test]
fn every_committed_message_is_found_by_a_scan() {
    let queue = queue();
    let mut committed = (0..200).map(|_| queue.commit(&plain(&["a@example.com"]), b"\n")).collect::<Vec<_>>();
    let mut found = queue.active.scan(Folder::Incoming).map(|e| e.unwrap().id).collect::<Vec<_>>();
    let mut listed =
        queue.root.read_only().unwrap().ids(Folder::Incoming).map(Result::unwrap).collect::<Vec<_>>();
    committed.sort();
    found.sort();
    listed.sort();
    assert_eq!(found, committed);
    assert_eq!(listed, committed);
}

#[test]
fn the_header_ends_with_the_empty_line() {
    let queue = queue();
    for (content, header) in [
        (&b"A: 1\nB: 2\n\nbody\n\n"[..], &b"A: 1\nB: 2\n\n"[..]),
        (b"A: 1\n", b"A: 1\n"),
        (b"\nbody\n\n", b"\n"),
        (b"", b""),
    ] {
        let id = queue.commit(&full(), content);
        let message = queue.active.claim(id).unwrap();
        assert_eq!(message.content().header(1 << 20).unwrap(), header);
        assert_eq!(message.content().header(3).unwrap(), header[..header.len().min(3)]);
    }
}

#[test]
fn what_was_expanded_on_arrival_is_only_reported() {
    let queue = queue();
    let mut envelope = plain(&["list@example.com", "member@example.com"]);
    envelope.recipients[0].notify = Notify::SUCCESS.and(Notify::EXPANDED);
    let id = queue.commit(&envelope, b"x\n");
    let message = queue.active.claim(id).unwrap();
    let states: Vec<_> =
        message.recipients_from(0, 9).unwrap().into_iter().map(|found| found.state).collect();
    assert_eq!(states, [RecipientState::Delivered, RecipientState::Pending]);
    assert_eq!(message.expanded_count().unwrap(), 1);
}

#[test]
fn attempts_keep_what_a_remote_host_said() {
    let queue = queue();
    let id = queue.commit(&plain(&["a@example.com"]), b"x\n");
    let mut message = queue.active.claim(id).unwrap();
    let outcomes = [
        Outcome::sent("local", "delivered").counted_as(Served::Expanded),
        Outcome::sent("x[y]:25", "250 ok").counted_as(Served::Relayed).said_by("x", Some("250 ok")),
        Outcome::sent("x[y]:25", "250 ok").counted_as(Served::PassedOn).said_by("x", None),
        Outcome {
            diagnostic: Some("x-unix; oops".into()),
            ..Outcome::deferred("local", Dsn::new(4, 3, 0), "no")
        },
        Outcome {
            final_recipient: Some(address("jürgen@example.com")),
            ..Outcome::bounced("local", Dsn::new(5, 1, 1), "unknown user")
        },
    ];
    for outcome in outcomes {
        message.append_attempt(&Attempt { outcome: outcome.clone(), ..attempt(0, "") }).unwrap();
        assert_eq!(message.last_attempts().unwrap()[&0].outcome, outcome);
    }
}

/// A handle may be dropped and had again: what was decided is recorded wherever the operator has moved the message.
#[test]
fn a_message_is_opened_again_where_it_is() {
    let queue = queue();
    for lies_in in [Folder::Incoming, Folder::Active] {
        let id = queue.commit(&plain(&["a@example.com", "b@example.com"]), b"x\n");
        let mut message = queue.active.claim(id).unwrap();
        if lies_in == Folder::Active {
            message.settle().unwrap();
        }
        drop(message);
        let reopen = || queue.active.reopen(id, lies_in, true).unwrap();
        reopen().mark(0, RecipientState::Done).unwrap();
        reopen().hold().unwrap();
        let mut held = reopen();
        held.mark(1, RecipientState::Bounced).unwrap();
        let states: Vec<_> =
            held.recipients_from(0, 2).unwrap().into_iter().map(|stored| stored.state).collect();
        assert_eq!(states, [RecipientState::Done, RecipientState::Bounced]);
        // It is the operator's now: putting aside or removing what was taken up leaves it alone.
        assert!(matches!(held.defer(SystemTime::now()), Err(QueueError::NotFound(_))));
        queue.active.remove(id, lies_in).unwrap();
        assert_eq!(queue.only_folder(), "hold");
        queue.root.operator().unwrap().delete(id, &Folder::ALL).unwrap();
        assert!(matches!(queue.active.reopen(id, lies_in, true), Err(QueueError::NotFound(_))));
    }
}

#[test]
fn nothing_is_noted_of_a_message_that_was_only_looked_at() {
    let queue = queue();
    let id = queue.commit(&plain(&["a@example.com"]), b"Subject: x\n\nbody\n");
    let path = queue.only_file();
    // Before the last change, so that every file system that notes times at all would do so.
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_times(std::fs::FileTimes::new().set_accessed(long_ago)).unwrap();
    let stored = queue.root.read_only().unwrap().open(Folder::Incoming, id).unwrap();
    assert_eq!(recipients(&stored).len(), 1);
    assert_eq!(std::fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
}
