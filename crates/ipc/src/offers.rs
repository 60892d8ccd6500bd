//! Messages that were offered to qmgr before they were in the queue, and who waits for what becomes of each.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mail::QueueId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sys::descriptors::MOST_DESCRIPTORS;

use crate::frame;
use crate::queue_manager::{Answer, Fate};

/// From one commit to the next, at least, where more messages are expected to share it: each costs the disk and the
/// processors a good deal, and who waits here holds nobody up.
const INTERVAL: Duration = Duration::from_millis(4);

/// Makes all last that was changed until it is called, in the journal of the file system.
pub(crate) type Commit = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// What is said to who waits: the fate, which lasts; or why that is not known.
pub(crate) type Told = Result<Fate, String>;

/// Whoever waits.
pub(crate) struct Offers {
    waiting: Mutex<HashMap<QueueId, SyncSender<Told>>>,
    commit: Commit,
    /// Answers may have come that nobody looks at before a commit is done.
    commits: AtomicBool,
}

impl Offers {
    pub(crate) fn new(commit: Commit) -> Self {
        Self { waiting: Mutex::default(), commit, commits: AtomicBool::new(false) }
    }

    /// Somebody waits for this message from now on; `None` where so many wait that their files might not go with one call.
    pub(crate) fn expect(&self, id: QueueId) -> Option<Receiver<Told>> {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_DESCRIPTORS as usize {
            return None;
        }
        let (teller, told) = mpsc::sync_channel(1);
        waiting.insert(id, teller);
        Some(told)
    }

    /// What he is told, within this time. A disk that takes longer for a commit has its time: what it commits is delivered.
    pub(crate) fn wait(&self, id: QueueId, told: &Receiver<Told>, patience: Duration) -> Told {
        loop {
            match told.recv_timeout(patience) {
                Ok(told) => return told,
                Err(RecvTimeoutError::Disconnected) => return Ok(Fate::Kept),
                Err(RecvTimeoutError::Timeout) if self.commits.load(Ordering::Acquire) => {}
                Err(RecvTimeoutError::Timeout) if self.forget(id) => return Ok(Fate::Kept),
                // The answer is here, and waits for a commit that has not begun.
                Err(RecvTimeoutError::Timeout) => return told.recv().unwrap_or(Ok(Fate::Kept)),
            }
        }
    }

    /// He does not any more. `false`: the answer has come.
    pub(crate) fn forget(&self, id: QueueId) -> bool {
        self.waiting().remove(&id).is_some()
    }

    /// No answer will come: those who wait see to their files.
    pub(crate) fn give_up(&self) {
        self.waiting().clear();
    }

    /// Passes answers on until the connection ends: of what relies on a later commit, when one for all of it is done.
    pub(crate) fn listen(&self, socket: &UnixStream) {
        let _end = End { offers: self, socket };
        let mut receiver = frame::Receiver::of_conversation();
        let mut committed: Option<Instant> = None;
        let mut delivered = Vec::new();
        while let Ok(Some(answer)) = receiver.next_message(socket) {
            self.sort(answer, &mut delivered);
            let more_until = committed.map(|time| time + INTERVAL);
            while receiver.has_frame()
                || more_until.is_some_and(|time| self.more_before(time, &delivered, socket))
            {
                // The end shows itself again.
                let Ok(Some(answer)) = receiver.next_message(socket) else { break };
                self.sort(answer, &mut delivered);
            }
            if delivered.is_empty() {
                continue;
            }
            self.commits.store(true, Ordering::Release);
            let told = (self.commit)().map_err(|error| error.to_string());
            let told = told.map(|()| Fate::Delivered { relies_on_order: true });
            self.commits.store(false, Ordering::Release);
            committed = Some(Instant::now());
            for teller in delivered.drain(..) {
                // Who does not wait any more has seen to the file.
                let _ = teller.try_send(told.clone());
            }
        }
    }

    /// Tells who need not wait for a commit, and puts the others to those who do.
    fn sort(&self, answer: Answer, delivered: &mut Vec<SyncSender<Told>>) {
        let Some(teller) = self.waiting().remove(&answer.id) else { return };
        match answer.fate {
            Fate::Delivered { relies_on_order: true } => delivered.push(teller),
            fate => drop(teller.try_send(Ok(fate))),
        }
    }

    /// Waits for one more answer until this time, unless enough are there.
    fn more_before(&self, time: Instant, delivered: &[SyncSender<Told>], socket: &UnixStream) -> bool {
        let left = time.saturating_duration_since(Instant::now());
        if delivered.is_empty()
            || left.is_zero()
            || delivered.len() >= sharers(delivered.len() + self.waiting().len())
        {
            return false;
        }
        let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // Rounded up to whole milliseconds; an interruption is as good as the end of the time.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
        poll(&mut wanted, timeout).is_ok_and(|ready| ready > 0)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<QueueId, SyncSender<Told>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody listens any more, be it for a panic: nothing is said over this connection either.
struct End<'a> {
    offers: &'a Offers,
    socket: &'a UnixStream,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        self.offers.give_up();
    }
}

/// How many of so many messages share a commit before its time comes. Where there are many, all: they keep the processors
/// busy until then. Few would all stand still.
fn sharers(messages: usize) -> usize {
    const MANY: usize = 20;
    if messages < MANY { messages.div_ceil(3) } else { messages }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::SystemTime;

    use super::*;

    const IN_ORDER: Fate = Fate::Delivered { relies_on_order: true };
    const LASTING: Fate = Fate::Delivered { relies_on_order: false };

    /// What those are told who wait for so many messages when these answers come together.
    fn told(
        fates: &[Fate],
        commit: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Vec<Option<Told>> {
        let offers = Arc::new(Offers::new(Box::new(commit)));
        let (here, mut there) = UnixStream::pair().unwrap();
        let ids: Vec<QueueId> = fates.iter().map(|_| QueueId::generate(SystemTime::now())).collect();
        let waiting: Vec<Receiver<Told>> = ids.iter().map(|id| offers.expect(*id).unwrap()).collect();
        let unanswered = offers.expect(QueueId::generate(SystemTime::now())).unwrap();
        let mut answers = Vec::new();
        for (id, fate) in ids.into_iter().zip(fates) {
            frame::push_message(&mut answers, &Answer { id, fate: *fate }).unwrap();
        }
        there.write_all(&answers).unwrap();
        drop(there);
        offers.listen(&here);
        assert!(unanswered.recv().is_err(), "no answer will come");
        waiting.iter().map(|told| told.recv().ok()).collect()
    }

    #[test]
    fn one_commit_stands_for_all_that_is_delivered() {
        let commits = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&commits);
        let commit = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let fates = [IN_ORDER, Fate::Kept, IN_ORDER, IN_ORDER];
        assert_eq!(told(&fates, commit), fates.map(|fate| Some(Ok(fate))));
        assert_eq!(commits.load(Ordering::Relaxed), 1);
        let fates = [Fate::Kept, LASTING];
        assert_eq!(told(&fates, || unreachable!("nothing relies on it")), fates.map(|fate| Some(Ok(fate))));
    }

    #[test]
    fn a_connection_that_says_nonsense_is_closed() {
        let offers = Offers::new(Box::new(|| Ok(())));
        let (here, mut there) = UnixStream::pair().unwrap();
        let told = offers.expect(QueueId::generate(SystemTime::now())).unwrap();
        there.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        offers.listen(&here);
        assert!(told.recv().is_err() && (&here).write_all(b"x").is_err());
    }

    #[test]
    fn a_commit_that_fails_is_told_to_who_relies_on_it() {
        let commit = || Err(io::Error::other("the disk is gone"));
        let [delivered, kept] = &told(&[IN_ORDER, Fate::Kept], commit)[..] else { unreachable!() };
        assert_eq!(delivered, &Some(Err("the disk is gone".to_owned())));
        assert_eq!(kept, &Some(Ok(Fate::Kept)));
    }
}
