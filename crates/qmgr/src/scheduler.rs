//! Who may be delivered to now: concurrency per transport and per destination, destinations taken in turn. No I/O.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use mail::QueueId;

/// Some recipients of a message that go the same way in one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) message: QueueId,
    pub(crate) nexthop: String,
    /// Positions in the message's recipients.
    pub(crate) recipients: Vec<u32>,
    /// How often an agent went away over it.
    pub(crate) failures: u32,
}

/// A delivery that was begun: what [`Scheduler::finish`] gives back its places by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) transport: String,
    pub(crate) destination: String,
    pub(crate) job: Job,
}

/// The limits of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Deliveries at a time: the process limit of master.cf.
    pub(crate) deliveries: usize,
    /// Deliveries at a time to one destination; 0 for no limit.
    pub(crate) destination_concurrency: usize,
    /// Recipients in one delivery; with 1, each recipient is a destination of its own.
    pub(crate) destination_recipients: usize,
}

/// All deliveries that wait or run.
#[derive(Default)]
pub(crate) struct Scheduler {
    transports: HashMap<String, Transport>,
}

struct Transport {
    limits: Limits,
    running: usize,
    suspended_until: Option<Instant>,
    destinations: HashMap<String, Destination>,
    /// The destinations that have a job and room for it, in the order in which their turn comes.
    turns: VecDeque<String>,
}

#[derive(Default)]
struct Destination {
    jobs: VecDeque<Job>,
    running: usize,
    /// It stands in `turns`.
    has_turn: bool,
}

impl Scheduler {
    /// Sets the limits of a transport, which may be new.
    pub(crate) fn set_limits(&mut self, transport: &str, limits: Limits) {
        match self.transports.get_mut(transport) {
            Some(known) => {
                known.limits = limits;
                known.give_turns();
            }
            None => {
                let new = Transport {
                    limits,
                    running: 0,
                    suspended_until: None,
                    destinations: HashMap::new(),
                    turns: VecDeque::new(),
                };
                self.transports.insert(transport.to_owned(), new);
            }
        }
    }

    /// The limits of a transport, if it was ever named.
    pub(crate) fn limits(&self, transport: &str) -> Option<Limits> {
        self.transports.get(transport).map(|known| known.limits)
    }

    /// Queues a job at the end of its destination's line. The transport must be known.
    pub(crate) fn add(&mut self, transport: &str, destination: &str, job: Job) {
        if let Some(transport) = self.transports.get_mut(transport) {
            transport.destination(destination).jobs.push_back(job);
            transport.give_turn(destination);
        }
    }

    /// Begins the next delivery of a transport that may begin, if there is one.
    pub(crate) fn start(&mut self, transport: &str, now: Instant) -> Option<Started> {
        let name = transport;
        let transport = self.transports.get_mut(name)?;
        if transport.running >= transport.limits.deliveries || transport.is_suspended(now) {
            return None;
        }
        let destination = transport.turns.pop_front()?;
        let state = transport.destinations.get_mut(&destination)?;
        state.has_turn = false;
        let job = state.jobs.pop_front()?;
        state.running += 1;
        transport.running += 1;
        transport.give_turn(&destination);
        Some(Started { transport: name.to_owned(), destination, job })
    }

    /// Gives the places of a delivery back.
    pub(crate) fn finish(&mut self, started: &Started) {
        let Some(transport) = self.transports.get_mut(&started.transport) else { return };
        transport.running = transport.running.saturating_sub(1);
        if let Some(state) = transport.destinations.get_mut(&started.destination) {
            state.running = state.running.saturating_sub(1);
            if state.running == 0 && state.jobs.is_empty() {
                transport.destinations.remove(&started.destination);
            } else {
                transport.give_turn(&started.destination);
            }
        }
    }

    /// Gives the places back and puts the job at the head of its line again.
    pub(crate) fn put_back(&mut self, started: Started) {
        if let Some(transport) = self.transports.get_mut(&started.transport) {
            transport.destination(&started.destination).jobs.push_front(started.job.clone());
        }
        self.finish(&started);
    }

    /// Begins nothing on this transport until then.
    pub(crate) fn suspend(&mut self, transport: &str, until: Instant) {
        if let Some(transport) = self.transports.get_mut(transport) {
            transport.suspended_until = Some(until);
        }
    }

    /// The names of the transports that have something to begin.
    pub(crate) fn with_work(&self) -> Vec<String> {
        let waiting = self.transports.iter().filter(|(_, transport)| !transport.turns.is_empty());
        waiting.map(|(name, _)| name.clone()).collect()
    }

    /// When the next suspension ends.
    pub(crate) fn next_resume(&self) -> Option<Instant> {
        self.transports.values().filter(|t| !t.turns.is_empty()).filter_map(|t| t.suspended_until).min()
    }

    /// Deliveries that run.
    pub(crate) fn running(&self) -> usize {
        self.transports.values().map(|transport| transport.running).sum()
    }
}

impl Transport {
    fn destination(&mut self, name: &str) -> &mut Destination {
        if !self.destinations.contains_key(name) {
            self.destinations.insert(name.to_owned(), Destination::default());
        }
        self.destinations.entry(name.to_owned()).or_default()
    }

    /// Puts a destination in the line of turns if it has a job and room for it.
    fn give_turn(&mut self, name: &str) {
        let most = match self.limits.destination_concurrency {
            0 => usize::MAX,
            most => most,
        };
        if let Some(state) = self.destinations.get_mut(name)
            && !state.has_turn
            && !state.jobs.is_empty()
            && state.running < most
        {
            state.has_turn = true;
            self.turns.push_back(name.to_owned());
        }
    }

    fn give_turns(&mut self) {
        let names: Vec<String> = self.destinations.keys().cloned().collect();
        names.iter().for_each(|name| self.give_turn(name));
    }

    fn is_suspended(&mut self, now: Instant) -> bool {
        if self.suspended_until.is_some_and(|until| until <= now) {
            self.suspended_until = None;
        }
        self.suspended_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn scheduler(deliveries: usize, destination_concurrency: usize) -> Scheduler {
        let mut scheduler = Scheduler::default();
        let limits = Limits { deliveries, destination_concurrency, destination_recipients: 50 };
        scheduler.set_limits("local", limits);
        scheduler
    }

    fn job() -> Job {
        let message = QueueId::generate(SystemTime::now());
        Job { message, nexthop: "example.com".into(), recipients: vec![0], failures: 0 }
    }

    fn start(scheduler: &mut Scheduler) -> Option<Started> {
        scheduler.start("local", Instant::now())
    }

    #[test]
    fn destinations_take_turns() {
        let mut scheduler = scheduler(10, 10);
        for destination in ["a", "a", "a", "b"] {
            scheduler.add("local", destination, job());
        }
        let order: Vec<String> =
            std::iter::from_fn(|| start(&mut scheduler)).map(|started| started.destination).collect();
        assert_eq!(order, ["a", "b", "a", "a"]);
    }

    #[test]
    fn a_destination_and_a_transport_have_their_limits() {
        let mut scheduler = scheduler(3, 2);
        for destination in ["a", "a", "a", "b", "b"] {
            scheduler.add("local", destination, job());
        }
        let running: Vec<Started> = std::iter::from_fn(|| start(&mut scheduler)).collect();
        assert_eq!(running.iter().map(|s| s.destination.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
        scheduler.finish(&running[1]);
        assert_eq!(start(&mut scheduler).unwrap().destination, "b");
        assert!(start(&mut scheduler).is_none());
    }

    #[test]
    fn what_is_put_back_comes_first_and_a_suspended_transport_waits() {
        let mut scheduler = scheduler(1, 1);
        let (first, second) = (job(), job());
        scheduler.add("local", "a", first.clone());
        scheduler.add("local", "a", second);
        let started = start(&mut scheduler).unwrap();
        scheduler.put_back(started);
        let later = Instant::now() + Duration::from_secs(60);
        scheduler.suspend("local", later);
        assert!(start(&mut scheduler).is_none());
        assert_eq!(scheduler.next_resume(), Some(later));
        assert_eq!(scheduler.start("local", later).unwrap().job, first);
    }

    #[test]
    fn nothing_is_left_of_a_destination_without_work() {
        let mut scheduler = scheduler(1, 1);
        scheduler.add("local", "a", job());
        let started = start(&mut scheduler).unwrap();
        scheduler.finish(&started);
        assert!(scheduler.transports["local"].destinations.is_empty());
        assert_eq!(scheduler.running(), 0);
    }
}
