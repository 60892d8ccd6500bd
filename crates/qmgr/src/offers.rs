//! Messages that cleanup has offered before they were synced, and the connections by which it waits to hear what became of
//! them. What is delivered and removed in a moment never has to be written to the disk in the queue; of everything else
//! cleanup is told at once that it stays, so that nobody waits for what takes long.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ipc::frame;
use ipc::outbox::Outbox;
use ipc::queue_manager::{Answer, Fate};
use mail::QueueId;

/// Nobody waits for a message with more recipients.
pub(crate) const MOST_RECIPIENTS: u32 = 50;

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
        if self.outbox.say(|_| Ok(()), |words| (&self.socket).write_all(words)).is_err() {
            // One that is gone waits for nothing, and one that is stuck is not waited for again.
            self.close();
        }
    }

    /// Closes it, whoever still has answers for it.
    pub(crate) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Whoever waits.
#[derive(Default)]
pub(crate) struct Offers(HashMap<QueueId, Arc<Asker>>);

impl Offers {
    pub(crate) fn add(&mut self, id: QueueId, asker: Arc<Asker>) {
        self.0.insert(id, asker);
    }

    /// Who waits for this message, and from now on does so elsewhere.
    pub(crate) fn take(&mut self, id: QueueId) -> Option<Arc<Asker>> {
        self.0.remove(&id)
    }

    /// This message stays for now.
    pub(crate) fn keep(&mut self, id: QueueId) {
        if let Some(asker) = self.take(id) {
            asker.leave(id, Fate::Kept);
            asker.send();
        }
    }

    /// All stay.
    pub(crate) fn keep_all(&mut self) {
        for (id, asker) in self.0.drain() {
            asker.leave(id, Fate::Kept);
            asker.send();
        }
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
        let ids: Vec<QueueId> = (0..4).map(|_| QueueId::generate(SystemTime::now())).collect();
        let mut offers = Offers::default();
        ids.iter().for_each(|id| offers.add(*id, Arc::clone(&asker)));
        let taken = offers.take(ids[0]).unwrap();
        taken.leave(ids[0], Fate::Removed);
        offers.keep(ids[0]);
        offers.keep(ids[1]);
        offers.keep(ids[1]);
        offers.keep_all();
        drop((offers, asker, taken));
        let mut receiver = Receiver::new();
        let mut told: Vec<(QueueId, Fate)> = Vec::new();
        while let Some(Answer { id, fate }) = receiver.next_message(&there).unwrap() {
            told.push((id, fate));
        }
        assert_eq!(told[..2], [(ids[0], Fate::Removed), (ids[1], Fate::Kept)]);
        told.drain(..2);
        told.sort_by_key(|(id, _)| ids.iter().position(|known| known == id));
        assert_eq!(told, [(ids[2], Fate::Kept), (ids[3], Fate::Kept)]);
    }
}
