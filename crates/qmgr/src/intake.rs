//! Which messages are taken up, and in which order, while `active/` has room. No I/O.

use std::collections::{HashSet, VecDeque};

use mail::QueueId;

/// Why a message is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Cleanup has told of it: what was synced a moment ago needs no proof. All others are compared with their checksum.
    Arrived,
    /// A scan found it.
    Found,
    /// Its time has come.
    Due,
    /// An operator or a client wants it tried, whatever `defer_transports` says.
    Asked,
}

/// Messages that wait for room. One that is there is there once, however often it is named.
#[derive(Default)]
pub(crate) struct Intake {
    backlog: VecDeque<(QueueId, Reason)>,
    waiting: HashSet<QueueId>,
    /// Whose turn it is: mail that is due again, or mail that has just come.
    due_is_next: bool,
}

impl Intake {
    pub(crate) fn push(&mut self, id: QueueId, reason: Reason) {
        if self.waiting.insert(id) {
            self.backlog.push_back((id, reason));
        }
    }

    /// The next message: one that has just come and one that is due again, in turns, so that neither holds back the
    /// other.
    pub(crate) fn next(
        &mut self,
        due: impl FnOnce() -> Option<(QueueId, Reason)>,
    ) -> Option<(QueueId, Reason)> {
        self.due_is_next = !self.due_is_next;
        if self.due_is_next { self.pop().or_else(due) } else { due().or_else(|| self.pop()) }
    }

    /// Everything that waits is asked for.
    pub(crate) fn flush(&mut self) {
        self.backlog.iter_mut().for_each(|(_, reason)| *reason = Reason::Asked);
    }

    fn pop(&mut self) -> Option<(QueueId, Reason)> {
        let next = self.backlog.pop_front()?;
        self.waiting.remove(&next.0);
        Some(next)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.backlog.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn mail_that_comes_and_mail_that_is_due_take_turns() {
        let id = || QueueId::generate(SystemTime::now());
        let (first, second, due) = (id(), id(), id());
        let mut intake = Intake::default();
        for id in [first, second, first] {
            intake.push(id, Reason::Arrived);
        }
        assert_eq!(intake.len(), 2);
        assert_eq!(intake.next(|| Some((due, Reason::Due))), Some((first, Reason::Arrived)));
        assert_eq!(intake.next(|| Some((due, Reason::Due))), Some((due, Reason::Due)));
        intake.flush();
        assert_eq!(intake.next(|| None), Some((second, Reason::Asked)));
        assert_eq!(intake.next(|| Some((due, Reason::Due))), Some((due, Reason::Due)));
        assert_eq!(intake.next(|| None), None);
    }
}
