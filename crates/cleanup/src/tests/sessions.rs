//! Message after message over connections.

use std::io::Write;
use std::time::{Duration, SystemTime};

use ipc::cleanup::{CleanupError, Client, Committed, Late, Options, Refusal};
use ipc::queue_manager::Word;
use mail::QueueId;
use queue::Folder;

use super::Instance;
use super::instance::{Manner, envelope};

fn send(client: &Client, content: &[u8], options: Options) -> (QueueId, Result<Committed, CleanupError>) {
    let id = QueueId::generate(SystemTime::now());
    let mut submission = client.begin(id, &envelope(), options).unwrap();
    submission.write_all(content).unwrap();
    (id, submission.commit())
}

#[test]
fn messages_of_any_size_are_queued_and_the_queue_manager_is_told() {
    let instance = Instance::new("");
    for size in [0, 4_000, 70_000, 3_000_000] {
        let body = "0123456789abcde\n".repeat(size / 16);
        let content = format!("Subject: x\n\n{body}");
        let (id, committed) = send(&instance.client, content.as_bytes(), Options::default());
        let size = committed.unwrap().size;
        assert_eq!(instance.words.recv_timeout(Duration::from_secs(5)), Ok(Word::Arrived(id)));
        let (_, stored, text) =
            instance.messages(Folder::Incoming).into_iter().find(|(found, ..)| *found == id).unwrap();
        assert_eq!(size, text.len() as u64);
        assert!(text.starts_with("Received: from ") && text.ends_with(&content));
        assert_eq!(stored.sender.as_str(), "jane@example.net");
    }
}

/// What a client decides when it has seen all of the content counts, however much of that is on the disk.
#[test]
fn what_is_decided_at_the_end_counts() {
    let instance = Instance::new("");
    for size in [10, 3_000_000] {
        let content = format!("Subject: x\n\n{}\n", "y".repeat(size));
        let late = Late {
            hold: true,
            filter: Some("scan:[127.0.0.1]:10024".into()),
            redirect: None,
            bcc: Some("unseen@example.net".parse().unwrap()),
        };
        let id = QueueId::generate(SystemTime::now());
        let mut submission = instance.client.begin(id, &envelope(), Options::default()).unwrap();
        submission.write_all(content.as_bytes()).unwrap();
        submission.commit_with(late).unwrap();
        let messages = instance.messages(Folder::Hold);
        let (_, stored, text) = messages.into_iter().find(|(found, ..)| *found == id).unwrap();
        assert!(text.ends_with(&content));
        assert_eq!(stored.content_filter.as_deref(), Some("scan:[127.0.0.1]:10024"));
    }
}

#[test]
fn a_refused_message_leaves_nothing_and_the_connection_stays_good() {
    let instance =
        Instance::new("message_size_limit = 1000000\nheader_checks = inline:{ {Subject: no = REJECT} }\n");
    let (_, refused) = send(&instance.client, &vec![b'x'; 1_500_000], Options::default());
    assert!(matches!(refused, Err(CleanupError::Refused(Refusal::TooBig))), "{refused:?}");
    let (_, refused) = send(&instance.client, b"Subject: no\n\n", Options::default());
    assert!(matches!(refused, Err(CleanupError::Refused(Refusal::Rejected(..)))), "{refused:?}");
    // Given up by the client, before and after something was sent.
    for size in [10, 200_000] {
        let id = QueueId::generate(SystemTime::now());
        let mut submission = instance.client.begin(id, &envelope(), Options::default()).unwrap();
        submission.write_all(&vec![b'x'; size]).unwrap();
        drop(submission);
    }
    let (id, committed) = send(&instance.client, b"Subject: yes\n\n", Options::default());
    committed.unwrap();
    // The session of the message that was given up may not have come to its content yet: it is over when only the
    // one that queued the last message is left.
    let deadline = SystemTime::now() + Duration::from_secs(60);
    while instance.sessions() > 1 && SystemTime::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let queue = instance.root.read_only().unwrap();
    assert_eq!(queue.ids(Folder::Incoming).map(Result::unwrap).collect::<Vec<_>>(), [id]);
}

#[test]
fn held_mail_is_not_told_to_the_queue_manager() {
    let instance = Instance::new("header_checks = inline:{ {Subject: hold = HOLD} }\n");
    let hold = Options { hold: true, ..Options::default() };
    send(&instance.client, b"Subject: x\n\n", hold).1.unwrap();
    send(&instance.client, b"Subject: hold\n\n", Options::default()).1.unwrap();
    assert_eq!(instance.messages(Folder::Hold).len(), 2);
    assert_eq!(instance.messages(Folder::Incoming), []);
    assert!(instance.words.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn what_the_queue_manager_has_delivered_is_taken_and_what_stays_is_stored() {
    let can_wait = Options { can_wait: true, ..Options::default() };
    for manner in [Manner::Delivers, Manner::Keeps, Manner::Dies, Manner::SaysNothing] {
        let instance = Instance::new("");
        *instance.manner.lock().unwrap() = manner;
        let (id, committed) = send(&instance.client, b"Subject: x\n\nbody\n", can_wait);
        assert!(committed.unwrap().size > 17);
        // Each word is said once, whatever the answer was.
        assert_eq!(instance.words.recv_timeout(Duration::from_secs(5)), Ok(Word::Offered(id)));
        let queued = instance.messages(Folder::Incoming).iter().any(|(found, ..)| *found == id);
        assert_eq!(queued, !matches!(manner, Manner::Delivers));
        if queued {
            assert_eq!(instance.words.recv_timeout(Duration::from_secs(5)), Ok(Word::Stored(id)));
        }
    }
    let instance = Instance::new("");
    let hold = Options { hold: true, ..can_wait };
    send(&instance.client, b"Subject: x\n\n", hold).1.unwrap();
    let (id, committed) = send(&instance.client, b"Subject: x\n\n", Options::default());
    committed.unwrap();
    assert_eq!(instance.words.recv_timeout(Duration::from_secs(5)), Ok(Word::Arrived(id)));
}

#[test]
fn garbage_ends_a_session_and_nothing_else() {
    let instance = Instance::new("");
    for garbage in
        [&b"\x05\0\0\0\x01hello"[..], b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\0\0", b"\xff\xff\xff\xff\xff"]
    {
        let mut socket =
            std::os::unix::net::UnixStream::connect(instance.folder.path().join("public/cleanup")).unwrap();
        socket.write_all(garbage).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A session that ends with unread input resets the connection.
        let _ = std::io::Read::read_to_end(&mut socket, &mut answer);
        assert_eq!(answer, []);
    }
    send(&instance.client, b"Subject: x\n\n", Options::default()).1.unwrap();
}
