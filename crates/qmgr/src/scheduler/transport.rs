//! One transport: its destinations, and who of them is next. No I/O.
//!
//! Fairness is between messages first and between destinations second. Each line (what waits of one message for one
//! destination) has a tag: the first of a message gets the tag that is being served, each further one the next; so a
//! message with many deliveries spreads over the tags to come, and one that arrives later with a single delivery stands
//! before nearly all of them. Among equal tags, destinations take turns. So that a stream of small messages does not
//! hold back a large one for ever, the tag that is served moves on after [`PATIENCE`] deliveries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Instant;

use ipc::agent::SiteFailure;
use mail::QueueId;

use super::destination::{Destination, FIRST_TAG, Place, State};
use super::window::Window;
use super::{Ending, Job, Name, SUSPENDED};
use crate::limits::Limits;

/// How many deliveries of one tag are begun before those of the next have their turn too.
const PATIENCE: u32 = 4;

pub(super) struct Transport {
    pub(super) limits: Limits,
    pub(super) running: usize,
    pub(super) closed: Option<Closed>,
    not_before: Option<Instant>,
    destinations: HashMap<Name, Destination>,
    /// The destinations that may begin a delivery, the next one first.
    turns: BTreeMap<Place, Name>,
    /// A tree has no doubling, and gives back what it does not need.
    shares: BTreeMap<QueueId, Share>,
    /// When to look at a destination again.
    timers: BinaryHeap<Reverse<(Instant, Name)>>,
    /// The tag that is being served, and how many deliveries it has had.
    clock: u64,
    served: u32,
    next_number: u64,
    pub(super) dead: usize,
}

/// Why a transport begins nothing.
pub(super) enum Closed {
    /// Its agent is being started again.
    Resting { until: Instant },
    /// There is no agent; what would wait for it is put off.
    Unavailable { until: Instant, failure: SiteFailure },
}

/// What a message has of the tags.
#[derive(Default)]
struct Share {
    next_tag: u64,
    jobs: usize,
}

impl Transport {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: 0,
            closed: None,
            not_before: None,
            destinations: HashMap::new(),
            turns: BTreeMap::new(),
            shares: BTreeMap::new(),
            timers: BinaryHeap::new(),
            clock: FIRST_TAG,
            served: 0,
            next_number: 0,
            dead: 0,
        }
    }

    /// Why mail for this destination is put off at once, if it is.
    pub(super) fn failure(&mut self, destination: &str, now: Instant) -> Option<SiteFailure> {
        self.open_if_due(now);
        match &self.closed {
            Some(Closed::Unavailable { failure, .. }) => Some(failure.clone()),
            _ => self.destinations.get(destination)?.failure().cloned(),
        }
    }

    pub(super) fn known_name(&self, destination: &str) -> Option<&Name> {
        self.destinations.get_key_value(destination).map(|(name, _)| name)
    }

    pub(super) fn is_full(&self, destination: &str, most_messages: usize) -> bool {
        self.destinations.get(destination).is_some_and(|known| known.is_full(&self.limits, most_messages))
    }

    pub(super) fn room(&self, destination: &str, most_messages: usize) -> usize {
        self.destinations.get(destination).map_or(0, |known| known.room(&self.limits, most_messages))
    }

    pub(super) fn waiting(&self, destination: &str) -> usize {
        self.destinations.get(destination).map_or(0, Destination::waiting)
    }

    /// Queues a job.
    pub(super) fn add(&mut self, destination: &Name, job: Job, now: Instant) {
        let share = self.shares.entry(job.message).or_default();
        share.jobs += 1;
        let (clock, number) = (self.clock, &mut self.next_number);
        let known = entry(&mut self.destinations, destination, &self.limits);
        known.push(job, || next_place(share, clock, number));
        self.give_turn(destination, now);
    }

    /// Begins the next delivery.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Name, Job, Option<Instant>)> {
        if self.blocked_until(now).is_some() || self.running >= self.limits.deliveries {
            return None;
        }
        let (_, name) = self.turns.pop_first()?;
        let known = self.destinations.get_mut(&name)?;
        known.turn = None;
        let (clock, number, shares) = (self.clock, &mut self.next_number, &mut self.shares);
        let (tag, job) =
            known.pop(|message| next_place(shares.entry(message).or_default(), clock, number))?;
        known.running += 1;
        self.running += 1;
        let paced = self.limits.interval.map(|interval| now + interval);
        if let Some(time) = paced {
            self.hold_until(&name, time);
        }
        self.not_before =
            Some(now + self.limits.transport_delay).filter(|_| !self.limits.transport_delay.is_zero());
        self.count_down(job.message);
        self.move_clock(tag);
        self.give_turn(&name, now);
        Some((name, job, paced))
    }

    fn count_down(&mut self, message: QueueId) {
        if let Some(share) = self.shares.get_mut(&message) {
            share.jobs = share.jobs.saturating_sub(1);
            if share.jobs == 0 {
                self.shares.remove(&message);
            }
        }
    }

    fn move_clock(&mut self, tag: u64) {
        if tag > self.clock {
            (self.clock, self.served) = (tag, 1);
            return;
        }
        self.served += 1;
        if self.served >= PATIENCE {
            (self.clock, self.served) = (self.clock + 1, 0);
        }
    }

    /// Gives back what a delivery held. `may_die`: whether the destination may be given up. Gives what was waiting for
    /// a destination that was given up.
    pub(super) fn finish(
        &mut self,
        destination: &Name,
        ending: &Ending,
        may_die: bool,
        now: Instant,
    ) -> Vec<Job> {
        self.running = self.running.saturating_sub(1);
        let Some(known) = self.destinations.get_mut(destination) else { return Vec::new() };
        known.running = known.running.saturating_sub(1);
        let mut lost = Vec::new();
        match ending {
            Ending::Answered => {
                if known.state != State::Alive {
                    self.dead -= usize::from(known.failure().is_some());
                    known.state = State::Alive;
                    known.window = Window::probe(&self.limits);
                }
                known.window.succeed(&self.limits, known.running);
            }
            Ending::Failed(failure) => {
                if known.failure().is_none() && known.window.fail(&self.limits) && may_die {
                    let until = now + self.limits.retry;
                    let text = format!("{SUSPENDED}{}", failure.text);
                    known.state = State::Dead { until, failure: SiteFailure { dsn: failure.dsn, text } };
                    self.timers.push(Reverse((until, destination.clone())));
                    self.dead += 1;
                    lost = known.drain();
                }
            }
            Ending::Lost => {}
        }
        if !self.limits.destination_delay.is_zero() {
            self.hold_until(destination, now + self.limits.destination_delay);
        }
        lost.iter().for_each(|job| self.count_down(job.message));
        self.give_turn(destination, now);
        lost
    }

    /// Puts a job at the head of its destination's line again.
    pub(super) fn put_back(&mut self, destination: &Name, job: Job, now: Instant) {
        self.shares.entry(job.message).or_default().jobs += 1;
        self.next_number += 1;
        entry(&mut self.destinations, destination, &self.limits).push_front(job, self.next_number);
        self.give_turn(destination, now);
    }

    /// Begins nothing to this destination before then.
    pub(super) fn hold_until(&mut self, destination: &Name, time: Instant) {
        let known = entry(&mut self.destinations, destination, &self.limits);
        known.not_before = known.not_before.max(Some(time));
        self.timers.push(Reverse((time, destination.clone())));
    }

    /// Does what time brings; gives the destinations that were given up and may be tried again.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<Name> {
        let mut revived = Vec::new();
        while self.timers.peek().is_some_and(|Reverse((time, _))| *time <= now) {
            let Some(Reverse((_, name))) = self.timers.pop() else { break };
            let Some(known) = self.destinations.get_mut(&name) else { continue };
            match known.state {
                State::Dead { until, .. } if until <= now => {
                    let until = now + self.limits.retry;
                    known.state = State::Due { until };
                    known.window = Window::probe(&self.limits);
                    self.timers.push(Reverse((until, name.clone())));
                    self.dead -= 1;
                    revived.push(name.clone());
                }
                State::Due { until } if until <= now => known.state = State::Alive,
                _ => {}
            }
            self.give_turn(&name, now);
            self.forget_if_idle(&name, now);
        }
        revived
    }

    /// Forgets what it knows against its destinations.
    pub(super) fn revive(&mut self, now: Instant) {
        self.closed = None;
        self.dead = 0;
        let names: Vec<Name> = self.destinations.keys().cloned().collect();
        for name in names {
            if let Some(known) = self.destinations.get_mut(&name)
                && known.state != State::Alive
            {
                known.state = State::Alive;
                known.window = Window::new(&self.limits);
            }
            self.give_turn(&name, now);
            self.forget_if_idle(&name, now);
        }
    }

    /// Takes all that waits.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<(Name, Job)> {
        let mut all = Vec::new();
        let names: Vec<Name> = self.destinations.keys().cloned().collect();
        for name in names {
            let Some(known) = self.destinations.get_mut(&name) else { continue };
            let jobs = known.drain();
            all.extend(jobs.into_iter().map(|job| (name.clone(), job)));
            self.give_turn(&name, now);
            self.forget_if_idle(&name, now);
        }
        self.shares.clear();
        all
    }

    /// Goes over to other limits.
    pub(super) fn set_limits(&mut self, limits: Limits, now: Instant) {
        self.limits = limits;
        if limits.interval.is_none() && limits.destination_delay.is_zero() {
            self.destinations.values_mut().for_each(|known| known.not_before = None);
        }
        let names: Vec<Name> = self.destinations.keys().cloned().collect();
        names.iter().for_each(|name| self.give_turn(name, now));
    }

    /// Whether something could begin if there were room.
    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// When to look at it again.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((time, _))| *time);
        let blocked = self.blocked_until(now).filter(|_| self.has_work());
        timer.into_iter().chain(blocked).min()
    }

    /// The destinations that wait for their time, with that time.
    pub(super) fn held(&self, now: Instant) -> impl Iterator<Item = (&Name, Instant)> {
        self.destinations
            .iter()
            .filter_map(move |(name, known)| Some((name, known.not_before.filter(|time| *time > now)?)))
    }

    /// The state of a destination's concurrency.
    pub(super) fn window(&self, destination: &str) -> Option<Window> {
        self.destinations.get(destination).map(|known| known.window)
    }

    fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let closed = self.closed.as_ref().map(|closed| match closed {
            Closed::Resting { until } | Closed::Unavailable { until, .. } => *until,
        });
        closed.into_iter().chain(self.not_before).filter(|until| *until > now).max()
    }

    fn open_if_due(&mut self, now: Instant) {
        if let Some(Closed::Resting { until } | Closed::Unavailable { until, .. }) = self.closed
            && until <= now
        {
            self.closed = None;
        }
    }

    /// Puts a destination where it belongs in the line of turns, or takes it out.
    fn give_turn(&mut self, name: &Name, now: Instant) {
        let Some(known) = self.destinations.get_mut(name) else { return };
        let wanted = known.next_tag(&self.limits, now);
        if known.turn.map(|(tag, _)| tag) == wanted {
            return;
        }
        if let Some(place) = known.turn.take() {
            self.turns.remove(&place);
        }
        if let Some(tag) = wanted {
            self.next_number += 1;
            known.turn = Some((tag, self.next_number));
            self.turns.insert((tag, self.next_number), name.clone());
        }
    }

    /// Forgets a destination of which nothing is left to know.
    pub(super) fn forget_if_idle(&mut self, name: &Name, now: Instant) {
        if self.destinations.get(name).is_some_and(|known| known.is_idle(now)) {
            self.destinations.remove(name);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.shares.is_empty() && self.turns.is_empty()
    }
}

fn entry<'a>(
    destinations: &'a mut HashMap<Name, Destination>,
    name: &Name,
    limits: &Limits,
) -> &'a mut Destination {
    destinations.entry(name.clone()).or_insert_with(|| Destination::new(limits))
}

/// The place of a message's next line.
fn next_place(share: &mut Share, clock: u64, number: &mut u64) -> Place {
    let tag = share.next_tag.max(clock);
    share.next_tag = tag + 1;
    *number += 1;
    (tag, *number)
}
