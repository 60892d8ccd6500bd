//! Messages that cleanup has offered before they were in the queue, and the connections by which it waits to hear what became of
//! them. What is delivered in a moment never has to be written to the disk in the queue; of everything else cleanup is told
//! that it stays, so that nobody waits for what takes long, and says when it has brought it into the queue.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::frame;
use ipc::log;
use ipc::outbox::Outbox;
use ipc::queue_manager::{Answer, Fate};
use mail::QueueId;

/// Nobody waits for a message with more recipients.
pub(crate) const MOST_RECIPIENTS: u32 = 50;

/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_millis(300);

/// Cleanup does nothing else than to read its answers where it is told: one that does not is stuck.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection of cleanup's, to which threads answer.
pub(crate) struct Asker {
    socket: UnixStream,
    outbox: Outbox,
}

impl Asker {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { socket, outbox: Outbox::default() })
    }

    /// Where its words come from.
    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Leaves an answer, which goes out with the next one that is sent.
    pub(crate) fn leave(&self, id: QueueId, fate: Fate) {
        // A few bytes always fit into a frame; who hears nothing syncs the message.
        let _ = self.outbox.leave(|out| frame::push_message(out, &Answer { id, fate }));
    }

    /// Sends what was left.
    pub(crate) fn send(&self) {
        if let Err(error) = self.outbox.say(|_| Ok(()), |words| (&self.socket).write_all(words)) {
            log::warning!(
                "connection to cleanup: {error}; what was delivered, and cleanup was not told so, may come again"
            );
            // One that is stuck is not waited for again.
            self.close();
        }
    }

    /// Closes it, whoever still has answers for it.
    pub(crate) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// What is lent: who waits, and what is on its way into the queue.
#[derive(Default)]
pub(crate) struct Offers {
    waiting: HashMap<QueueId, Waiting>,
    /// In the order of their offers; those for which nobody waits any more go when their turn comes.
    order: VecDeque<(Instant, QueueId)>,
    /// Those to whom answers were left.
    answered: Vec<Arc<Asker>>,
    /// Those that stay, and of which cleanup has not said that they are in the queue.
    kept: HashMap<QueueId, Arc<Asker>>,
}

/// A message that somebody waits for.
struct Waiting {
    asker: Arc<Asker>,
    /// A delivery of it lasts only when something later does.
    relies_on_order: bool,
}

impl Offers {
    pub(crate) fn add(&mut self, id: QueueId, asker: Arc<Asker>, now: Instant) {
        self.order.push_back((now + PATIENCE, id));
        self.waiting.insert(id, Waiting { asker, relies_on_order: false });
    }

    /// It is delivered in a way that relies on the order of a journal.
    pub(crate) fn rely_on_order(&mut self, id: QueueId) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.relies_on_order = true;
        }
    }

    /// This message is delivered: who waits is told with the next [`Offers::answer`]. `false`: nobody waits.
    pub(crate) fn deliver(&mut self, id: QueueId) -> bool {
        let Some(Waiting { asker, relies_on_order }) = self.waiting.remove(&id) else { return false };
        asker.leave(id, Fate::Delivered { relies_on_order });
        self.answered.push(asker);
        true
    }

    /// Sends the answers that were left.
    pub(crate) fn answer(&mut self) {
        // Cleanup has a connection or two.
        self.answered.dedup_by(|one, next| Arc::ptr_eq(one, next));
        self.answered.drain(..).for_each(|asker| asker.send());
    }

    /// This message stays for now.
    pub(crate) fn keep(&mut self, id: QueueId) {
        if let Some(Waiting { asker, .. }) = self.waiting.remove(&id) {
            asker.leave(id, Fate::Kept);
            asker.send();
            self.kept.insert(id, asker);
        }
    }

    /// All stay.
    pub(crate) fn keep_all(&mut self) {
        for (_, id) in std::mem::take(&mut self.order) {
            self.keep(id);
        }
    }

    /// Those stay that somebody has waited for for long enough.
    pub(crate) fn keep_overdue(&mut self, now: Instant) {
        while let Some((_, id)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            self.keep(id);
        }
    }

    /// When there may be such.
    pub(crate) fn next_overdue(&mut self) -> Option<Instant> {
        while self.order.pop_front_if(|(_, id)| !self.waiting.contains_key(id)).is_some() {}
        self.order.front().map(|(until, _)| *until)
    }

    /// Cleanup has brought it into the queue, or could not.
    pub(crate) fn settle(&mut self, id: QueueId) {
        self.waiting.remove(&id);
        self.kept.remove(&id);
    }

    /// Nothing more is heard from this one.
    pub(crate) fn leave(&mut self, gone: &Arc<Asker>) {
        self.waiting.retain(|_, waiting| !Arc::ptr_eq(&waiting.asker, gone));
        self.kept.retain(|_, asker| !Arc::ptr_eq(asker, gone));
    }

    /// Whether all that stays is in the queue.
    pub(crate) fn are_settled(&self) -> bool {
        self.waiting.is_empty() && self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use ipc::frame::Receiver;

    use super::*;

    #[test]
    fn who_waits_is_told_once_and_of_each_message() {
        let (here, there) = UnixStream::pair().unwrap();
        let asker = Arc::new(Asker::new(here).unwrap());
        let ids: Vec<QueueId> = (0..5).map(|_| QueueId::generate(SystemTime::now())).collect();
        let (mut offers, now) = (Offers::default(), Instant::now());
        for (number, id) in (0..).zip(&ids) {
            offers.add(*id, Arc::clone(&asker), now + Duration::from_secs(number));
        }
        offers.rely_on_order(ids[0]);
        assert!(offers.deliver(ids[0]) && !offers.deliver(ids[0]));
        offers.answer();
        offers.keep(ids[0]);
        offers.keep(ids[1]);
        offers.keep(ids[1]);
        assert_eq!(offers.next_overdue(), Some(now + Duration::from_secs(2) + PATIENCE));
        offers.keep_overdue(now + Duration::from_secs(2) + PATIENCE);
        assert_eq!(offers.next_overdue(), Some(now + Duration::from_secs(3) + PATIENCE));
        offers.keep_all();
        assert_eq!(offers.next_overdue(), None);
        ids[1..4].iter().for_each(|id| offers.settle(*id));
        assert!(!offers.are_settled());
        offers.leave(&asker);
        assert!(offers.are_settled());
        drop((offers, asker));
        let mut receiver = Receiver::new();
        let mut told: Vec<(QueueId, Fate)> = Vec::new();
        while let Some(Answer { id, fate }) = receiver.next_message(&there).unwrap() {
            told.push((id, fate));
        }
        let delivered = (ids[0], Fate::Delivered { relies_on_order: true });
        let kept = ids[1..].iter().map(|id| (*id, Fate::Kept));
        assert_eq!(told, std::iter::once(delivered).chain(kept).collect::<Vec<_>>());
    }
}
