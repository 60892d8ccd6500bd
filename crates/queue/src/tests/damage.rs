//! Bytes that are not a queue file, or no longer one: an error, never a panic.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::{Active, Content, Damage, QueueError, RecipientState, Stored};

fn open(bytes: &[u8]) -> Result<Stored, QueueError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Stored::open(Arc::new(file), Path::new("test").into())
}

/// Reads everything a file claims to have; what it says does not matter, that it returns does.
fn read_all(bytes: &[u8]) -> bool {
    let Ok(stored) = open(bytes) else { return false };
    let recipients = stored.recipients_from(0, usize::MAX).is_ok();
    let content = stored.verify_content().is_ok();
    stored.last_attempts().unwrap();
    recipients && content
}

/// The handle of a queue manager whose life has this number.
fn in_life(queue: &Queue, life: u32) -> Active {
    Active::with_life(queue.active.folders().clone(), life)
}

fn golden() -> Vec<u8> {
    fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version-1.queue")).unwrap()
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_until_the_content_is_whole() {
    let bytes = golden();
    let whole = usize::try_from(open(&bytes).unwrap().offsets()[3]).unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(read_all(&bytes[..cut]), cut >= whole, "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_of_what_never_changes_is_noticed() {
    let bytes = golden();
    let [envelope, _, _, journal] = open(&bytes).unwrap().offsets().map(|o| usize::try_from(o).unwrap());
    for place in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] ^= change;
            let may_change = (64..envelope).contains(&place) || place >= journal;
            assert_eq!(read_all(&bytes), may_change, "byte {place} ^ {change:#x}");
        }
    }
}

#[test]
fn a_record_that_lies_with_a_right_checksum_is_an_error() {
    let bytes = golden();
    let [envelope, _, content, _] = open(&bytes).unwrap().offsets().map(|o| usize::try_from(o).unwrap());
    for place in (8..60).chain(envelope..content) {
        for change in [1, 0x7f, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] ^= change;
            let checksum = crc32fast::hash(&[&bytes[envelope..content], &bytes[..60]].concat());
            bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
            read_all(&bytes);
        }
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let damage = |bytes: &[u8]| match open(bytes) {
        Err(QueueError::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    };
    assert_eq!(damage(b""), Damage::Empty);
    assert_eq!(damage(&[0; 200]), Damage::Unfinished);
    assert_eq!(damage(&[b'x'; 200]), Damage::NotAQueueFile);
    assert_eq!(damage(&golden()[..50]), Damage::Truncated);
    let mut newer = golden();
    newer[8] = 2;
    assert_eq!(damage(&newer), Damage::Version(2));
}

#[test]
fn a_descriptor_that_is_no_queue_file_is_refused() {
    let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
    assert!(Content::from_file(Arc::new(pipe.into())).is_err());
    assert!(Content::from_file(Arc::new(File::open("/").unwrap())).is_err());
}

/// The records that most messages do not have.
#[test]
fn the_golden_file_with_every_optional_record_is_what_is_written() {
    let name = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version-1-filtered.queue");
    let client = mail::Client {
        sasl_method: "PLAIN".into(),
        sasl_username: "jane".into(),
        sasl_sender: "jane@example.com".into(),
        ..full().client
    };
    let envelope = mail::Envelope { content_filter: Some("scan:[127.0.0.1]:10024".into()), client, ..full() };
    check_golden(name, &envelope);
}

/// What a content filter passed on of the client that came first.
#[test]
fn the_golden_file_with_a_forwarded_client_is_what_is_written() {
    let name = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version-1-forwarded.queue");
    let client = mail::Client {
        name: "first.example".into(),
        address: "192.0.2.7".into(),
        port: 4711,
        helo: "[192.0.2.7]".into(),
        protocol: "ESMTP".into(),
        ..mail::Client::default()
    };
    let forwarded = mail::Forwarded { client: Some(client), id: Some("4hLv2p4lmqz5Bj".into()) };
    let envelope = mail::Envelope { forwarded: Some(forwarded), ..full() };
    check_golden(name, &envelope);
    let only_id = mail::Forwarded { client: None, id: Some(String::new()) };
    let queue = queue();
    let id = queue.commit(&mail::Envelope { forwarded: Some(only_id.clone()), ..full() }, b"x\n");
    let message = queue.active.claim(id).unwrap();
    assert_eq!(message.envelope_without_recipients().forwarded, Some(only_id));
    assert_eq!(message.envelope_without_recipients().first_client(), full().client);
}

fn check_golden(name: &str, envelope: &mail::Envelope) {
    let queue = queue();
    let id = queue.commit(envelope, b"Subject: golden\n\nThis file never changes.\n");
    let written = fs::read(queue.only_file()).unwrap();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(name, &written).unwrap();
    }
    assert_eq!(written, fs::read(name).unwrap());
    let message = queue.active.claim(id).unwrap();
    let read = mail::Envelope {
        recipients: envelope.recipients.clone(),
        ..message.envelope_without_recipients().clone()
    };
    assert_eq!(read, *envelope);
}

/// A message that asks for a trace, and an attempt that a remote host decided.
#[test]
fn the_golden_file_with_a_trace_is_what_is_written() {
    let name = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version-1-traced.queue");
    let mut envelope = mail::Envelope { trace: mail::Trace::Probe, ..full() };
    envelope.recipients[1].notify = Notify::SUCCESS.and(Notify::EXPANDED);
    let queue = queue();
    let id = queue.commit(&envelope, b"Subject: golden\n\nThis file never changes.\n");
    // The life that a file is in before one is begun.
    let mut message = in_life(&queue, 0).claim(id).unwrap();
    let outcome = Outcome::sent("mx.example.com[192.0.2.1]:25", "250 ok").counted_as(Served::Relayed);
    let outcome = outcome.said_by("mx.example.com", Some("250 ok"));
    let attempt = Attempt { outcome, ..attempt(0, "") };
    message.append_attempt(&attempt).unwrap();
    let written = fs::read(queue.only_file()).unwrap();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(name, &written).unwrap();
    }
    assert_eq!(written, fs::read(name).unwrap());
    assert_eq!(message.trace(), envelope.trace);
    assert_eq!(message.last_attempts().unwrap()[&0], attempt);
}

/// Files of version 1 must be readable for ever; and as long as version 1 is written, it is written like this.
#[test]
fn the_golden_file_is_what_is_written() {
    let queue = queue();
    let id = queue.commit(&full(), b"Subject: golden\n\nThis file never changes.\n");
    let mut message = in_life(&queue, 7).claim(id).unwrap();
    message.mark(1, RecipientState::Bounced).unwrap();
    message
        .append_attempt(&attempt(0, "connect to mx.example.com[192.0.2.1]:25: Connection refused"))
        .unwrap();
    let written = fs::read(queue.only_file()).unwrap();
    let name = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version-1-marked.queue");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(name, &written).unwrap();
    }
    assert_eq!(written, fs::read(name).unwrap());
}

/// The state of a recipient may be in its first place, written over there, or in the journal, which comes later.
#[test]
fn a_state_is_read_where_it_is() {
    let queue = queue();
    let id = queue.commit(&plain(&["a@example.com", "b@example.com"]), b"x\n");
    fs::write(queue.only_file(), golden()).unwrap();
    let mut message = queue.active.claim(id).unwrap();
    let states = |stored: &Stored| {
        stored.recipients_from(0, 9).unwrap().iter().map(|found| found.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&message), [RecipientState::Pending, RecipientState::Bounced]);
    assert_eq!(message.last_attempts().unwrap().into_keys().collect::<Vec<_>>(), [0]);
    for state in [RecipientState::Done, RecipientState::Delivered] {
        message.mark(1, state).unwrap();
        assert_eq!(states(&message), [RecipientState::Pending, state]);
        assert_eq!(states(&open(&fs::read(queue.only_file()).unwrap()).unwrap()), states(&message));
    }
}
