use std::io::Read;

use mail::{Address, Notify, Status};

use super::*;

fn request(recipients: u32) -> Request {
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

fn replies_to(agent: &impl SiteAgent, request: Request, soft_bounce: bool) -> Vec<Reply> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let delivery = Delivery { request, file: file.into() };
    let rules = Arc::new(OutcomeRules { soft_bounce, ..OutcomeRules::default() });
    deliver(agent, &Job { delivery, replies: Arc::new(Replies::new(ours)), rules });
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
            Reply::Ready | Reply::Done { .. } => None,
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
    fn deliver(&self, _: &Delivery, recipient: &DeliveryRecipient) -> Outcome {
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

/// One that delivers, fails for good, and knows what it would do.
struct Knowing;

impl Agent for Knowing {
    fn deliver(&self, _: &Delivery, _: &DeliveryRecipient) -> Outcome {
        Outcome::bounced("knowing", Dsn::new(5, 1, 1), "unknown user")
    }

    fn probe(&self, _: &Delivery, _: &DeliveryRecipient) -> Outcome {
        Outcome::sent("knowing", "delivers to maildir")
    }
}

fn only_outcome(agent: impl Agent, trace: mail::Trace, soft_bounce: bool) -> Outcome {
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
