//! Messages that cleanup has offered before they had a name and were synced, and the connections by which it waits to hear what
//! became of them. What is delivered in a moment never has to be written to the disk in the queue, nor to have a name there;
//! everything else is given its name by a disk thread, which tells cleanup that it stays, so that nobody waits for what takes
//! long.

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

use crate::disk::{Disk, Job};

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

    /// This message stays for now: who waits is told so when it has its name.
    pub(crate) fn keep(&mut self, id: QueueId, disk: &Disk) {
        if let Some(asker) = self.take(id) {
            disk.ask(Job::Name { id, file: None, asker: Some(asker) });
        }
    }

    /// All stay.
    pub(crate) fn keep_all(&mut self, disk: &Disk) {
        for (id, asker) in self.0.drain() {
            disk.ask(Job::Name { id, file: None, asker: Some(asker) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use ipc::frame::Receiver;

    use super::*;

    #[test]
    fn answers_that_were_left_go_out_together_and_once() {
        let (here, there) = UnixStream::pair().unwrap();
        let asker = Arc::new(Asker::new(here).unwrap());
        let ids: Vec<QueueId> = (0..2).map(|_| QueueId::generate(SystemTime::now())).collect();
        let mut offers = Offers::default();
        ids.iter().for_each(|id| offers.add(*id, Arc::clone(&asker)));
        offers.take(ids[0]).unwrap().leave(ids[0], Fate::Delivered);
        assert!(offers.take(ids[0]).is_none());
        offers.take(ids[1]).unwrap().leave(ids[1], Fate::Kept);
        asker.send();
        asker.send();
        drop(asker);
        let mut receiver = Receiver::new();
        let mut told = Vec::new();
        while let Some(Answer { id, fate }) = receiver.next_message(&there).unwrap() {
            told.push((id, fate));
        }
        assert_eq!(told, [(ids[0], Fate::Delivered), (ids[1], Fate::Kept)]);
    }
}
