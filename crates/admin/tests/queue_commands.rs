//! postqueue, postsuper and postcat on a queue without a mail system around it.
//!
//! The listings in `golden/` are what Postfix's postqueue makes of the same messages, apart from `next_attempt`.
#![allow(clippy::unwrap_used, reason = "a test; the exception for tests does not reach its helper functions")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use mail::{Address, Body, Client, Dsn, Envelope, Notify, Origin, Outcome, QueueId, Recipient};
use queue::{Attempt, Folder, RecipientState, Root};

/// An instance with a queue, no daemons, and no configuration but the folders.
struct Instance {
    folder: tempfile::TempDir,
    root: Root,
}

impl Instance {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let main_cf = format!("queue_directory = {}\ndata_directory = {}\n", path("queue"), path("data"));
        std::fs::write(path("main.cf"), main_cf).unwrap();
        let root = Root::prepare(&folder.path().join("queue"), None).unwrap();
        Self { folder, root }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_postqueue")).parent().unwrap();
        let mut command = Command::new(programs.join(program));
        command.args(arguments).env("MAIL_CONFIG", self.folder.path()).env("TZ", "UTC");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// What the command prints, which must succeed.
    fn printed(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the command says about its work, which must succeed.
    fn said(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn commit(&self, id: &str, sender: &str, recipients: &[&str], hold: bool) -> QueueId {
        let id = id.parse().unwrap();
        let recipients = recipients.iter().map(|r| Recipient::new(address(r))).collect();
        self.commit_envelope(id, &Envelope { recipients, ..envelope(sender) }, hold);
        id
    }

    fn commit_envelope(&self, id: QueueId, envelope: &Envelope, hold: bool) {
        let mut writer = self.root.incoming().unwrap().create(id, envelope, hold).unwrap();
        writer.append(b"Subject: test\nX-Long: a\n b\n\nbody\n\nmore: body\n").unwrap();
        writer.commit().unwrap();
    }

    fn folder_of(&self, id: QueueId) -> Option<Folder> {
        self.root.read_only().unwrap().find(id).ok().map(|(folder, _)| folder)
    }
}

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn envelope(sender: &str) -> Envelope {
    Envelope::new(address(sender), Vec::new(), Duration::from_secs(1_795_362_868))
}

fn deferral(recipient: u32, text: &str) -> Attempt {
    Attempt {
        time: UNIX_EPOCH + Duration::from_secs(1_795_362_900),
        recipient,
        outcome: Outcome::deferred("none", Dsn::new(4, 4, 1), text),
        next_attempt: Some(UNIX_EPOCH + Duration::from_secs(1_795_363_900)),
    }
}

const LONG: &str =
    "other reason that is rather long and goes on and on and on and on and on and on and on and on";

/// A queue with a message in each state.
fn full_queue() -> Instance {
    let instance = Instance::new();
    let active = instance.root.active().unwrap();
    let id = instance.commit(
        "4gXyZ12345z1001",
        "",
        &["a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org"],
        false,
    );
    let mut message = active.claim(id).unwrap();
    let refused = "connect to mx: refused";
    let attempts = [deferral(0, "first"), deferral(0, refused), deferral(1, refused), deferral(2, LONG)];
    message.append(&attempts, &[]).unwrap();
    message.mark(4, RecipientState::Done).unwrap();
    message.defer(UNIX_EPOCH + Duration::from_secs(1_795_363_900)).unwrap();
    let id =
        instance.commit("4gXyZ12345z1000", "sender@example.org", &["a@example.com", "b@example.com"], false);
    active.claim(id).unwrap().settle().unwrap();
    let id = instance.commit("4gXyZ12345z1002", "sender\"\\x@example.org", &["a b@ex\"ample.com"], true);
    instance.root.operator().unwrap().expire(id, &Folder::ALL).unwrap();
    instance.commit("ABCDEF1234", "jürgen@example.org", &["info@exämple.com"], false);
    instance
}

#[test]
fn a_listing_has_the_form_of_postfix() {
    let instance = full_queue();
    assert_eq!(instance.printed("postqueue", &["-p"]), include_str!("golden/mailq.txt"));
    assert_eq!(instance.printed("postqueue", &["-j"]), include_str!("golden/mailq.jsonl"));
}

/// More messages than a thread reads at once, and between them some with more recipients than are in memory at once.
#[test]
fn a_message_of_many_recipients_is_listed_whole_among_others() {
    const MANY: usize = 2_500;
    let instance = Instance::new();
    let all: Vec<String> = (0..MANY).map(|n| format!("user{n}@example.com")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let few = instance.commit("ABCDEF0000", "few@example.org", &["a@example.com"], true);
    let many = instance.commit("ABCDEF1000", "many@example.org", &all, true);
    let hold = instance.folder.path().join("queue/hold");
    let copy = |from: QueueId, to: String| {
        std::fs::copy(hold.join(from.as_str()), hold.join(to)).unwrap();
    };
    (1..700).for_each(|n| copy(few, format!("ABCDEF{n:04}")));
    (1..6).for_each(|n| copy(many, format!("ABCDEF1{n:03}")));

    let mut found = [0, 0];
    for line in instance.printed("postqueue", &["-j"]).lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let recipients = message["recipients"].as_array().unwrap();
        if message["sender"] == "few@example.org" {
            assert_eq!(recipients.len(), 1);
            found[0] += 1;
        } else {
            assert!(recipients.iter().map(|each| each["address"].as_str().unwrap()).eq(all.iter().copied()));
            found[1] += 1;
        }
    }
    assert_eq!(found, [700, 6]);
    let text = instance.printed("postqueue", &["-p"]);
    assert!(text.ends_with(" in 706 Requests.\n"));

    // Who has seen enough goes away, and all that reads ends.
    let mut listing = instance.command("postqueue", &["-p"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(listing.stdout.take());
    assert!(listing.wait().unwrap().success());
}

#[test]
fn an_empty_queue_is_said_to_be_empty() {
    let instance = Instance::new();
    assert_eq!(instance.printed("postqueue", &["-p"]), "Mail queue is empty\n");
    assert_eq!(instance.printed("postqueue", &["-j"]), "");
}

#[test]
fn a_damaged_message_does_not_end_the_listing() {
    let instance = full_queue();
    let damaged = instance.folder.path().join("queue/hold/4gXyZ12345z1003");
    std::fs::write(&damaged, "no queue file").unwrap();
    let output = instance.run("postqueue", &["-j"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), include_str!("golden/mailq.jsonl"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("4gXyZ12345z1003: truncated queue file"));
}

#[test]
fn a_mistake_in_the_configuration_keeps_nobody_from_the_queue() {
    let instance = full_queue();
    let path = instance.folder.path().join("main.cf");
    let main_cf = std::fs::read_to_string(&path).unwrap() + "message_size_limit = many\n";
    std::fs::write(path, main_cf).unwrap();
    let output = instance.run("postqueue", &["-p"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), include_str!("golden/mailq.txt"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("main.cf:3: message_size_limit"), "{output:?}");
}

#[test]
fn flushing_needs_a_mail_system() {
    let instance = Instance::new();
    for arguments in [&["-f"][..], &["-i", "4gXyZ12345z1000"], &["-s", "example.org"], &["-s", "[192.0.2.1]"]]
    {
        assert_eq!(instance.run("postqueue", arguments).status.code(), Some(69), "{arguments:?}");
    }
    for arguments in [&[][..], &["-p", "-j"], &["-i", "../x"], &["-s", "a b"], &["-s", ""]] {
        assert_eq!(instance.run("postqueue", arguments).status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn messages_are_held_released_and_deleted_by_id() {
    let instance = full_queue();
    let id: QueueId = "4gXyZ12345z1000".parse().unwrap();
    assert_eq!(
        instance.said("postsuper", &["-h", id.as_str()]),
        "postsuper: 4gXyZ12345z1000: placed on hold\npostsuper: Placed on hold: 1 message\n"
    );
    assert_eq!(instance.folder_of(id), Some(Folder::Hold));
    assert_eq!(instance.said("postsuper", &["-h", id.as_str()]), "postsuper: Placed on hold: 0 messages\n");
    instance.said("postsuper", &["-H", id.as_str()]);
    assert_eq!(instance.folder_of(id), Some(Folder::Incoming));
    instance.said("postsuper", &["-d", id.as_str(), "-d", "4gXyZ12345z1001", "hold"]);
    assert_eq!(instance.folder_of(id), Some(Folder::Incoming));
    let said = instance.said("postsuper", &["-d", id.as_str(), "-d", "4gXyZ12345z1001"]);
    assert!(said.ends_with("postsuper: Deleted: 2 messages\n"), "{said}");
    assert_eq!(instance.folder_of(id), None);
}

#[test]
fn all_means_all_of_the_named_queues() {
    let instance = full_queue();
    assert!(
        instance.said("postsuper", &["-r", "ALL", "hold", "deferred"]).ends_with("Requeued: 2 messages\n")
    );
    assert!(instance.said("postsuper", &["-e", "ALL"]).ends_with("Force-expired: 4 messages\n"));
    assert!(instance.said("postsuper", &["-h", "ALL", "hold"]).ends_with("Placed on hold: 0 messages\n"));
    assert!(instance.said("postsuper", &["-h", "ALL"]).ends_with("Placed on hold: 4 messages\n"));
    assert!(instance.said("postsuper", &["-f", "ALL"]).ends_with("Force-expired: 4 messages\n"));
    assert!(instance.said("postsuper", &["-d", "ALL", "hold"]).ends_with("Deleted: 0 messages\n"));
    assert!(instance.said("postsuper", &["-d", "ALL"]).ends_with("Deleted: 4 messages\n"));
    assert_eq!(instance.run("postsuper", &["-d", "all", "nosuch"]).status.code(), Some(64));
}

#[test]
fn ids_are_read_from_standard_input() {
    let instance = full_queue();
    let mut command = instance.command("postsuper", &["-d", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ids = b"4gXyZ12345z1000\n\n  ABCDEF1234\r\n../etc\n4gXyZ12345z9999";
    child.stdin.take().unwrap().write_all(ids).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(
        said.contains("invalid mail queue id: ../etc") && said.ends_with("Deleted: 2 messages\n"),
        "{said}"
    );
}

#[test]
fn every_part_of_a_message_is_shown() {
    let instance = Instance::new();
    let id: QueueId = "4gXyZ12345z1000".parse().unwrap();
    let recipient = Recipient {
        original: Some(address("sales@example.com")),
        notify: Notify::SUCCESS,
        orcpt: Some("rfc822;sales@example.com".into()),
        ..Recipient::new(address("jane@example.com"))
    };
    let client = Client {
        name: "client.example.org".into(),
        address: "192.0.2.7".into(),
        port: 40_000,
        helo: "client".into(),
        protocol: "ESMTP".into(),
        ..Client::default()
    };
    let envelope = Envelope {
        recipients: vec![recipient, Recipient::new(address("joe@example.com"))],
        client,
        origin: Origin::Smtp { rewrite_headers: false },
        envid: Some("QQ314159".into()),
        body: Body::EightBitMime,
        ..envelope("sender@example.org")
    };
    instance.commit_envelope(id, &envelope, false);
    let mut message = instance.root.active().unwrap().claim(id).unwrap();
    message.settle().unwrap();
    message.mark(1, RecipientState::Done).unwrap();
    message.append_attempt(&deferral(0, "connect to mx: refused")).unwrap();
    let shown = instance.printed("postcat", &["-q", id.as_str()]);
    assert_eq!(shown, include_str!("golden/postcat.txt"));
    let file =
        instance.folder.path().join("queue/active").join(format!("{:X}", id.spread() % 16)).join(id.as_str());
    let from_file = instance.printed("postcat", &[file.to_str().unwrap()]);
    assert_eq!(from_file.replace(file.to_str().unwrap(), "active/4gXyZ12345z1000"), shown);
    assert_eq!(instance.printed("postcat", &["-hq", id.as_str()]), "Subject: test\nX-Long: a\n b\n");
    assert_eq!(instance.printed("postcat", &["-bq", id.as_str()]), "\nbody\n\nmore: body\n");
    let content = "Subject: test\nX-Long: a\n b\n\nbody\n\nmore: body\n";
    assert_eq!(instance.printed("postcat", &["-bhq", id.as_str()]), content);
    assert!(!instance.printed("postcat", &["-eq", id.as_str()]).contains("Subject"));
}

#[test]
fn what_is_no_queue_file_is_said_to_be_none() {
    let instance = Instance::new();
    assert_eq!(instance.run("postcat", &["/etc/passwd"]).status.code(), Some(65));
    assert_eq!(instance.run("postcat", &["/nonexistent"]).status.code(), Some(66));
    assert_eq!(instance.run("postcat", &["-q", "4gXyZ12345z1000"]).status.code(), Some(66));
    assert_eq!(instance.run("postcat", &["-q", "../x"]).status.code(), Some(64));
}
