//! Mail that is scheduled at times of the test's choice.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use config::{Rate, Value, param};
use mail::{Address, Notify};
use proptest::prelude::*;

use super::*;
use crate::limits::usual;

struct Bench {
    scheduler: Scheduler,
    now: Instant,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let mut scheduler = Scheduler::new(100, 1000);
        scheduler.set_limits("smtp", limits, now);
        Self { scheduler, now }
    }

    fn add(&mut self, destination: &str, message: QueueId) {
        self.scheduler.add(&site(destination), job(message), self.now);
    }

    fn start(&mut self) -> Option<Started> {
        self.scheduler.start(&"smtp".into(), self.now)
    }

    fn destinations(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.start()).map(|started| started.site.destination.to_string()).collect()
    }

    fn finish(&mut self, started: &Started, ending: &Ending) -> Finished {
        self.scheduler.finish(&started.site, ending, self.now)
    }

    fn pass(&mut self, seconds: u64) -> Vec<Site> {
        self.now += Duration::from_secs(seconds);
        self.scheduler.wake(self.now)
    }

    fn is_empty(&self) -> bool {
        self.scheduler.running() == 0 && self.scheduler.transports.values().all(Transport::is_empty)
    }
}

fn site(destination: &str) -> Site {
    Site { transport: "smtp".into(), destination: destination.into() }
}

fn message() -> QueueId {
    QueueId::generate(SystemTime::now())
}

fn job(message: QueueId) -> Job {
    let recipient = RequestRecipient {
        index: 0,
        address: Address::null(),
        original: None,
        notify: Notify::UNSET,
        orcpt: None,
    };
    Job { message, nexthop: "example.com".into(), recipients: vec![recipient], failures: 0 }
}

fn refused() -> Ending {
    Ending::Failed(SiteFailure { dsn: Dsn::new(4, 4, 1), text: "connection refused".into() })
}

fn rate(text: &str) -> Option<Duration> {
    Rate::parse(text, &param::DEFAULT_DESTINATION_RATE.row()).unwrap().interval()
}

#[test]
fn destinations_take_turns() {
    let mut bench = Bench::new(usual());
    for destination in ["a", "a", "a", "b"] {
        bench.add(destination, message());
    }
    assert_eq!(bench.destinations(), ["a", "b", "a", "a"]);
}

#[test]
fn a_destination_and_a_transport_have_their_limits() {
    let mut bench = Bench::new(Limits { deliveries: 3, most: 2, ..usual() });
    for destination in ["a", "a", "a", "b", "b"] {
        bench.add(destination, message());
    }
    let running: Vec<Started> = std::iter::from_fn(|| bench.start()).collect();
    assert_eq!(running.iter().map(|s| &*s.site.destination).collect::<Vec<_>>(), ["a", "b", "a"]);
    bench.finish(&running[1], &Ending::Answered);
    assert_eq!(&*bench.start().unwrap().site.destination, "b");
    assert!(bench.start().is_none());
}

#[test]
fn what_is_put_back_comes_first_and_a_transport_that_rests_waits() {
    let mut bench = Bench::new(Limits { deliveries: 1, ..usual() });
    let first = message();
    bench.add("a", first);
    bench.add("a", message());
    let started = bench.start().unwrap();
    bench.scheduler.put_back(started, bench.now);
    let later = bench.now + Duration::from_secs(60);
    bench.scheduler.rest("smtp", later);
    assert!(bench.start().is_none());
    assert_eq!(bench.scheduler.next_wake(bench.now), Some(later));
    bench.pass(60);
    assert_eq!(bench.start().unwrap().job.message, first);
}

#[test]
fn nothing_is_left_of_a_destination_without_work() {
    let mut bench = Bench::new(usual());
    bench.add("a", message());
    let started = bench.start().unwrap();
    bench.finish(&started, &Ending::Answered);
    assert!(bench.is_empty());
}

#[test]
fn a_small_message_overtakes_a_huge_one_on_the_same_way() {
    let mut bench = Bench::new(Limits { deliveries: 1, ..usual() });
    let (huge, small) = (message(), message());
    (0..1000).for_each(|_| bench.add("list", huge));
    for _ in 0..100 {
        let started = bench.start().unwrap();
        bench.finish(&started, &Ending::Answered);
    }
    bench.add("list", small);
    let next = bench.start().unwrap();
    assert_eq!(next.job.message, small);
}

#[test]
fn a_small_message_overtakes_one_that_goes_to_a_thousand_places() {
    let mut bench = Bench::new(Limits { deliveries: 1, ..usual() });
    let (huge, small) = (message(), message());
    (0..1000).for_each(|number| bench.add(&format!("place{number}"), huge));
    for _ in 0..100 {
        let started = bench.start().unwrap();
        bench.finish(&started, &Ending::Answered);
    }
    bench.add("elsewhere", small);
    assert_eq!(bench.start().unwrap().job.message, small);
}

#[test]
fn small_messages_without_end_do_not_hold_back_a_huge_one() {
    let mut bench = Bench::new(Limits { deliveries: 1, ..usual() });
    let huge = message();
    (0..1000).for_each(|_| bench.add("list", huge));
    (0..3).for_each(|_| bench.add("list", message()));
    let mut of_huge = 0;
    for _ in 0..200 {
        bench.add("list", message());
        let started = bench.start().unwrap();
        of_huge += usize::from(started.job.message == huge);
        bench.finish(&started, &Ending::Answered);
    }
    assert!(of_huge >= 10, "{of_huge} of 200");
}

#[test]
fn a_destination_that_fails_is_given_up_and_tried_again_by_one() {
    let mut bench = Bench::new(usual());
    (0..20).for_each(|_| bench.add("a", message()));
    let running: Vec<Started> = std::iter::from_fn(|| bench.start()).collect();
    assert_eq!(running.len(), 5);
    let lost: Vec<usize> =
        running.iter().map(|started| bench.finish(started, &refused()).lost.len()).collect();
    // The window shrinks by one each time: 1/5 + 1/4 + 1/3 + 1/2 of a cohort.
    assert_eq!(lost, [0, 0, 0, 15, 0]);
    let refusal = bench.scheduler.refusal(&site("a"), bench.now).unwrap();
    assert_eq!(refusal.failure.text, "delivery temporarily suspended: connection refused");
    assert_eq!(bench.scheduler.refusal(&site("b"), bench.now), None);

    assert_eq!(bench.pass(299), []);
    assert_eq!(bench.pass(1), [site("a")]);
    (0..20).for_each(|_| bench.add("a", message()));
    let probe = bench.start().unwrap();
    assert!(bench.start().is_none());
    assert_eq!(bench.finish(&probe, &refused()).lost.len(), 19);

    bench.pass(300);
    (0..20).for_each(|_| bench.add("a", message()));
    let probe = bench.start().unwrap();
    bench.finish(&probe, &Ending::Answered);
    assert_eq!(std::iter::from_fn(|| bench.start()).count(), 5);
}

#[test]
fn a_destination_that_is_back_asks_for_more() {
    let mut bench = Bench::new(usual());
    (0..5).for_each(|_| bench.add("a", message()));
    let running: Vec<Started> = std::iter::from_fn(|| bench.start()).collect();
    running.iter().for_each(|started| drop(bench.finish(started, &refused())));
    bench.pass(300);
    bench.add("a", message());
    let probe = bench.start().unwrap();
    assert_eq!(bench.finish(&probe, &Ending::Answered).room, 10);
}

#[test]
fn one_that_was_given_up_and_that_nobody_asks_for_is_forgotten() {
    let mut bench = Bench::new(usual());
    (0..5).for_each(|_| bench.add("a", message()));
    let running: Vec<Started> = std::iter::from_fn(|| bench.start()).collect();
    running.iter().for_each(|started| drop(bench.finish(started, &refused())));
    bench.pass(300);
    bench.pass(300);
    assert!(bench.is_empty());
    assert_eq!(bench.scheduler.next_wake(bench.now), None);
}

#[test]
fn a_flush_revives_what_was_given_up() {
    let mut bench = Bench::new(usual());
    (0..5).for_each(|_| bench.add("a", message()));
    let running: Vec<Started> = std::iter::from_fn(|| bench.start()).collect();
    running.iter().for_each(|started| drop(bench.finish(started, &refused())));
    bench.scheduler.revive_all(bench.now);
    assert_eq!(bench.scheduler.refusal(&site("a"), bench.now), None);
}

#[test]
fn a_transport_without_an_agent_takes_nothing_for_a_while() {
    let mut bench = Bench::new(usual());
    (0..3).for_each(|_| bench.add("a", message()));
    let failure = SiteFailure { dsn: Dsn::new(4, 3, 0), text: "unavailable".into() };
    let until = bench.now + Duration::from_secs(60);
    assert_eq!(bench.scheduler.close("smtp", failure.clone(), until, bench.now).len(), 3);
    assert_eq!(bench.scheduler.refusal(&site("b"), bench.now).map(|r| r.failure), Some(failure));
    bench.pass(60);
    assert_eq!(bench.scheduler.refusal(&site("b"), bench.now), None);
}

#[test]
fn a_rate_spaces_the_beginnings_and_leaves_the_concurrency() {
    let mut bench = Bench::new(Limits { interval: rate("30/m"), ..usual() });
    (0..5).for_each(|_| bench.add("a", message()));
    bench.add("b", message());
    assert_eq!(bench.destinations(), ["a", "b"]);
    bench.pass(1);
    assert_eq!(bench.destinations(), [""; 0]);
    bench.pass(1);
    assert_eq!(bench.destinations(), ["a"]);
    bench.pass(2);
    assert_eq!(bench.destinations(), ["a"]);
    assert_eq!(bench.scheduler.running(), 4);
}

#[test]
fn a_rate_lets_ten_minutes_of_mail_wait_and_no_more() {
    let mut bench = Bench::new(Limits { interval: rate("30/m"), ..usual() });
    let mut taken = 0;
    while bench.scheduler.refusal(&site("a"), bench.now).is_none() {
        bench.add("a", message());
        taken += 1;
    }
    assert_eq!(taken, 300);
    let refusal = bench.scheduler.refusal(&site("a"), bench.now).unwrap();
    assert_eq!(refusal.turn, Some(Turn { interval: Duration::from_secs(2), ahead: 300 }));
}

#[test]
fn a_destination_delay_begins_with_the_end_and_leaves_one_at_a_time() {
    let delay = Duration::from_secs(10);
    let mut bench = Bench::new(Limits { destination_delay: delay, ..usual() });
    (0..3).for_each(|_| bench.add("a", message()));
    let first = bench.start().unwrap();
    assert!(bench.start().is_none());
    bench.pass(20);
    bench.finish(&first, &Ending::Answered);
    assert!(bench.start().is_none());
    bench.pass(10);
    assert!(bench.start().is_some());
}

#[test]
fn a_transport_delay_counts_for_all_destinations() {
    let mut bench = Bench::new(Limits { transport_delay: Duration::from_secs(20), ..usual() });
    bench.add("a", message());
    bench.add("b", message());
    assert_eq!(bench.destinations(), ["a"]);
    assert_eq!(bench.scheduler.next_wake(bench.now), Some(bench.now + Duration::from_secs(20)));
    bench.pass(20);
    assert_eq!(bench.destinations(), ["b"]);
}

#[test]
fn a_destination_that_was_held_before_a_restart_is_held_after_it() {
    let mut bench = Bench::new(Limits { interval: rate("1/h"), ..usual() });
    let until = bench.now + Duration::from_secs(1800);
    bench.scheduler.hold_until(&site("a"), until);
    bench.add("a", message());
    assert_eq!(bench.destinations(), [""; 0]);
    assert_eq!(bench.scheduler.held(bench.now).collect::<Vec<_>>(), [("smtp", "a", until)]);
    bench.pass(1800);
    assert_eq!(bench.destinations(), ["a"]);
}

#[test]
fn one_destination_cannot_have_all_the_room_there_is() {
    let mut bench = Bench::new(usual());
    (0..1000).for_each(|_| bench.add("a", message()));
    assert!(bench.scheduler.refusal(&site("a"), bench.now).is_some());
    assert!(bench.scheduler.refusal(&site("b"), bench.now).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Add { destination: u8, message: usize },
    Start,
    Finish { which: usize, ending: u8 },
    Pass(u64),
    Revive,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..4, 0_usize..6).prop_map(|(destination, message)| Step::Add { destination, message }),
        4 => Just(Step::Start),
        3 => (any::<usize>(), 0_u8..4).prop_map(|(which, ending)| Step::Finish { which, ending }),
        1 => (0_u64..400).prop_map(Step::Pass),
        1 => Just(Step::Revive),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens, no job is lost or begun twice, limits hold, and in the end nothing is left.
    #[test]
    fn every_job_is_begun_or_given_back(steps in steps(), paced in any::<bool>()) {
        let interval = if paced { Some(Duration::from_secs(2)) } else { None };
        let limits = Limits { deliveries: 7, interval, ..usual() };
        let mut bench = Bench::new(limits);
        let messages: Vec<QueueId> = (0..6).map(|_| message()).collect();
        let (mut added, mut ended, mut running) = (0_usize, 0_usize, Vec::new());
        let mut seen: HashMap<QueueId, HashSet<u32>> = HashMap::new();
        for (number, step) in (0_u32..).zip(steps) {
            match step {
                Step::Add { destination, message } => {
                    let site = site(&destination.to_string());
                    if bench.scheduler.refusal(&site, bench.now).is_some() {
                        continue;
                    }
                    let mut job = job(messages[message]);
                    job.recipients[0].index = number;
                    bench.scheduler.add(&site, job, bench.now);
                    added += 1;
                }
                Step::Start => {
                    if let Some(started) = bench.start() {
                        let index = started.job.recipients[0].index;
                        prop_assert!(seen.entry(started.job.message).or_default().insert(index));
                        running.push(started);
                    }
                }
                Step::Finish { which, ending } if !running.is_empty() => {
                    let started = running.swap_remove(which % running.len());
                    let ending = match ending { 0 => refused(), 1 => Ending::Lost, _ => Ending::Answered };
                    ended += 1 + bench.finish(&started, &ending).lost.len();
                }
                Step::Finish { .. } => {}
                Step::Pass(seconds) => drop(bench.pass(seconds)),
                Step::Revive => bench.scheduler.revive_all(bench.now),
            }
            prop_assert!(bench.scheduler.running() == running.len() && running.len() <= 7);
        }
        while ended < added {
            while let Some(started) = bench.start() {
                running.push(started);
            }
            for started in running.drain(..) {
                ended += 1 + bench.finish(&started, &Ending::Answered).lost.len();
            }
            bench.pass(2);
        }
        bench.pass(1000);
        bench.pass(1000);
        prop_assert!(bench.is_empty());
    }
}
