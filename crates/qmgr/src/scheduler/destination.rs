//! What waits for and runs to one destination of a transport. No I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ipc::agent::SiteFailure;
use mail::QueueId;

use super::Job;
use super::window::Window;
use crate::limits::Limits;

/// How much of the time to come the jobs of a destination with a rate may cover: what is beyond waits in `deferred/`.
const HORIZON: Duration = Duration::from_secs(600);

/// Jobs that a destination with a rate may have in any case, however slow the rate is.
const FEWEST_AHEAD: usize = 10;

/// A place in the line of what is next: first by tag, then by the order in which the places were given.
pub(super) type Place = (u64, u64);

/// The tag of what was put back: less than any that is given.
const FRONT: u64 = 0;

/// The first tag that is given.
pub(super) const FIRST_TAG: u64 = FRONT + 1;

/// One destination.
pub(super) struct Destination {
    /// What waits, a line for each message; the least place is next.
    lines: BTreeMap<Place, Line>,
    /// Where the line of a message is.
    places: BTreeMap<QueueId, Place>,
    waiting: usize,
    pub(super) running: usize,
    pub(super) window: Window,
    pub(super) state: State,
    /// No delivery begins before.
    pub(super) not_before: Option<Instant>,
    /// Its place in the transport's line of turns, if it has one.
    pub(super) turn: Option<Place>,
}

/// Whether it takes mail.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// As far as anybody knows.
    Alive,
    /// It was given up.
    Dead { until: Instant, failure: SiteFailure },
    /// It was given up, and may be tried again; forgotten at this time if nobody did.
    Due { until: Instant },
}

/// The jobs of a message. Most have one, which takes no memory but this.
struct Line {
    next: Job,
    more: VecDeque<Job>,
}

impl Destination {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            lines: BTreeMap::new(),
            places: BTreeMap::new(),
            waiting: 0,
            running: 0,
            window: Window::new(limits),
            state: State::Alive,
            not_before: None,
            turn: None,
        }
    }

    /// Why it takes nothing, where it was given up.
    pub(super) fn failure(&self) -> Option<&SiteFailure> {
        match &self.state {
            State::Dead { failure, .. } => Some(failure),
            State::Alive | State::Due { .. } => None,
        }
    }

    /// Whether it holds so much that more of it would only keep other mail out of `active/`.
    pub(super) fn is_full(&self, limits: &Limits, most_messages: usize) -> bool {
        self.lines.len() >= most_messages || self.waiting >= jobs_ahead(limits)
    }

    /// How many messages more it could do with.
    pub(super) fn room(&self, limits: &Limits, most_messages: usize) -> usize {
        if self.failure().is_some() {
            return 0;
        }
        let enough = match limits.interval {
            Some(_) => jobs_ahead(limits) / 2,
            None => 2 * self.window.size(limits),
        };
        enough.min(most_messages).saturating_sub(self.waiting)
    }

    /// Takes a job behind those of its message; a message that has none here gets the place that `place` gives.
    pub(super) fn push(&mut self, job: Job, place: impl FnOnce() -> Place) {
        self.waiting += 1;
        let known = self.places.get(&job.message).and_then(|place| self.lines.get_mut(place));
        match known {
            Some(line) => line.more.push_back(job),
            None => self.insert(place(), Line { next: job, more: VecDeque::new() }),
        }
    }

    /// Takes a job before all others but those that came back before it.
    pub(super) fn push_front(&mut self, job: Job, number: u64) {
        self.waiting += 1;
        let known = self.places.get(&job.message).and_then(|place| self.lines.get_mut(place));
        match known {
            Some(line) => line.more.push_front(std::mem::replace(&mut line.next, job)),
            None => self.insert((FRONT, number), Line { next: job, more: VecDeque::new() }),
        }
    }

    fn insert(&mut self, place: Place, line: Line) {
        self.places.insert(line.next.message, place);
        self.lines.insert(place, line);
    }

    /// Takes the next job and its tag; a message that has more here gets the place that `place` gives.
    pub(super) fn pop(&mut self, place: impl FnOnce(QueueId) -> Place) -> Option<(u64, Job)> {
        let ((tag, _), Line { next: job, mut more }) = self.lines.pop_first()?;
        self.places.remove(&job.message);
        self.waiting -= 1;
        if let Some(next) = more.pop_front() {
            self.insert(place(next.message), Line { next, more });
        }
        Some((tag, job))
    }

    /// Takes all that waits.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        self.places.clear();
        self.waiting = 0;
        std::mem::take(&mut self.lines).into_values().flat_map(Line::into_jobs).collect()
    }

    /// The tag of what is next, if it may begin now.
    pub(super) fn next_tag(&self, limits: &Limits, now: Instant) -> Option<u64> {
        let most = if limits.destination_delay.is_zero() { self.window.size(limits) } else { 1 };
        let may_begin =
            self.running < most && self.failure().is_none() && self.not_before.is_none_or(|time| time <= now);
        self.lines.first_key_value().filter(|_| may_begin).map(|((tag, _), _)| *tag)
    }

    /// Whether nothing would be lost if it were forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.waiting == 0
            && self.running == 0
            && self.state == State::Alive
            && self.not_before.is_none_or(|time| time <= now)
    }

    /// Jobs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}

impl Line {
    fn into_jobs(self) -> impl Iterator<Item = Job> {
        std::iter::once(self.next).chain(self.more)
    }
}

/// How many jobs a destination's rate lets wait.
fn jobs_ahead(limits: &Limits) -> usize {
    let Some(interval) = limits.interval.or(Some(limits.destination_delay)).filter(|time| !time.is_zero())
    else {
        return usize::MAX;
    };
    let ahead = HORIZON.as_micros() / interval.as_micros().max(1);
    usize::try_from(ahead).unwrap_or(usize::MAX).max(FEWEST_AHEAD)
}
