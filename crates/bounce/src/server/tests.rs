//! From a queue file and a request to what cleanup is given.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use ipc::bounce::Kind;
use ipc::cleanup::{Answer, Committed, Part, Refusal, Server};
use mail::{Address, Dsn, DsnReturn, Envelope, Notify, Origin, Outcome, QueueId, Recipient};
use queue::{Active, Attempt, Incoming, Root};

use super::*;
use crate::policy::Classes;
use crate::policy::tests::policy;

const CONTENT: &str = "From: jane@example.com\nSubject: hello\n\nbody\n";

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn recipient(name: &str, notify: Notify) -> Recipient {
    Recipient { notify, ..Recipient::new(address(name)) }
}

/// What cleanup was given.
#[derive(Debug)]
struct Given {
    envelope: Envelope,
    text: String,
}

struct Stage {
    incoming: Incoming,
    active: Active,
    given: mpsc::Receiver<Given>,
    bounce: Bounce,
    _folder: tempfile::TempDir,
}

/// `answer` is cleanup's, by the size of the content.
fn stage(classes: Classes, answer: fn(u64) -> Answer) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::prepare(folder.path(), None).unwrap();
    let given = pretend_cleanup(&folder.path().join("public/cleanup"), answer);
    let policy = policy(classes);
    let cleanup = cleanup::Client::new(folder.path().join("public/cleanup"));
    let (incoming, active) = (root.incoming().unwrap(), root.active().unwrap());
    let verify = ipc::verify::Client::new(folder.path().join("private/verify"));
    Stage { incoming, active, given, bounce: Bounce { policy, cleanup, verify }, _folder: folder }
}

fn pretend_cleanup(socket: &Path, answer: fn(u64) -> Answer) -> mpsc::Receiver<Given> {
    let _ = std::fs::create_dir(socket.parent().unwrap());
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, given) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut server = Server::new(socket.unwrap());
            while let Ok(Some(begin)) = server.next_message() {
                let mut text = Vec::new();
                while let Part::Content(part) = server.next_part().unwrap() {
                    text.extend_from_slice(part);
                }
                let result = answer(text.len() as u64);
                if result.is_ok() {
                    let text = String::from_utf8(text).unwrap();
                    let _ = sender.send(Given { envelope: begin.envelope, text });
                }
                server.answer(&result).unwrap();
            }
        }
    });
    given
}

fn accept(size: u64) -> Answer {
    Ok(Committed { size })
}

impl Stage {
    /// Queues a message, records a failure for each recipient, and asks for a report on all of them.
    fn report(&self, kind: Kind, envelope: &Envelope, content: &str) -> Result<Vec<Given>, String> {
        let id = QueueId::generate(SystemTime::now());
        let mut writer = self.incoming.create(id, envelope, false).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
        writer.commit().unwrap();
        let mut message = self.active.claim(id).unwrap();
        let recipients: Vec<u32> = (0..).take(envelope.recipients.len()).collect();
        for index in &recipients {
            let outcome =
                Outcome::bounced("local", Dsn::new(5, 1, 1), format!("unknown user number {index}"));
            let attempt = Attempt { time: SystemTime::now(), recipient: *index, outcome, next_attempt: None };
            message.append_attempt(&attempt).unwrap();
        }
        let request = Request { number: 1, id, kind, recipients };
        let descriptor = message.file().try_clone_to_owned().unwrap();
        self.bounce.handle(&request, descriptor)?;
        Ok(self.given.try_iter().collect())
    }
}

fn envelope(sender: &str, recipients: Vec<Recipient>) -> Envelope {
    Envelope {
        origin: Origin::Smtp { rewrite_headers: false },
        ..Envelope::new(
            if sender.is_empty() { Address::null() } else { address(sender) },
            recipients,
            Duration::from_secs(1_795_000_000),
        )
    }
}

#[test]
fn the_sender_gets_one_report_on_all_failures_with_the_message() {
    let stage = stage(Classes::default(), accept);
    let (a, b) = (recipient("a@x", Notify::UNSET), recipient("b@x", Notify::NEVER));
    let sent = stage.report(Kind::Failure, &envelope("jane@example.com", vec![a, b]), CONTENT).unwrap();
    assert_eq!(sent.len(), 1);
    let (envelope, text) = (&sent[0].envelope, &sent[0].text);
    assert!(envelope.sender.is_null() && envelope.origin == Origin::Internal);
    assert_eq!(envelope.recipients[0].address, address("jane@example.com"));
    assert!(text.contains("<a@x>: unknown user number 0\n") && !text.contains("b@x"), "{text}");
    assert!(text.contains(CONTENT), "{text}");
}

#[test]
fn ret_and_size_decide_what_goes_back() {
    let stage = stage(Classes::default(), accept);
    let mut envelope = envelope("jane@example.com", vec![recipient("a@x", Notify::UNSET)]);
    let large = CONTENT.to_owned() + &"x\n".repeat(1000);
    let text = |sent: Vec<Given>| sent[0].text.clone();
    let report = text(stage.report(Kind::Failure, &envelope, &large).unwrap());
    assert!(report.contains("Subject: hello\n\n--") && !report.contains("body\n"), "{report}");
    envelope.ret = Some(DsnReturn::Headers);
    let report = text(stage.report(Kind::Failure, &envelope, CONTENT).unwrap());
    assert!(report.contains("text/rfc822-headers") && !report.contains("body\n"), "{report}");
    let report = text(stage.report(Kind::Delay, &envelope, CONTENT).unwrap());
    assert!(report.contains("Action: delayed\n") && !report.contains("body\n"), "{report}");
}

#[test]
fn a_report_that_is_too_big_is_sent_with_the_header_alone() {
    let stage =
        stage(Classes::default(), |size| if size > 1900 { Err(Refusal::TooBig) } else { accept(size) });
    let content = CONTENT.to_owned() + &"x\n".repeat(470);
    let envelope = envelope("jane@example.com", vec![recipient("a@x", Notify::UNSET)]);
    let sent = stage.report(Kind::Failure, &envelope, &content).unwrap();
    assert!(sent.len() == 1 && sent[0].text.contains("text/rfc822-headers"), "{sent:?}");
}

#[test]
fn nobody_is_told_who_does_not_want_to_know() {
    let stage = stage(Classes::default(), accept);
    let never = vec![recipient("a@x", Notify::NEVER)];
    assert!(stage.report(Kind::Failure, &envelope("jane@example.com", never), CONTENT).unwrap().is_empty());
    let unset = vec![recipient("a@x", Notify::UNSET)];
    assert!(
        stage
            .report(Kind::Success, &envelope("jane@example.com", unset.clone()), CONTENT)
            .unwrap()
            .is_empty()
    );
    assert!(stage.report(Kind::Failure, &envelope("", unset), CONTENT).unwrap().is_empty());
}

#[test]
fn a_bounce_that_cannot_be_delivered_goes_to_the_postmaster_once() {
    let classes = Classes { double_bounce: true, ..Classes::default() };
    let stage = stage(classes, accept);
    let recipients = vec![recipient("a@x", Notify::NEVER)];
    let sent = stage.report(Kind::Failure, &envelope("", recipients.clone()), CONTENT).unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].envelope.sender, address("double-bounce@mail.example.org"));
    assert_eq!(sent[0].envelope.recipients[0].address, address("2bounce@example.org"));
    assert!(sent[0].text.contains("Postmaster Copy") && sent[0].text.contains("<a@x>"), "{}", sent[0].text);
    let again = envelope("double-bounce@mail.example.org", recipients);
    assert!(stage.report(Kind::Failure, &again, CONTENT).unwrap().is_empty());
}

#[test]
fn what_cleanup_cannot_take_now_is_asked_again_and_what_it_never_takes_is_dropped() {
    let envelope = envelope("jane@example.com", vec![recipient("a@x", Notify::UNSET)]);
    let full = stage(Classes::default(), |_| Err(Refusal::NoSpace));
    assert!(full.report(Kind::Failure, &envelope, CONTENT).is_err());
    let strict = stage(Classes::default(), |_| Err(Refusal::Rejected(Dsn::new(5, 7, 1), "no".into())));
    assert!(strict.report(Kind::Failure, &envelope, CONTENT).unwrap().is_empty());
}

#[test]
fn what_is_no_queue_file_is_answered_with_its_damage() {
    let stage = stage(Classes::default(), accept);
    let file = tempfile::tempfile().unwrap();
    let id = QueueId::generate(SystemTime::now());
    let request = Request { number: 1, id, kind: Kind::Failure, recipients: vec![0] };
    assert!(stage.bounce.handle(&request, file.into()).is_err());
}
