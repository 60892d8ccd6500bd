//! A message that is being delivered: what is still undecided, what must be reported, what comes after. No I/O.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipc::agent::Request;
use ipc::bounce::Kind;
use ipc::frame;
use mail::{Notify, Outcome, Served, Status, Trace};
use queue::RecipientState;

use crate::scheduler::Site;

/// A message that is being delivered.
///
/// Most of the thousands that there may be wait, so that each takes little: its request lies packed until a delivery
/// begins, and what only few have is in [`Owed`].
pub(crate) struct ActiveMessage {
    /// The queue file, for agents to read.
    pub(crate) file: Arc<File>,
    /// The request to an agent but for its recipients and its next hop, as it goes over the wire.
    request: Box<[u8]>,
    /// When it arrived, since the Unix epoch.
    pub(crate) arrival: Duration,
    /// Whether the sender is told of each step.
    pub(crate) trace: Trace,
    /// Nobody sent it: it is a notification.
    pub(crate) has_null_sender: bool,
    /// How many recipients the message has, in all.
    total: u32,
    flags: Flags,
    /// Somebody wants this attempt made.
    asked_for: bool,
    /// Recipients that were read and are undecided.
    undecided: usize,
    /// How many of them there were when the last slice came.
    slice: usize,
    next_slice: NextSlice,
    /// When those that were put off are tried next.
    next_attempt: Option<SystemTime>,
    /// What most messages never have.
    owed: Option<Box<Owed>>,
}

/// Recipients with whom it does not end when they are decided, by number.
#[derive(Default)]
struct Owed {
    deferred: Vec<u32>,
    bounced: Vec<u32>,
    /// Whose success is to be told, and whose expansion, whatever came after it.
    succeeded: Vec<u32>,
    /// Those of `deferred` whose expansion is to be told when they are given up.
    expanded: Vec<u32>,
    /// All that were decided, where the sender wants to be told of each.
    traced: Vec<u32>,
    /// The destinations for whose sake recipients were put off.
    waits_for: Vec<Site>,
}

/// What the queue file says of a message when it is taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// The operator wants it given up (`postsuper -e`).
    pub(crate) forced_to_expire: bool,
    /// The sender was told that it is late.
    pub(crate) delay_reported: bool,
    /// It was tried before.
    pub(crate) tried_before: bool,
}

/// The recipients behind the slice that is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextSlice {
    /// There are none.
    None,
    /// They begin with this number.
    From(u32),
    /// They are being read.
    Reading,
}

/// What has to be written about a recipient's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The new state, where it changes.
    pub(crate) state: Option<RecipientState>,
    /// Whether the journal keeps the outcome.
    pub(crate) journal: bool,
}

/// How a message stands in time when its recipients are all decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Age {
    /// What could not be delivered until now is given up.
    pub(crate) expired: bool,
    /// The sender is to be told, if that was not done.
    pub(crate) late: bool,
}

/// What comes next for a message whose recipients are all decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Have a report written.
    Report(Kind, Vec<u32>),
    /// Say that it is given up, and go on.
    Expire,
    /// Try the rest again later.
    Defer,
    /// Nothing is owed to anybody.
    Remove,
}

impl ActiveMessage {
    pub(crate) fn new(file: Arc<File>, request: &Request, total: u32, flags: Flags) -> Self {
        Self {
            file,
            // What cannot be packed is an error when it is unpacked.
            request: frame::encode(request).unwrap_or_default().into(),
            arrival: request.arrival,
            trace: request.trace,
            has_null_sender: request.sender.is_null(),
            total,
            flags,
            asked_for: false,
            undecided: 0,
            slice: 0,
            next_slice: NextSlice::None,
            next_attempt: None,
            owed: None,
        }
    }

    /// The request to an agent but for its recipients and its next hop.
    ///
    /// # Errors
    /// None that is known of: it was packed here.
    pub(crate) fn request(&self) -> io::Result<Request> {
        frame::decode(&self.request)
    }

    fn owe(&mut self) -> &mut Owed {
        self.owed.get_or_insert_default()
    }

    /// Somebody wants this attempt made: `defer_transports` does not hold it back.
    pub(crate) fn ask_for(&mut self) {
        self.asked_for = true;
    }

    /// Whether somebody wants this attempt made.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.asked_for
    }

    /// The operator wants it given up.
    pub(crate) fn is_forced_to_expire(&self) -> bool {
        self.flags.forced_to_expire
    }

    /// Takes the next slice of recipients on: so many to deliver to, and those that only wait for a report.
    pub(crate) fn take_slice(
        &mut self,
        recipients: usize,
        failures: Vec<u32>,
        successes: Vec<u32>,
        next: Option<u32>,
    ) {
        self.undecided += recipients;
        self.slice = self.undecided;
        self.next_slice = next.map_or(NextSlice::None, NextSlice::From);
        if !failures.is_empty() || !successes.is_empty() {
            let owed = self.owe();
            owed.bounced.extend(failures);
            owed.succeeded.extend(successes);
        }
    }

    /// The number from which more recipients are to be read now, if it is time for that.
    pub(crate) fn wants_slice(&mut self) -> Option<u32> {
        // Half of the slice is a store for the time that reading takes.
        let NextSlice::From(from) = self.next_slice else { return None };
        if self.undecided > self.slice / 2 {
            return None;
        }
        self.next_slice = NextSlice::Reading;
        Some(from)
    }

    /// Notes what became of the recipient with this number, and says what must be written about it.
    pub(crate) fn decide(&mut self, index: u32, outcome: &Outcome, notify: Notify) -> Record {
        self.undecided = self.undecided.saturating_sub(1);
        let is_traced = self.is_traced();
        if is_traced {
            self.owe().traced.push(index);
        }
        if self.trace.is_probe() {
            return Record { state: None, journal: true };
        }
        // The last or only recipient of a message that is removed next: its state would be written for nobody.
        let alone = self.total == 1 && !is_traced;
        // What an alias stands for was found, whether or not it can be delivered to (RFC 3461 section 5.2.7.3).
        let is_expanded = outcome.served == Served::Expanded && notify.contains(Notify::SUCCESS);
        match outcome.status {
            Status::Sent if notify.contains(Notify::SUCCESS) => {
                self.owe().succeeded.push(index);
                Record { state: Some(RecipientState::Delivered), journal: true }
            }
            Status::Sent => Record { state: (!alone).then_some(RecipientState::Done), journal: is_traced },
            Status::Deferred => {
                let owed = self.owe();
                owed.deferred.push(index);
                owed.expanded.extend(is_expanded.then_some(index));
                Record { state: None, journal: true }
            }
            Status::Bounced => {
                let owed = self.owe();
                owed.bounced.push(index);
                owed.succeeded.extend(is_expanded.then_some(index));
                Record { state: Some(RecipientState::Bounced), journal: true }
            }
        }
    }

    /// Whether the sender is told what comes of this attempt.
    fn is_traced(&self) -> bool {
        match self.trace {
            Trace::None => false,
            Trace::Deliveries => !self.flags.tried_before,
            Trace::Probe | Trace::Verification => true,
        }
    }

    /// Whether a recipient's success is to be told for the delay's sake: `confirm_delay_cleared`, to who was told of
    /// the delay.
    pub(crate) fn was_told_of_delay(&self, notify: Notify) -> bool {
        self.flags.delay_reported && (notify == Notify::UNSET || notify.contains(Notify::DELAY))
    }

    /// Notes that recipients were put off because of this destination.
    pub(crate) fn waits_for(&mut self, site: &Site) {
        let sites = &mut self.owe().waits_for;
        if !sites.contains(site) {
            sites.push(site.clone());
        }
    }

    /// The destinations for whose sake recipients were put off.
    pub(crate) fn waiting_for(&self) -> &[Site] {
        self.owed.as_ref().map_or(&[], |owed| &owed.waits_for)
    }

    /// When those that were put off are tried next; `planned` if that was not said, or is over.
    pub(crate) fn next_attempt(
        &mut self,
        now: SystemTime,
        planned: impl FnOnce() -> SystemTime,
    ) -> SystemTime {
        let next = self.next_attempt.filter(|time| *time > now).unwrap_or_else(planned);
        self.next_attempt = Some(next);
        next
    }

    /// Puts the next attempt off until then, at least.
    pub(crate) fn not_before(&mut self, time: SystemTime) {
        self.next_attempt = self.next_attempt.max(Some(time));
    }

    /// Whether all recipients are decided.
    pub(crate) fn is_decided(&self) -> bool {
        self.undecided == 0 && self.next_slice == NextSlice::None
    }

    /// Recipients that are in memory for its sake.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided
    }

    /// What comes next once all are decided.
    pub(crate) fn next(&mut self, age: Age) -> Next {
        let Some(owed) = &mut self.owed else { return Next::Remove };
        if self.trace.is_probe() {
            return owed.take_trace().unwrap_or(Next::Remove);
        }
        if age.expired && !owed.deferred.is_empty() && !self.flags.forced_to_expire {
            owed.give_up();
            return Next::Expire;
        }
        if self.flags.forced_to_expire {
            owed.give_up();
        }
        if !owed.bounced.is_empty() {
            return Next::Report(Kind::Failure, std::mem::take(&mut owed.bounced));
        }
        if !owed.succeeded.is_empty() {
            return Next::Report(Kind::Success, std::mem::take(&mut owed.succeeded));
        }
        if let Some(trace) = owed.take_trace() {
            return trace;
        }
        if owed.deferred.is_empty() {
            return Next::Remove;
        }
        if age.late && !self.flags.delay_reported {
            return Next::Report(Kind::Delay, owed.deferred.clone());
        }
        Next::Defer
    }

    /// Those whose success or expansion is still to be told.
    pub(crate) fn unreported_successes(&self) -> HashSet<u32> {
        self.owed.iter().flat_map(|owed| owed.succeeded.iter().copied()).collect()
    }

    /// Takes back what [`ActiveMessage::next`] asked to report: it is asked again.
    pub(crate) fn put_back_report(&mut self, kind: Kind, recipients: Vec<u32>) {
        match kind {
            Kind::Failure => self.owe().bounced = recipients,
            Kind::Success => self.owe().succeeded = recipients,
            Kind::Trace => self.owe().traced = recipients,
            Kind::Delay => {}
        }
    }

    /// Notes that the sender knows of the delay.
    pub(crate) fn note_delay_reported(&mut self) {
        self.flags.delay_reported = true;
    }
}

impl Owed {
    fn give_up(&mut self) {
        self.bounced.append(&mut self.deferred);
        self.succeeded.append(&mut self.expanded);
    }

    fn take_trace(&mut self) -> Option<Next> {
        let traced = std::mem::take(&mut self.traced);
        (!traced.is_empty()).then_some(Next::Report(Kind::Trace, traced))
    }
}

#[cfg(test)]
mod tests {
    use mail::{Address, Body, Client, Dsn, QueueId};

    use super::*;

    const YOUNG: Age = Age { expired: false, late: false };
    const LATE: Age = Age { expired: false, late: true };
    const EXPIRED: Age = Age { expired: true, late: true };

    fn message(total: u32) -> ActiveMessage {
        traced(total, Trace::None, Flags::default())
    }

    fn traced(total: u32, trace: Trace, flags: Flags) -> ActiveMessage {
        let request = Request {
            delivery: 0,
            id: "4hLv2p4lmqz5Bj".parse::<QueueId>().unwrap(),
            nexthop: String::new(),
            sender: Address::null(),
            arrival: Duration::ZERO,
            active_since: Duration::ZERO,
            size: 1,
            envid: None,
            ret: None,
            body: Body::default(),
            smtputf8: false,
            trace,
            client: Client::default(),
            first_id: None,
            is_local: true,
            recipients: Vec::new(),
        };
        let file = Arc::new(File::open("/dev/null").unwrap());
        let mut message = ActiveMessage::new(file, &request, total, flags);
        message.take_slice(usize::try_from(total).unwrap(), vec![], vec![], None);
        message
    }

    fn outcomes() -> [Outcome; 3] {
        let dsn = Dsn::new(4, 2, 0);
        [Outcome::sent("x", "ok"), Outcome::deferred("x", dsn, "later"), Outcome::bounced("x", dsn, "never")]
    }

    #[test]
    fn a_message_that_waits_is_small() {
        let message = message(1);
        assert!(size_of_val(&message) <= 136 && message.request.len() <= 128 && message.owed.is_none());
    }

    #[test]
    fn a_delivered_message_with_one_recipient_costs_no_write() {
        let mut message = message(1);
        let record = message.decide(0, &outcomes()[0], Notify::UNSET);
        assert_eq!(record, Record { state: None, journal: false });
        assert!(message.is_decided());
        assert_eq!(message.next(YOUNG), Next::Remove);
    }

    #[test]
    fn failures_are_reported_before_the_rest_is_deferred() {
        let mut message = message(3);
        for (index, outcome) in (0..).zip(&outcomes()) {
            assert!(!message.is_decided());
            message.decide(index, outcome, Notify::UNSET);
        }
        assert_eq!(message.next(YOUNG), Next::Report(Kind::Failure, vec![2]));
        assert_eq!(message.next(YOUNG), Next::Defer);
    }

    #[test]
    fn an_expired_message_is_reported_and_removed() {
        let mut message = message(1);
        message.decide(0, &outcomes()[1], Notify::UNSET);
        assert_eq!(message.next(EXPIRED), Next::Expire);
        assert_eq!(message.next(EXPIRED), Next::Report(Kind::Failure, vec![0]));
        assert_eq!(message.next(EXPIRED), Next::Remove);
    }

    #[test]
    fn an_expansion_is_reported_whatever_comes_after_it() {
        let [_, later, never] = outcomes().map(|outcome| outcome.counted_as(Served::Expanded));
        let mut failed = message(2);
        failed.decide(0, &never, Notify::SUCCESS);
        failed.decide(1, &never, Notify::FAILURE);
        assert_eq!(failed.next(YOUNG), Next::Report(Kind::Failure, vec![0, 1]));
        assert!(failed.unreported_successes().contains(&0));
        assert_eq!(failed.next(YOUNG), Next::Report(Kind::Success, vec![0]));
        assert_eq!(failed.next(YOUNG), Next::Remove);
        let mut late = message(1);
        late.decide(0, &later, Notify::SUCCESS);
        assert_eq!(late.next(YOUNG), Next::Defer);
        assert_eq!(late.next(EXPIRED), Next::Expire);
        assert_eq!(late.next(EXPIRED), Next::Report(Kind::Failure, vec![0]));
        assert_eq!(late.next(EXPIRED), Next::Report(Kind::Success, vec![0]));
    }

    #[test]
    fn success_is_reported_to_who_asked() {
        let mut message = message(1);
        message.decide(0, &outcomes()[0], Notify::SUCCESS);
        assert_eq!(message.next(YOUNG), Next::Report(Kind::Success, vec![0]));
        assert_eq!(message.next(YOUNG), Next::Remove);
    }

    #[test]
    fn a_delay_is_reported_once() {
        let mut message = message(2);
        message.decide(0, &outcomes()[1], Notify::UNSET);
        message.decide(1, &outcomes()[0], Notify::UNSET);
        assert_eq!(message.next(LATE), Next::Report(Kind::Delay, vec![0]));
        message.note_delay_reported();
        assert_eq!(message.next(LATE), Next::Defer);
        assert!(message.was_told_of_delay(Notify::UNSET) && !message.was_told_of_delay(Notify::NEVER));
    }

    #[test]
    fn a_probe_is_reported_on_and_removed_whatever_came_of_it() {
        let mut message = traced(2, Trace::Probe, Flags::default());
        message.decide(0, &outcomes()[1], Notify::UNSET);
        message.decide(1, &outcomes()[2], Notify::UNSET);
        assert_eq!(message.next(EXPIRED), Next::Report(Kind::Trace, vec![0, 1]));
        assert_eq!(message.next(EXPIRED), Next::Remove);
    }

    #[test]
    fn the_first_attempt_is_traced_and_no_later_one() {
        let mut message = traced(1, Trace::Deliveries, Flags::default());
        message.decide(0, &outcomes()[1], Notify::UNSET);
        assert_eq!(message.next(YOUNG), Next::Report(Kind::Trace, vec![0]));
        assert_eq!(message.next(YOUNG), Next::Defer);
        let mut later = traced(1, Trace::Deliveries, Flags { tried_before: true, ..Flags::default() });
        assert_eq!(later.decide(0, &outcomes()[0], Notify::UNSET), Record { state: None, journal: false });
        assert_eq!(later.next(YOUNG), Next::Remove);
    }

    #[test]
    fn more_recipients_are_read_when_half_are_decided() {
        let mut message = message(4);
        message.take_slice(0, vec![], vec![], Some(4));
        assert_eq!(message.wants_slice(), None);
        for index in 0..2 {
            message.decide(index, &outcomes()[0], Notify::UNSET);
        }
        assert_eq!(message.wants_slice(), Some(4));
        assert_eq!(message.wants_slice(), None);
        for index in 2..4 {
            message.decide(index, &outcomes()[0], Notify::UNSET);
        }
        assert!(!message.is_decided());
        message.take_slice(0, vec![], vec![], None);
        assert!(message.is_decided());
    }

    #[test]
    fn what_is_put_off_keeps_its_time() {
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        let mut message = message(2);
        assert_eq!(message.next_attempt(now, || now + second), now + second);
        assert_eq!(message.next_attempt(now, || now + 5 * second), now + second);
        message.not_before(now + 3 * second);
        assert_eq!(message.next_attempt(now, || now), now + 3 * second);
        assert_eq!(message.next_attempt(now + 4 * second, || now + 9 * second), now + 9 * second);
    }
}
