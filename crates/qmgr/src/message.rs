//! A message that is being delivered: what is still undecided, what must be reported, what comes after. No I/O.

use std::fs::File;
use std::sync::Arc;

use ipc::agent::{Request, RequestRecipient};
use ipc::bounce::Kind;
use mail::{Notify, Outcome, Status};
use queue::RecipientState;

/// A message in `active/`.
pub(crate) struct ActiveMessage {
    /// The queue file, for agents to read.
    pub(crate) file: Arc<File>,
    /// The request to an agent but for its recipients and its next hop.
    pub(crate) template: Request,
    /// The recipients of the slice that is being delivered.
    pub(crate) recipients: Vec<RequestRecipient>,
    /// How many recipients the message has, in all.
    pub(crate) total: u32,
    /// The number of the first recipient behind the slice.
    pub(crate) next_slice: Option<u32>,
    /// The operator wants it given up (`postsuper -e`).
    pub(crate) forced_to_expire: bool,
    undecided: usize,
    deferred: Vec<u32>,
    bounced: Vec<u32>,
    delivered: Vec<u32>,
}

/// What has to be written about a recipient's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The new state, where it changes.
    pub(crate) state: Option<RecipientState>,
    /// Whether the journal keeps the outcome.
    pub(crate) journal: bool,
}

/// What comes next for a message whose recipients are all decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Deliver to more of its recipients.
    Slice(u32),
    /// Have a report written.
    Report(Kind, Vec<u32>),
    /// Try the rest again later.
    Defer,
    /// Nothing is owed to anybody.
    Remove,
}

impl ActiveMessage {
    pub(crate) fn new(file: Arc<File>, template: Request, total: u32, forced_to_expire: bool) -> Self {
        Self {
            file,
            template,
            recipients: Vec::new(),
            total,
            next_slice: None,
            forced_to_expire,
            undecided: 0,
            deferred: Vec::new(),
            bounced: Vec::new(),
            delivered: Vec::new(),
        }
    }

    /// Takes the next slice of recipients on. Those that only wait for a report are noted as such.
    pub(crate) fn take_slice(&mut self, slice: crate::disk::Slice) {
        self.undecided = slice.recipients.len();
        self.recipients = slice.recipients;
        self.next_slice = slice.next;
        self.bounced.extend(slice.unreported_failures);
        self.delivered.extend(slice.unreported_successes);
    }

    /// Notes what became of the recipient with this number, and says what must be written about it.
    pub(crate) fn decide(&mut self, index: u32, outcome: &Outcome, notify: Notify) -> Record {
        self.undecided = self.undecided.saturating_sub(1);
        // The last or only recipient of a message that is removed next: its state would be written for nobody.
        let alone = self.total == 1;
        match outcome.status {
            Status::Sent if notify.contains(Notify::SUCCESS) => {
                self.delivered.push(index);
                Record { state: Some(RecipientState::Delivered), journal: true }
            }
            Status::Sent => Record { state: (!alone).then_some(RecipientState::Done), journal: false },
            Status::Deferred => {
                self.deferred.push(index);
                Record { state: None, journal: true }
            }
            Status::Bounced => {
                self.bounced.push(index);
                Record { state: Some(RecipientState::Bounced), journal: true }
            }
        }
    }

    /// Whether all recipients of the slice are decided.
    pub(crate) fn is_decided(&self) -> bool {
        self.undecided == 0
    }

    /// What comes next once all are decided. `expired`: what could not be delivered until now is given up.
    pub(crate) fn next(&mut self, expired: bool) -> Next {
        if let Some(slice) = self.next_slice.take() {
            return Next::Slice(slice);
        }
        if expired || self.forced_to_expire {
            self.bounced.append(&mut self.deferred);
        }
        if !self.bounced.is_empty() {
            return Next::Report(Kind::Failure, std::mem::take(&mut self.bounced));
        }
        if !self.delivered.is_empty() {
            return Next::Report(Kind::Success, std::mem::take(&mut self.delivered));
        }
        if self.deferred.is_empty() { Next::Remove } else { Next::Defer }
    }

    /// Takes back what [`ActiveMessage::next`] asked to report: it is asked again.
    pub(crate) fn put_back_report(&mut self, kind: Kind, recipients: Vec<u32>) {
        match kind {
            Kind::Failure => self.bounced = recipients,
            Kind::Success => self.delivered = recipients,
            Kind::Delay | Kind::Trace => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mail::{Address, Body, Client, Dsn, QueueId};

    use super::*;
    use crate::disk::Slice;

    fn message(total: u32) -> ActiveMessage {
        let template = Request {
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
            trace: mail::Trace::default(),
            client: Client::default(),
            recipients: Vec::new(),
        };
        let mut message =
            ActiveMessage::new(Arc::new(File::open("/dev/null").unwrap()), template, total, false);
        let recipients = (0..total).map(|index| RequestRecipient {
            index,
            address: Address::null(),
            original: None,
            notify: Notify::UNSET,
            orcpt: None,
        });
        message.take_slice(Slice { recipients: recipients.collect(), ..Slice::default() });
        message
    }

    fn outcomes() -> [Outcome; 3] {
        let dsn = Dsn::new(4, 2, 0);
        [Outcome::sent("x", "ok"), Outcome::deferred("x", dsn, "later"), Outcome::bounced("x", dsn, "never")]
    }

    #[test]
    fn a_delivered_message_with_one_recipient_costs_no_write() {
        let mut message = message(1);
        let record = message.decide(0, &outcomes()[0], Notify::UNSET);
        assert_eq!(record, Record { state: None, journal: false });
        assert!(message.is_decided());
        assert_eq!(message.next(false), Next::Remove);
    }

    #[test]
    fn failures_are_reported_before_the_rest_is_deferred() {
        let mut message = message(3);
        for (index, outcome) in (0..).zip(&outcomes()) {
            assert!(!message.is_decided());
            message.decide(index, outcome, Notify::UNSET);
        }
        assert_eq!(message.next(false), Next::Report(Kind::Failure, vec![2]));
        assert_eq!(message.next(false), Next::Defer);
    }

    #[test]
    fn an_expired_message_is_reported_and_removed() {
        let mut message = message(1);
        message.decide(0, &outcomes()[1], Notify::UNSET);
        assert_eq!(message.next(true), Next::Report(Kind::Failure, vec![0]));
        assert_eq!(message.next(true), Next::Remove);
    }

    #[test]
    fn success_is_reported_to_who_asked() {
        let mut message = message(1);
        message.decide(0, &outcomes()[0], Notify::SUCCESS);
        assert_eq!(message.next(false), Next::Report(Kind::Success, vec![0]));
        assert_eq!(message.next(false), Next::Remove);
    }
}
