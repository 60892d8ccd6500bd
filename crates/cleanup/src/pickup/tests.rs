//! Rounds of pickup over a folder that anybody may have filled.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use ipc::cleanup::{Client, Options};
use mail::submission::{Head, trailer};
use mail::{Address, Origin, Recipient};
use queue::Folder;

use super::Pickup;
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

fn round(instance: &Instance, client: Client) {
    let submitter = Submitter {
        cleanup: client,
        options: Options::default(),
        content_filter: Some("scan:".into()),
        myhostname: "mail.example.com".into(),
    };
    let pickup = Pickup { maildrop: instance.root.maildrop().unwrap(), submitter, ends: &|| false };
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
