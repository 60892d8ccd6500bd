//! Rounds of pickup over a folder that anybody may have filled, and clients at its desk, who may be anybody.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use ipc::cleanup::{Begin, Client, Options};
use ipc::frame::Receiver;
use mail::submission::{Head, NOT_TAKEN, TAKEN, handed, trailer};
use mail::{Address, Origin, Recipient};
use queue::Folder;
use service::{Connection, Stream};

use super::Pickup;
use super::desk::Desk;
use super::submission::Submitter;
use crate::tests::Instance;

fn submission(recipients: usize, content: &[u8]) -> Vec<u8> {
    let mut head = Head::new(Address::new("joe").unwrap());
    head.full_name = "Joe Doe".into();
    head.recipients =
        (0..recipients).map(|n| Recipient::new(Address::new(format!("user{n}")).unwrap())).collect();
    let mut bytes = head.encode();
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&trailer(content.len() as u64));
    bytes
}

fn put(instance: &Instance, name: &str, bytes: &[u8]) {
    let path = instance.folder.path().join("maildrop").join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o744)).unwrap();
}

fn submitter(client: Client) -> Arc<Submitter> {
    Arc::new(Submitter {
        cleanup: client,
        options: Options::default(),
        content_filter: Some("scan:".into()),
        myhostname: "mail.example.com".into(),
    })
}

fn round(instance: &Instance, client: Client) {
    let (maildrop, submitter) = (instance.root.maildrop().unwrap(), submitter(client));
    let pickup = Pickup { maildrop, submitter, ends: &|| false };
    pickup.round();
}

fn names(instance: &Instance, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(instance.folder.path().join(folder)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn submissions_of_any_size_go_into_the_queue() {
    let instance = Instance::new("");
    let large = format!("Subject: large\n\n{}", "0123456789abcde\n".repeat(100_000));
    put(&instance, "small", &submission(1, b"Subject: small\n\nbody\n"));
    put(&instance, "large", &submission(2, large.as_bytes()));
    put(&instance, "many", &submission(20_000, b"Subject: many\n\nbody\n"));
    round(&instance, instance.client.clone());
    assert_eq!(names(&instance, "maildrop"), [] as [&str; 0]);
    let messages = instance.messages(Folder::Incoming);
    assert_eq!(messages.len(), 3);
    for (_, envelope, content) in messages {
        assert_eq!(envelope.sender.as_str(), "joe@example.com");
        assert_eq!(envelope.content_filter.as_deref(), Some("scan:"));
        assert_eq!(envelope.origin, Origin::Local { uid: nix::unistd::getuid().as_raw() });
        assert!(content.contains("\nFrom: Joe Doe <joe@example.com>\n"), "{content}");
        let (_, body) = content.split_once("\n\n").unwrap();
        assert!(body == "body\n" || body == &large[16..]);
    }
}

#[test]
fn what_is_no_submission_is_set_aside() {
    let instance = Instance::new("");
    let whole = submission(1, b"Subject: x\n\nbody\n");
    put(&instance, "cut", &whole[..whole.len() - 1]);
    put(&instance, "empty", b"");
    put(&instance, "head", &submission(1, b"")[..30]);
    put(&instance, "other", &b"x".repeat(10_000));
    let mut torn = submission(1, &b"Subject: x\n\nbody\n".repeat(1000));
    torn[4096..8192].fill(0);
    put(&instance, "torn", &torn);
    let mut longer = whole[..whole.len() - 21].to_vec();
    longer.extend_from_slice(b"more");
    longer.extend_from_slice(&trailer(17));
    put(&instance, "longer", &longer);
    round(&instance, instance.client.clone());
    assert_eq!(names(&instance, "maildrop"), [] as [&str; 0]);
    assert_eq!(names(&instance, "corrupt"), ["cut", "empty", "head", "longer", "other", "torn"]);
    assert_eq!(instance.messages(Folder::Incoming), []);
}

#[test]
fn what_cleanup_refuses_goes_back_to_its_sender() {
    let instance = Instance::new("message_size_limit = 5000\n");
    let content = format!("Subject: too big\n folded\nX: y\n\n{}", "x".repeat(6000));
    put(&instance, "big", &submission(2, content.as_bytes()));
    put(&instance, "nobody", &submission(0, b"Subject: to nobody\n\n"));
    round(&instance, instance.client.clone());
    assert_eq!(names(&instance, "maildrop"), [] as [&str; 0]);
    let messages = instance.messages(Folder::Incoming);
    assert_eq!(messages.len(), 2);
    for (_, envelope, content) in messages {
        assert!(envelope.sender.is_null());
        assert!(content.contains("\nTo: joe@example.com\n"), "{content}");
        assert!(
            content.contains("Subject: too big\n folded\nX: y\n") || content.contains("Subject: to nobody\n")
        );
    }
}

#[test]
fn without_cleanup_everything_stays() {
    let instance = Instance::new("");
    put(&instance, "one", &submission(1, b"Subject: x\n\nbody\n"));
    round(&instance, Client::new(instance.folder.path().join("public/nothing")));
    assert_eq!(names(&instance, "maildrop"), ["one"]);
    round(&instance, instance.client.clone());
    assert_eq!(names(&instance, "maildrop"), [] as [&str; 0]);
}

fn desk(client: Client) -> Desk {
    Desk { submitter: submitter(client), is_open: true, present: Mutex::default() }
}

/// A client of this process, and what the desk sees of it.
fn visitor() -> (UnixStream, Connection) {
    let (here, there) = UnixStream::pair().unwrap();
    (here, Connection { stream: Arc::new(Stream::Unix(there)), peer: None, local: None })
}

/// What the desk answers to these bytes.
fn answer(desk: &Desk, bytes: &[u8], stays: bool) -> Option<u8> {
    let (mut client, connection) = visitor();
    assert!(desk.admits(&connection));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            desk.serve(&connection);
            drop(connection);
        });
        // It may have gone already.
        let _ = client.write_all(bytes);
        if !stays {
            client.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let mut answer = [0];
        client.read(&mut answer).ok().filter(|count| *count > 0).map(|_| answer[0])
    })
}

#[test]
fn what_is_handed_over_is_in_the_queue_when_it_is_answered() {
    let instance = Instance::new("");
    let desk = desk(instance.client.clone());
    let large = format!("Subject: large\n\n{}", "0123456789abcde\n".repeat(15_000));
    for content in ["Subject: small\n\nbody\n", &large] {
        let bytes = handed(&submission(1, content.as_bytes())).unwrap();
        assert_eq!(answer(&desk, &bytes, true), Some(TAKEN));
        let messages = instance.messages(Folder::Incoming);
        let (subject, body) = content.split_once("\n\n").unwrap();
        let is_it = |text: &str| text.contains(subject) && text.ends_with(&format!("\n\n{body}"));
        let (_, envelope, queued) = messages.iter().find(|(_, _, text)| is_it(text)).unwrap();
        assert_eq!(envelope.sender.as_str(), "joe@example.com");
        assert_eq!(envelope.content_filter.as_deref(), Some("scan:"));
        assert_eq!(envelope.origin, Origin::Local { uid: nix::unistd::getuid().as_raw() });
        assert!(queued.contains("\nFrom: Joe Doe <joe@example.com>\n"), "{queued}");
    }
}

#[test]
fn only_what_somebody_waits_with_may_be_delivered_before_it_is_in_the_queue() {
    let instance = Instance::new("");
    let bytes = submission(1, b"Subject: x\n\nbody\n");
    put(&instance, "found", &bytes);
    let path = instance.folder.path().join("public/deaf");
    let listener = UnixListener::bind(&path).unwrap();
    let begun = std::thread::spawn(move || {
        [(); 2].map(|()| {
            let (socket, _) = listener.accept().unwrap();
            let begin: Option<Begin> = Receiver::new().next_message(&socket).unwrap();
            begin.unwrap().options.can_wait
        })
    });
    round(&instance, Client::new(path.clone()));
    assert_eq!(answer(&desk(Client::new(path)), &handed(&bytes).unwrap(), true), Some(NOT_TAKEN));
    assert_eq!(begun.join().unwrap(), [false, true]);
}

#[test]
fn what_cleanup_refuses_is_told_to_its_sender_also_from_the_desk() {
    let instance = Instance::new("message_size_limit = 5000\n");
    let desk = desk(instance.client.clone());
    let big = submission(1, &b"0123456789abcde\n".repeat(400));
    assert_eq!(answer(&desk, &handed(&big).unwrap(), true), Some(TAKEN));
    let messages = instance.messages(Folder::Incoming);
    assert!(messages.len() == 1 && messages[0].1.sender.is_null(), "{messages:?}");
}

#[test]
fn nothing_but_a_whole_submission_of_one_who_waits_is_taken() {
    let instance = Instance::new("");
    let desk = desk(instance.client.clone());
    let whole = submission(1, b"Subject: x\n\nbody\n");
    let bytes = handed(&whole).unwrap();
    let refused = |bytes: &[u8], stays| assert_ne!(answer(&desk, bytes, stays), Some(TAKEN), "{bytes:?}");
    refused(&[&bytes[..], b"x"].concat(), true);
    refused(&bytes[..bytes.len() - 1], true);
    refused(&bytes, false);
    refused(&handed(&whole[..whole.len() - 1]).unwrap(), true);
    refused(&handed(b"").unwrap(), true);
    refused(b"GET / HTTP/1.0\r\n\r\n", true);
    refused(&[0xff; 100_000], true);
    refused(&[], false);
    assert_eq!(instance.messages(Folder::Incoming), []);
    let nowhere = self::desk(Client::new(instance.folder.path().join("public/nothing")));
    assert_eq!(answer(&nowhere, &bytes, true), Some(NOT_TAKEN));
    assert_eq!(answer(&desk, &bytes, true), Some(TAKEN));
}

#[test]
fn a_user_has_few_places_and_leaves_them_when_he_goes() {
    let instance = Instance::new("");
    let desk = desk(instance.client.clone());
    let crowd: Vec<_> = std::iter::repeat_with(visitor).take(40).collect();
    let admitted = crowd.iter().filter(|(_, connection)| desk.admits(connection)).count();
    assert_eq!(admitted, 16);
    drop(crowd);
    assert!(desk.admits(&visitor().1));
    let closed = Desk { is_open: false, ..self::desk(instance.client.clone()) };
    assert!(!closed.admits(&visitor().1));
}
