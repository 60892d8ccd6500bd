//! Who may be delivered to now: concurrency per transport and destination, destinations that are given up for a while,
//! times between deliveries, and turns between messages and destinations. No I/O, no clock: the time is given.

mod destination;
mod transport;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::agent::{RequestRecipient, SiteFailure};
use mail::{Dsn, QueueId};

use crate::limits::Limits;
use transport::{Closed, Transport};

/// What stands before the reason in the outcome of mail that a destination's state puts off without an attempt.
const SUSPENDED: &str = "delivery temporarily suspended: ";

/// So many that wait for a destination are more than a busy server has at a time.
const LONG_LINE: usize = 500;

/// The name of a transport or destination.
pub(crate) type Name = Arc<str>;

/// Some recipients of a message that go the same way in one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) message: QueueId,
    pub(crate) nexthop: Name,
    pub(crate) recipients: Vec<RequestRecipient>,
    /// How often an agent went away over it.
    pub(crate) failures: u32,
}

/// A destination of a transport.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) transport: Name,
    pub(crate) destination: Name,
}

/// A delivery that was begun: what [`Scheduler::finish`] gives back its places by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) site: Site,
    pub(crate) job: Job,
    /// When the next delivery to a destination with a rate may begin.
    pub(crate) paced_until: Option<Instant>,
}

/// How a delivery ended, in the eyes of the destination's concurrency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The destination answered, whatever it said.
    Answered,
    /// The destination could not be reached or would not talk.
    Failed(SiteFailure),
    /// The agent did not come so far.
    Lost,
}

/// Why mail is put off without an attempt: code and text of the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) failure: SiteFailure,
    /// When its turn would come, where a rate tells that.
    pub(crate) turn: Option<Turn>,
    /// There is too much mail for the destination in `active/`.
    pub(crate) is_congestion: bool,
}

/// A place in the line of a destination with a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The time from one delivery to the next.
    pub(crate) interval: Duration,
    /// Deliveries that come before.
    pub(crate) ahead: usize,
}

/// What the end of a delivery brings about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    /// What waited for a destination that is given up now.
    pub(crate) lost: Vec<Job>,
    /// How many more messages the destination could do with.
    pub(crate) room: usize,
    /// The concurrency as it is now, for who follows it.
    pub(crate) window: Option<String>,
}

/// All deliveries that wait or run.
pub(crate) struct Scheduler {
    transports: HashMap<Name, Transport>,
    /// How many destinations may be given up at a time.
    most_dead: usize,
    /// How many messages may wait for one destination.
    most_messages: usize,
}

impl Scheduler {
    pub(crate) fn new(most_dead: usize, most_messages: usize) -> Self {
        Self { transports: HashMap::new(), most_dead, most_messages: most_messages.max(1) }
    }

    /// Sets what bounds all destinations.
    pub(crate) fn set_bounds(&mut self, most_dead: usize, most_messages: usize) {
        (self.most_dead, self.most_messages) = (most_dead, most_messages.max(1));
    }

    /// Sets the limits of a transport, which may be new.
    pub(crate) fn set_limits(&mut self, transport: &str, limits: Limits, now: Instant) {
        match self.transports.get_mut(transport) {
            Some(known) => known.set_limits(limits, now),
            None => {
                self.transports.insert(transport.into(), Transport::new(limits));
            }
        }
    }

    /// The limits of a transport, if it was ever named.
    pub(crate) fn limits(&self, transport: &str) -> Option<&Limits> {
        self.transports.get(transport).map(|known| &known.limits)
    }

    /// The copy of a destination's name that is kept, if it is.
    pub(crate) fn known_name(&self, site: &Site) -> Option<&Name> {
        self.transports.get(&site.transport)?.known_name(&site.destination)
    }

    /// Whether mail for this destination has to wait for its turn for more than a moment, even if each delivery is quick.
    pub(crate) fn is_behind(&self, site: &Site) -> bool {
        let transport = self.transports.get(&site.transport);
        transport.is_some_and(|known| known.closed.is_some() || known.waiting(&site.destination) > LONG_LINE)
    }

    /// Why mail for this destination has to wait elsewhere, if it has to.
    pub(crate) fn refusal(&mut self, site: &Site, now: Instant) -> Option<Refusal> {
        let most = self.most_messages;
        let transport = self.transports.get_mut(&site.transport)?;
        if let Some(failure) = transport.failure(&site.destination, now) {
            return Some(Refusal { failure, turn: None, is_congestion: false });
        }
        if !transport.is_full(&site.destination, most) {
            return None;
        }
        let ahead = transport.waiting(&site.destination);
        let interval = transport.limits.interval.unwrap_or(transport.limits.destination_delay);
        let turn = Some(Turn { interval, ahead }).filter(|_| !interval.is_zero());
        let text = match turn {
            Some(_) => format!("{SUSPENDED}the rate of deliveries to this destination is limited"),
            None => format!("{SUSPENDED}{ahead} deliveries to this destination wait already"),
        };
        // 4.4.5: mail system congestion (RFC 3463 section 3.5).
        let failure = SiteFailure { dsn: Dsn::new(4, 4, 5), text };
        Some(Refusal { failure, is_congestion: turn.is_none(), turn })
    }

    /// Queues a job. The transport must be known, and [`Scheduler::refusal`] was asked.
    pub(crate) fn add(&mut self, site: &Site, job: Job, now: Instant) {
        if let Some(transport) = self.transports.get_mut(&site.transport) {
            transport.add(&site.destination, job, now);
        }
    }

    /// Begins the next delivery of a transport that may begin, if there is one.
    pub(crate) fn start(&mut self, transport: &Name, now: Instant) -> Option<Started> {
        let (destination, job, paced_until) = self.transports.get_mut(transport)?.start(now)?;
        Some(Started { site: Site { transport: transport.clone(), destination }, job, paced_until })
    }

    /// Gives the places of a delivery back.
    pub(crate) fn finish(&mut self, site: &Site, ending: &Ending, now: Instant) -> Finished {
        let dead: usize = self.transports.values().map(|transport| transport.dead).sum();
        let Some(transport) = self.transports.get_mut(&site.transport) else { return Finished::default() };
        let lost = transport.finish(&site.destination, ending, dead < self.most_dead, now);
        let room = match ending {
            Ending::Answered => transport.room(&site.destination, self.most_messages),
            Ending::Failed(_) | Ending::Lost => 0,
        };
        let window = transport.window(&site.destination).map(|window| window.to_string());
        transport.forget_if_idle(&site.destination, now);
        Finished { lost, room, window }
    }

    /// Gives the places back and puts the job at the head of its line again.
    pub(crate) fn put_back(&mut self, started: Started, now: Instant) {
        self.finish(&started.site, &Ending::Lost, now);
        if let Some(transport) = self.transports.get_mut(&started.site.transport) {
            transport.put_back(&started.site.destination, started.job, now);
        }
    }

    /// Begins nothing on this transport until then; its mail waits.
    pub(crate) fn rest(&mut self, transport: &str, until: Instant) {
        if let Some(known) = self.transports.get_mut(transport) {
            known.closed = Some(Closed::Resting { until });
        }
    }

    /// Takes nothing for this transport until then; gives what waited.
    pub(crate) fn close(
        &mut self,
        transport: &str,
        failure: SiteFailure,
        until: Instant,
        now: Instant,
    ) -> Vec<(Site, Job)> {
        let Some((name, _)) = self.transports.get_key_value(transport) else { return Vec::new() };
        let name = name.clone();
        let Some(known) = self.transports.get_mut(&name) else { return Vec::new() };
        known.closed = Some(Closed::Unavailable { until, failure });
        let all = known.drain(now);
        let site = |destination| Site { transport: name.clone(), destination };
        all.into_iter().map(|(destination, job)| (site(destination), job)).collect()
    }

    /// Does what time brings; gives the destinations that were given up and may be tried again.
    pub(crate) fn wake(&mut self, now: Instant) -> Vec<Site> {
        let mut revived = Vec::new();
        for (name, transport) in &mut self.transports {
            let site = |destination| Site { transport: name.clone(), destination };
            revived.extend(transport.wake(now).into_iter().map(site));
        }
        revived
    }

    /// Forgets what is known against transports and destinations: all may be tried at once.
    pub(crate) fn revive_all(&mut self, now: Instant) {
        self.transports.values_mut().for_each(|transport| transport.revive(now));
    }

    /// Takes all that waits, so that its way is asked for anew.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<Job> {
        self.transports.values_mut().flat_map(|transport| transport.drain(now)).map(|(_, job)| job).collect()
    }

    /// Begins nothing to a destination before then.
    pub(crate) fn hold_until(&mut self, site: &Site, time: Instant) {
        if let Some(transport) = self.transports.get_mut(&site.transport) {
            transport.hold_until(&site.destination, time);
        }
    }

    /// The destinations that wait for their time, with that time.
    pub(crate) fn held(&self, now: Instant) -> impl Iterator<Item = (&str, &str, Instant)> {
        self.transports.iter().flat_map(move |(name, transport)| {
            transport.held(now).map(move |(destination, time)| (&**name, &**destination, time))
        })
    }

    /// The names of the transports that have something to begin.
    pub(crate) fn with_work(&self) -> Vec<Name> {
        let waiting = self.transports.iter().filter(|(_, transport)| transport.has_work());
        waiting.map(|(name, _)| name.clone()).collect()
    }

    /// When to look again at what only time changes.
    pub(crate) fn next_wake(&self, now: Instant) -> Option<Instant> {
        self.transports.values().filter_map(|transport| transport.next_wake(now)).min()
    }

    /// Deliveries that run.
    pub(crate) fn running(&self) -> usize {
        self.transports.values().map(|transport| transport.running).sum()
    }
}

#[cfg(test)]
mod tests;
