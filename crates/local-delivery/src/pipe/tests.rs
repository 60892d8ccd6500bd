//! The arguments that a command gets, and what its service is refused.

use std::time::Duration;

use ipc::agent::Request;
use mail::{Address, Client};
use service::DeliveryRecipient;

use super::arguments::Values;
use super::*;
use crate::rights::{Instance, SystemUsers};
use crate::scratch;

fn delimiters() -> Delimiters {
    Delimiters::new("+", true, "double-bounce")
}

fn recipient(address: &str, original: Option<&str>) -> DeliveryRecipient {
    let original = original.map(|text| Address::new(text).unwrap());
    DeliveryRecipient { original, ..scratch::recipient(address) }
}

/// Each block of the table: `service` line, recipients, then the arguments as the command sees them.
#[test]
fn the_table_of_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let delivery = scratch::delivery(folder.path(), "4hLv2p4lmqz5Bj".parse().unwrap(), b"Subject: x\n\n");
    let client = Client {
        name: "client.example.org".into(),
        address: "192.0.2.7".into(),
        port: 4711,
        helo: "me.example.org".into(),
        protocol: "ESMTPSA".into(),
        sasl_method: "PLAIN".into(),
        sasl_username: "jane".into(),
        sasl_sender: "jane@example.org".into(),
        ..Client::default()
    };
    let table = include_str!("../../tests/pipe-arguments.table");
    for block in table.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.lines().filter(|line| !line.starts_with('#'));
        let (Some(service), Some(envelope), Some(wanted)) = (lines.next(), lines.next(), lines.next()) else {
            continue;
        };
        let words: Vec<String> = service.split(' ').map(str::to_owned).collect();
        let attributes = Attributes::parse(&words, |_| ()).unwrap();
        let mut addresses = envelope.split(' ');
        let sender = addresses.next().unwrap().replace('_', " ");
        let recipients: Vec<DeliveryRecipient> = addresses
            .map(|text| text.replace('_', " "))
            .map(|text| match text.split_once('=') {
                Some((address, original)) => recipient(address, Some(original)),
                None => recipient(&text, None),
            })
            .collect();
        let request = Request {
            sender: Address::new(if sender == "<>" { "" } else { &sender }).unwrap(),
            nexthop: "Next.Hop".into(),
            size: 318,
            envid: Some("E1".into()),
            client: client.clone(),
            ..delivery.request.clone()
        };
        let values = Values {
            request: &request,
            recipients: &recipients,
            delimiters: &delimiters(),
            attributes: &attributes,
        };
        let found: String = values.command().unwrap().iter().map(|word| format!("[{word}]")).collect();
        assert_eq!(found, wanted, "{block}");
    }
}

fn agent(words: &str) -> PipeAgent {
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    PipeAgent {
        service: "filter".into(),
        attributes: Attributes::parse(&words, |_| ()).unwrap(),
        users: CommandUsers {
            users: SystemUsers::default(),
            instance: Instance::current(),
            mail_owner: "daemon".into(),
            submission_group: "mail".into(),
        },
        delimiters: delimiters(),
        environment: Vec::new(),
        queue_directory: "/".into(),
        time_limit: Duration::from_secs(10),
    }
}

/// This test's own user, or `nobody` for root.
fn user() -> String {
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    if own.uid.is_root() { "nobody".to_owned() } else { own.name }
}

fn deliver(words: &str, text: &[u8], recipients: &[&str]) -> Delivered {
    let folder = tempfile::tempdir().unwrap();
    let mut delivery = scratch::delivery(folder.path(), scratch::id(), text);
    delivery.request.recipients = recipients.iter().map(|address| recipient(address, None)).collect();
    agent(&words.replace("USER", &user())).attempt(&delivery)
}

#[test]
fn a_delivery_says_what_the_command_said() {
    let sent = deliver("user=USER argv=/bin/echo ${recipient}", b"Subject: x\n\n", &["a@b", "c@d"]);
    assert_eq!(sent.unwrap(), "delivered via filter service (a@b c@d)");
    let sent = deliver("user=USER argv=/bin/true", b"Subject: x\n\n", &["a@b"]);
    assert_eq!(sent.unwrap(), "delivered via filter service");
    let failure = deliver("user=USER argv=/bin/false", b"Subject: x\n\n", &["a@b"]).unwrap_err();
    assert_eq!(
        (failure.dsn, failure.text.as_str()),
        (Dsn::new(5, 3, 0), "Command died with status 1: \"/bin/false\"")
    );
}

#[test]
fn the_command_reads_the_message_as_its_flags_say() {
    let text = b"Subject: x\n\nFrom me\n";
    let sent = deliver("flags=DOR> user=USER argv=/bin/cat", text, &["a@b"]).unwrap();
    let wanted =
        "Return-Path: <sender@example.org> X-Original-To: a@b Delivered-To: a@b Subject: x  >From me";
    assert_eq!(sent, format!("delivered via filter service ({})", &wanted[..100.min(wanted.len())]));
    let sent = deliver("flags=DO user=USER argv=/bin/cat", b"\n", &["a b@c"]).unwrap();
    assert_eq!(sent, "delivered via filter service (X-Original-To: \"a b\"@c Delivered-To: \"a b\"@c)");
}

#[test]
fn what_cannot_be_delivered_is_refused_or_waits() {
    let loops = deliver("flags=D user=USER argv=/bin/true", b"Delivered-To: A@b\n\n", &["a@B"]).unwrap_err();
    assert_eq!((loops.dsn, loops.text.as_str()), (Dsn::new(5, 4, 6), "mail forwarding loop for a@B"));
    let large = deliver("user=USER size=10 argv=/bin/true", b"Subject: x\n\n", &["a@B"]).unwrap_err();
    assert_eq!((large.dsn, large.text.as_str()), (Dsn::new(5, 2, 3), "message too large"));
    for flag in ["D", "O"] {
        let words = format!("flags={flag} user=USER argv=/bin/true");
        let several = deliver(&words, b"Subject: x\n\n", &["a@B", "c@d"]).unwrap_err();
        assert_eq!(several.dsn, Dsn::new(4, 3, 5));
    }
    for words in ["user=USER directory=/nonexistent argv=/bin/true", "user=USER argv=/no/such/program"] {
        assert_eq!(
            deliver(words, b"Subject: x\n\n", &["a@B"]).unwrap_err().dsn,
            Dsn::new(4, 3, 0),
            "{words}"
        );
    }
}

#[test]
fn no_command_has_the_rights_of_root_or_of_the_mail_system() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for words in ["user=root", "user=daemon", "user=nobody:root", "user=nobody:daemon", "user=nobody:mail"] {
        let agent = agent(&format!("{words} argv=/bin/true"));
        assert!(
            matches!(
                agent.users.find(&agent.attributes.user, agent.attributes.group.as_deref()),
                Err(Unusable::Forbidden(_))
            ),
            "{words}"
        );
    }
    for words in ["user=no-such-user", "user=nobody:no-such-group"] {
        let agent = agent(&format!("{words} argv=/bin/true"));
        assert!(
            matches!(
                agent.users.find(&agent.attributes.user, agent.attributes.group.as_deref()),
                Err(Unusable::Unknown(_))
            ),
            "{words}"
        );
    }
    let failure = deliver("user=root argv=/bin/true", b"Subject: x\n\n", &["a@b"]).unwrap_err();
    assert_eq!(failure.dsn, Dsn::new(4, 3, 5));
}
