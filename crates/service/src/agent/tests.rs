use std::io::Read;
use std::sync::{Mutex, mpsc};

use mail::{Address, Notify, Status};

use super::*;

pub(crate) fn request(recipients: u32) -> Request {
    let recipient = |index| RequestRecipient {
        index,
        address: Address::new(format!("r{index}@example.com")).unwrap(),
        original: None,
        notify: Notify::UNSET,
        orcpt: None,
    };
    Request {
        delivery: 7,
        id: "4hLv2p4lmqz5Bj".parse().unwrap(),
        nexthop: "example.com".into(),
        sender: Address::null(),
        arrival: Duration::ZERO,
        active_since: Duration::ZERO,
        size: 1,
        envid: None,
        ret: None,
        body: mail::Body::default(),
        smtputf8: false,
        trace: mail::Trace::default(),
        client: mail::Client::default(),
        first_id: None,
        is_local: true,
        recipients: (0..recipients).collect::<Vec<_>>().into_iter().map(recipient).collect(),
    }
}

/// All that an agent's delivery sends.
fn replies(agent: &impl SiteAgent, recipients: u32) -> Vec<Reply> {
    replies_to(agent, request(recipients), false)
}

/// What cleanup lends to the queue manager, and that to an agent.
fn in_memory() -> File {
    let mut file = sys::lent::make("message").unwrap();
    file.write_all(b"all of it").unwrap();
    sys::lent::seal(&file).unwrap();
    file
}

/// A delivery of a message that is in memory only, and the queue manager's end of its way back.
pub(crate) fn delivery_from_memory() -> (Delivery, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let replies = Replies::new(ours, Arc::new(Workers::new(Replies::send_later)));
    let replies = Some(Arc::new(replies));
    (Delivery { request: request(1), file: in_memory().into(), replies }, theirs)
}

fn job(request: Request, soft_bounce: bool, socket: UnixStream) -> Job {
    let file = File::open("/dev/null").unwrap();
    let replies = Replies::new(socket, Arc::new(Workers::new(Replies::send_later)));
    Job {
        delivery: Delivery::new(request, file.into()),
        replies: Arc::new(replies),
        rules: Arc::new(OutcomeRules { soft_bounce, ..OutcomeRules::default() }),
    }
}

fn replies_to(agent: &impl SiteAgent, request: Request, soft_bounce: bool) -> Vec<Reply> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    deliver(agent, &job(request, soft_bounce, ours));
    let mut receiver = Receiver::new();
    let mut found = Vec::new();
    while let Some(reply) = receiver.next_message(&theirs).unwrap() {
        found.push(reply);
    }
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    found
}

struct Site;

impl SiteAgent for Site {
    fn deliver(&self, _: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        results.set_up();
        results.give(2, Outcome::sent("x", "ok"));
        results.give(2, Outcome::sent("x", "said twice"));
        results.give(99, Outcome::sent("x", "nobody"));
        assert_eq!(results.undecided()[..2], [0, 1]);
        assert!(results.request.recipients.len() < 4, "told to");
        Some(SiteFailure { dsn: Dsn::new(4, 4, 1), text: "down".into() })
    }
}

#[test]
fn each_recipient_has_one_outcome_and_the_end_comes_last() {
    let replies = replies(&Site, 3);
    let told: Vec<(u32, Status)> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Outcome { recipient, outcome, .. } => Some((*recipient, outcome.status)),
            Reply::Ready | Reply::Keep { .. } | Reply::Done { .. } => None,
        })
        .collect();
    assert_eq!(told, [(2, Status::Sent), (0, Status::Deferred), (1, Status::Deferred)]);
    assert!(matches!(&replies[3..], [Reply::Done { delivery: 7, site: Some(site) }] if site.text == "down"));
}

#[test]
fn a_panic_defers_those_that_have_no_outcome_yet() {
    let replies = replies(&Site, 4);
    assert_eq!(replies.len(), 5);
    assert!(matches!(&replies[4], Reply::Done { site: None, .. }));
}

struct Fragile;

impl Agent for Fragile {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Ok(())
    }

    fn deliver(&self, _: &Delivery, (): &(), recipient: &DeliveryRecipient) -> Outcome {
        assert!(recipient.index != 0, "told to");
        Outcome::sent("x", "ok")
    }
}

#[test]
fn the_panic_of_one_recipient_leaves_the_others_alone() {
    let replies = replies(&OneByOne { agent: Fragile, relay: "fragile".into() }, 2);
    assert!(
        matches!(&replies[0], Reply::Outcome { recipient: 0, outcome, .. } if outcome.status == Status::Deferred && outcome.relay == "fragile")
    );
    assert!(
        matches!(&replies[1], Reply::Outcome { recipient: 1, outcome, .. } if outcome.status == Status::Sent)
    );
}

/// One that delivers to three at a time, and has said something of the second when it panics at the first of them.
struct InThrees;

impl Agent for InThrees {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Ok(())
    }

    fn deliver(&self, _: &Delivery, (): &(), _: &DeliveryRecipient) -> Outcome {
        Outcome::sent("x", "by itself")
    }

    fn at_a_time(&self) -> usize {
        3
    }

    fn deliver_some(
        &self,
        _: &Delivery,
        (): &(),
        recipients: &[DeliveryRecipient],
        give: &mut dyn FnMut(usize, Outcome),
    ) {
        for (place, recipient) in recipients.iter().enumerate().rev() {
            assert!(recipient.index != 0, "told to");
            give(place, Outcome::sent("x", format!("one of {}", recipients.len())));
        }
    }
}

#[test]
fn an_agent_gets_some_recipients_at_a_time_and_a_panic_takes_none_of_its_words_back() {
    let replies = replies(&OneByOne { agent: InThrees, relay: "threes".into() }, 5);
    let told: Vec<(u32, &str)> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Outcome { recipient, outcome, .. } => Some((*recipient, outcome.text.as_str())),
            Reply::Ready | Reply::Keep { .. } | Reply::Done { .. } => None,
        })
        .collect();
    assert_eq!(told[..2], [(2, "one of 3"), (1, "one of 3")]);
    assert!(told[2].0 == 0 && told[2].1.contains("internal error"), "{told:?}");
    assert_eq!(told[3..], [(4, "one of 2"), (3, "one of 2")]);
}

/// One whose second recipient takes until the other end has heard of the first.
struct Slow(Mutex<mpsc::Receiver<()>>);

impl Agent for Slow {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Ok(())
    }

    fn deliver(&self, _: &Delivery, (): &(), recipient: &DeliveryRecipient) -> Outcome {
        if recipient.index == 1 {
            self.0.lock().unwrap().recv().unwrap();
        }
        Outcome::sent("slow", "ok")
    }
}

#[test]
fn an_outcome_does_not_wait_for_a_recipient_that_takes_long() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (told, telling) = mpsc::channel();
    let agent = OneByOne { agent: Slow(Mutex::new(telling)), relay: "slow".into() };
    let delivery = std::thread::spawn(move || deliver(&agent, &job(request(3), false, ours)));
    let mut receiver = Receiver::new();
    let mut next = || receiver.next_message::<Reply>(&theirs).unwrap();
    assert!(matches!(next(), Some(Reply::Outcome { recipient: 0, .. })));
    told.send(()).unwrap();
    assert!(matches!(next(), Some(Reply::Outcome { recipient: 1, .. })));
    assert!(matches!(next(), Some(Reply::Outcome { recipient: 2, .. })));
    assert!(matches!(next(), Some(Reply::Done { .. })));
    delivery.join().unwrap();
}

/// One that finds a message that it cannot read.
struct Blind;

impl Agent for Blind {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Err(Box::new(Outcome::deferred("blind", Dsn::new(4, 3, 0), "unreadable")))
    }

    fn deliver(&self, _: &Delivery, (): &(), _: &DeliveryRecipient) -> Outcome {
        unreachable!("it has no message")
    }
}

#[test]
fn what_cannot_be_opened_is_the_outcome_of_each_recipient() {
    let replies = replies(&OneByOne { agent: Blind, relay: "blind".into() }, 2);
    let [Reply::Outcome { outcome: first, .. }, Reply::Outcome { outcome: second, .. }, Reply::Done { .. }] =
        &replies[..]
    else {
        unreachable!("{replies:?}")
    };
    assert_eq!((first.text.as_str(), second.text.as_str()), ("unreadable", "unreadable"));
}

/// One that delivers, fails for good, and knows what it would do.
struct Knowing;

impl Agent for Knowing {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Ok(())
    }

    fn deliver(&self, _: &Delivery, (): &(), _: &DeliveryRecipient) -> Outcome {
        Outcome::bounced("knowing", Dsn::new(5, 1, 1), "unknown user")
    }

    fn probe(&self, _: &Delivery, (): &(), _: &DeliveryRecipient) -> Outcome {
        Outcome::sent("knowing", "delivers to maildir")
    }
}

fn only_outcome(agent: impl Agent<Message = ()>, trace: mail::Trace, soft_bounce: bool) -> Outcome {
    let request = Request { trace, ..request(1) };
    let replies = replies_to(&OneByOne { agent, relay: "x".into() }, request, soft_bounce);
    let [Reply::Outcome { outcome, .. }, Reply::Done { .. }] = &replies[..] else {
        unreachable!("{replies:?}")
    };
    outcome.clone()
}

#[test]
fn nothing_is_delivered_for_a_probe_whatever_the_agent_can() {
    for trace in [mail::Trace::Probe, mail::Trace::Verification] {
        assert_eq!(only_outcome(Knowing, trace, true).text, "delivers to maildir");
        let ignorant = only_outcome(Fragile, trace, false);
        assert_eq!((ignorant.status, ignorant.dsn), (Status::Deferred, Dsn::new(4, 0, 0)), "{ignorant:?}");
    }
    assert_eq!(only_outcome(Knowing, mail::Trace::Deliveries, false).text, "unknown user");
}

#[test]
fn soft_bounce_turns_failures_into_delays() {
    let outcome = only_outcome(Knowing, mail::Trace::None, true);
    assert_eq!((outcome.status, outcome.dsn), (Status::Deferred, Dsn::new(4, 1, 1)));
    assert_eq!(only_outcome(Knowing, mail::Trace::None, false).status, Status::Bounced);
}

#[test]
fn a_message_in_the_queue_is_kept_without_a_word() {
    let (in_memory, theirs) = delivery_from_memory();
    let delivery = Delivery { file: File::open("Cargo.toml").unwrap().into(), ..in_memory };
    delivery.keep().unwrap();
    drop(delivery);
    assert_eq!((&theirs).read(&mut [0]).unwrap(), 0);
    let nobody = Delivery::new(request(1), File::open("Cargo.toml").unwrap().into());
    nobody.keep().unwrap();
}

#[test]
fn a_message_in_memory_is_asked_for_and_waited_for_until_it_is_stored() {
    let (delivery, theirs) = delivery_from_memory();
    let lent = delivery.file.try_clone().unwrap();
    std::thread::scope(|scope| {
        let agent =
            scope.spawn(|| delivery.keep().map(|()| sys::lent::is_only_here(&delivery.file).unwrap()));
        let asked = Receiver::new().next_message::<Reply>(&theirs).unwrap();
        assert_eq!(asked, Some(Reply::Keep { delivery: 7 }));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!agent.is_finished());
        sys::lent::note_stored(&lent).unwrap();
        assert!(!agent.join().unwrap().unwrap());
    });
    // Once is enough.
    delivery.keep().unwrap();
    drop(delivery);
    assert_eq!((&theirs).read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_message_in_memory_that_nobody_keeps_is_an_error() {
    let nobody = Delivery::new(request(1), in_memory().into());
    let error = nobody.keep().unwrap_err().to_string();
    assert_eq!(error, "the message is in memory only, and there is nobody to keep it");
    let (delivery, theirs) = delivery_from_memory();
    let error = delivery.keep_within(Duration::from_millis(5)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("was not put into the queue"), "{error}");
    // A queue manager that is gone is not the one who stores it.
    drop(theirs);
    let lent = delivery.file.try_clone().unwrap();
    std::thread::scope(|scope| {
        let agent = scope.spawn(|| delivery.keep());
        sys::lent::note_stored(&lent).unwrap();
        agent.join().unwrap().unwrap();
    });
}
