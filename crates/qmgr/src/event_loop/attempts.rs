//! An attempt to deliver a message: its recipients go their ways, outcomes come back, and the message is put aside or
//! removed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant, SystemTime};

use ipc::agent::RequestRecipient;
use ipc::log;
use mail::{Dsn, Notify, Outcome, QueueId, Status};
use queue::Attempt;

use super::EventLoop;
use crate::deliveries::Verdict;
use crate::disk::{Claimed, Job, Slice};
use crate::intake::Reason;
use crate::message::{ActiveMessage, Age, Next};
use crate::offers::MOST_RECIPIENTS;
use crate::reports::Report;
use crate::routing::Way;
use crate::scheduler::{Refusal, Site};

/// The longest that mail waits for its turn at a destination with a rate before it is looked at again.
const LONGEST_TURN: Duration = Duration::from_secs(24 * 3600);

/// Recipients that go the same way: where, and what the agent is told.
struct Group {
    site: Site,
    nexthop: String,
    recipients: Vec<RequestRecipient>,
}

impl EventLoop {
    pub(super) fn take_up(&mut self, claimed: Claimed) {
        let id = claimed.template.id;
        let reason = self.claiming.remove(&id);
        log::active(id, &claimed.template.sender, claimed.template.size, claimed.addressees);
        let mut message = ActiveMessage::new(claimed.file, &claimed.template, claimed.total, claimed.flags);
        if reason == Some(Reason::Asked) {
            message.ask_for();
        }
        self.messages.insert(id, Box::new(message));
        if claimed.total > MOST_RECIPIENTS {
            self.offers.keep(id);
        }
        self.take_slice(id, claimed.slice);
    }

    pub(super) fn take_slice(&mut self, id: QueueId, slice: Slice) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let recipients = slice.recipients.len();
        message.take_slice(recipients, slice.unreported_failures, slice.unreported_successes, slice.next);
        self.recipients += recipients;
        self.send_on_their_ways(id, slice.recipients, slice.ways);
        self.go_on(id, false);
    }

    /// Sorts recipients by the way they go, and queues deliveries for each way.
    pub(super) fn send_on_their_ways(
        &mut self,
        id: QueueId,
        recipients: Vec<RequestRecipient>,
        ways: Vec<Result<Way, Box<Outcome>>>,
    ) {
        let Some(message) = self.messages.get(&id) else { return };
        let (is_given_up, is_asked_for) = (message.is_forced_to_expire(), message.is_asked_for());
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Site, usize> = HashMap::new();
        for (recipient, way) in recipients.into_iter().zip(ways) {
            let way = match way {
                _ if is_given_up => Err(Box::new(forced_to_expire())),
                Ok(way) if !is_asked_for && self.settings.defer_transports.contains(&way.transport) => {
                    Err(Box::new(put_off()))
                }
                Ok(way) if !self.deliveries.knows(&way.transport) => {
                    Err(Box::new(unavailable(&way.transport)))
                }
                way => way,
            };
            match way {
                Ok(way) => {
                    let site = self.deliveries.site(&way, &recipient.address);
                    if !self.deliveries.is_prompt(&site) {
                        self.offers.keep(id);
                    } else if self.deliveries.is_local(&site) {
                        self.offers.rely_on_order(id);
                    }
                    let place = match places.entry(site) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(new) => {
                            let site = new.key().clone();
                            groups.push(Group { site, nexthop: way.nexthop, recipients: Vec::new() });
                            *new.insert(groups.len() - 1)
                        }
                    };
                    groups[place].recipients.push(recipient);
                }
                Err(outcome) => self.decide_without_agent(id, &recipient, *outcome),
            }
        }
        let now = Instant::now();
        for Group { site, nexthop, recipients } in groups {
            if let Some((rest, refusal)) = self.deliveries.queue(id, &site, &nexthop, recipients, now) {
                self.put_off(id, &rest, &site, &refusal);
            }
        }
    }

    /// Defers recipients without an attempt, because their destination takes nothing at the moment.
    fn put_off(&mut self, id: QueueId, recipients: &[RequestRecipient], site: &Site, refusal: &Refusal) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.waits_for(site);
        if let Some(turn) = refusal.turn {
            let ahead = turn.ahead + self.deferred.waiting_for(site);
            let wait = turn.interval.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
            message.not_before(SystemTime::now() + wait.min(LONGEST_TURN));
        } else if refusal.is_congestion {
            self.warn_of_clog(site);
        }
        let outcome = Outcome::deferred("none", refusal.failure.dsn, refusal.failure.text.clone());
        recipients.iter().for_each(|recipient| self.decide_without_agent(id, recipient, outcome.clone()));
    }

    fn warn_of_clog(&mut self, site: &Site) {
        let now = Instant::now();
        if let Some(interval) = self.settings.clog_warn_time
            && self.next_clog_warning <= now
        {
            self.next_clog_warning = now + interval;
            let (active, limit) = (self.messages.len(), self.settings.active_limit);
            log::warning!(
                "mail for {}/{} is using up the active queue ({active} messages, at most {limit}); more of it waits",
                site.transport,
                site.destination
            );
        }
    }

    /// An outcome that qmgr knows without asking an agent; it is logged here.
    fn decide_without_agent(&mut self, id: QueueId, recipient: &RequestRecipient, outcome: Outcome) {
        let Some(message) = self.messages.get(&id) else { return };
        let is_soft = self.settings.soft_bounce && !message.trace.is_probe();
        let outcome = if is_soft { softened(outcome) } else { outcome };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let delays = log::Delays { queued: now.saturating_sub(message.arrival), ..log::Delays::default() };
        log::outcome(id, &recipient.address, recipient.original.as_ref(), delays, &outcome);
        self.decide(id, recipient, outcome);
    }

    /// Notes an outcome and has it written down.
    fn decide(&mut self, id: QueueId, recipient: &RequestRecipient, outcome: Outcome) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let is_soft = self.settings.soft_bounce && !message.trace.is_probe();
        let outcome = if is_soft { softened(outcome) } else { outcome };
        self.recipients = self.recipients.saturating_sub(1);
        let mut notify = recipient.notify;
        let is_sent = outcome.status == Status::Sent;
        if !is_sent {
            self.offers.keep(id);
        }
        if is_sent && self.settings.confirm_delay_cleared && message.was_told_of_delay(notify) {
            notify = notify.and(Notify::SUCCESS);
        }
        let record = message.decide(recipient.index, &outcome, notify);
        if record.state.is_none() && !record.journal {
            return;
        }
        let time = SystemTime::now();
        let age = age(message, time);
        let times = self.settings.times;
        let next_attempt = (outcome.status == Status::Deferred)
            .then(|| message.next_attempt(time, || time + times.backoff_after(age, id)));
        let index = recipient.index;
        let attempt = record.journal.then_some(Attempt { time, recipient: index, outcome, next_attempt });
        self.disk.ask(Job::Record { id, index, state: record.state, attempt });
    }

    pub(super) fn take_verdicts(&mut self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            match verdict {
                Verdict::Outcome { id, recipient, outcome } => self.decide(id, &recipient, outcome),
                Verdict::Waits { id, site } => {
                    if let Some(message) = self.messages.get_mut(&id) {
                        message.waits_for(&site);
                    }
                }
                Verdict::Done { id } => self.go_on(id, false),
                Verdict::Keep { id } => self.offers.keep(id),
                Verdict::Abandoned { id, recipients } => self.abandon(id, &recipients),
                Verdict::PutOff { site, jobs, refusal } => {
                    for job in jobs {
                        self.put_off(job.message, &job.recipients, &site, &refusal);
                        self.go_on(job.message, false);
                    }
                }
                Verdict::Room { site, messages } => self.deferred.hasten_for(&site, messages),
            }
        }
    }

    /// Defers recipients whose agent failed too often.
    fn abandon(&mut self, id: QueueId, recipients: &[RequestRecipient]) {
        let text = "mail transport unavailable: the delivery agent keeps failing; see the log";
        let outcome = Outcome::deferred("none", Dsn::new(4, 3, 0), text);
        recipients.iter().for_each(|recipient| self.decide_without_agent(id, recipient, outcome.clone()));
        self.go_on(id, false);
    }

    /// Takes the next step with a message. `recorded`: the journal has all that was decided.
    pub(super) fn go_on(&mut self, id: QueueId, recorded: bool) {
        let most = self.recipients_to_read();
        let Some(message) = self.messages.get_mut(&id) else { return };
        if let Some(from) = message.wants_slice() {
            self.disk.ask(Job::Slice { id, from, most });
        }
        if !message.is_decided() || self.deliveries.has_any(id) {
            return;
        }
        let (now, times) = (SystemTime::now(), self.settings.times);
        let age = age(message, now);
        let expired = times.is_expired(age, message.has_null_sender);
        match message.next(Age { expired, late: times.is_late(age) }) {
            Next::Expire => {
                // The log does without the sender rather than the message without its end.
                log::expired(id, &message.request().map(|request| request.sender).unwrap_or_default());
                self.go_on(id, recorded);
            }
            Next::Report(kind, recipients) if recorded => self.report(Report { id, kind, recipients }),
            Next::Report(kind, recipients) => {
                self.offers.keep(id);
                // Bounce reads the reasons from the journal: they must be in it first.
                message.put_back_report(kind, recipients);
                self.disk.ask(Job::Barrier { id });
            }
            Next::Defer => {
                let until = message.next_attempt(now, || now + times.backoff_after(age, id));
                self.defer(id, until);
            }
            Next::Remove => {
                // Its disk thread does what it is asked in order: whoever names the message again finds it gone.
                let was_lent = self.offers.deliver(id);
                self.forget(id);
                if was_lent {
                    log::removed(id);
                    self.disk.leave(Job::GiveBack { id });
                } else {
                    self.disk.ask(Job::Remove { id });
                }
            }
        }
    }

    pub(super) fn defer(&mut self, id: QueueId, until: SystemTime) {
        let until = if self.once_more.contains(&id) { SystemTime::now() } else { until };
        let sites = self.messages.get(&id).map_or(Vec::new(), |message| message.waiting_for().to_vec());
        self.forget(id);
        self.deferred.add(id, until, &sites);
        self.disk.ask(Job::Defer { id, until });
    }
}

/// With `soft_bounce` nothing is given up.
fn softened(outcome: Outcome) -> Outcome {
    match outcome.status {
        Status::Bounced => {
            let dsn = outcome.dsn.with_class(4);
            Outcome { status: Status::Deferred, dsn, ..outcome }
        }
        Status::Sent | Status::Deferred => outcome,
    }
}

/// `defer_transports` names the transport.
fn put_off() -> Outcome {
    Outcome::deferred("none", Dsn::new(4, 3, 2), "deferred transport")
}

/// The operator gave the message up (`postsuper -e`).
fn forced_to_expire() -> Outcome {
    Outcome::bounced("none", Dsn::new(5, 4, 7), "message expired by the administrator")
}

/// The transport is not in master.cf, or what it names is not here.
fn unavailable(transport: &str) -> Outcome {
    let text = format!("mail transport unavailable: no service \"{transport}\" in master.cf");
    Outcome::deferred("none", Dsn::new(4, 3, 0), text)
}

pub(super) fn age(message: &ActiveMessage, now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH + message.arrival).unwrap_or_default()
}
