//! One sync for all threads that wait for one of the same thing.
//!
//! Contract: [`SharedSync::sync`] returns success only after a sync that *began* after it was called. A thread that finds
//! one under way waits for the next, which it or another waiter performs for all of them.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;

/// The syncs of one thing: a folder, a journal.
#[derive(Debug)]
pub struct SharedSync {
    /// From the end of one sync to the beginning of the next, while more threads are expected to join.
    interval: Duration,
    rounds: Mutex<Rounds>,
    /// Who leads a round waits here for more to join.
    gathered: Condvar,
    /// By turns, those who wait for a round, and those who wait for the next.
    ended: [Condvar; 2],
}

#[derive(Debug, Default)]
struct Rounds {
    /// How many syncs have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
    /// Threads that wait for the next one to begin, and whether one of them is at it.
    waiting: usize,
    led: bool,
    last_end: Option<Instant>,
    /// The latest round that failed, and how.
    failed: Option<(u64, i32)>,
}

impl SharedSync {
    /// Syncs that lie so far apart, where more threads are expected.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, rounds: Mutex::default(), gathered: Condvar::new(), ended: Default::default() }
    }

    /// Waits for a sync, which `perform` does. `is_last`: whether nobody is expected to join who are so many.
    ///
    /// # Errors
    /// What `perform` says to the one of them who calls it.
    pub fn sync(
        &self,
        is_last: impl Fn(usize) -> bool,
        perform: impl Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut rounds = self.lock();
        // A round that has begun may have passed what the caller changed already: the next one counts.
        let wanted = rounds.begun + 1;
        rounds.waiting += 1;
        if rounds.led && is_last(rounds.waiting) {
            self.gathered.notify_one();
        }
        while rounds.ended < wanted {
            if rounds.led || rounds.begun > rounds.ended {
                let ended = &self.ended[parity(wanted)];
                rounds = ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
            } else {
                rounds = self.lead(rounds, &is_last, &perform);
            }
        }
        match rounds.failed {
            Some((round, error)) if round >= wanted => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        }
    }

    /// Waits for more to join, and performs the next round.
    fn lead<'a>(
        &'a self,
        mut rounds: MutexGuard<'a, Rounds>,
        is_last: impl Fn(usize) -> bool,
        perform: impl Fn() -> io::Result<()>,
    ) -> MutexGuard<'a, Rounds> {
        rounds.led = true;
        let pause = rounds.last_end.and_then(|end| self.interval.checked_sub(end.elapsed()));
        if let Some(pause) = pause {
            let more = |rounds: &mut Rounds| !is_last(rounds.waiting);
            let waited = self.gathered.wait_timeout_while(rounds, pause, more);
            rounds = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        rounds.begun += 1;
        (rounds.led, rounds.waiting) = (false, 0);
        let round = rounds.begun;
        drop(rounds);
        let result = perform();
        let mut rounds = self.lock();
        (rounds.ended, rounds.last_end) = (round, Some(Instant::now()));
        if let Err(error) = result {
            rounds.failed = Some((round, error.raw_os_error().unwrap_or(libc::EIO)));
        }
        self.ended[parity(round)].notify_all();
        // One of those who came meanwhile leads the next.
        self.ended[parity(round + 1)].notify_one();
        rounds
    }

    fn lock(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parity(round: u64) -> usize {
    usize::from(!round.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_sync_begins_after_who_waits_for_it_has_come_and_is_shared() {
        for interval in [Duration::ZERO, Duration::from_millis(1)] {
            let sync = SharedSync::new(interval);
            let (changed, synced, performed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..100 {
                            let mine = changed.fetch_add(1, Ordering::SeqCst) + 1;
                            let perform = || {
                                let now = changed.load(Ordering::SeqCst);
                                std::thread::yield_now();
                                synced.fetch_max(now, Ordering::SeqCst);
                                performed.fetch_add(1, Ordering::SeqCst);
                                Ok(())
                            };
                            sync.sync(|waiting| waiting == 8, perform).unwrap();
                            assert!(synced.load(Ordering::SeqCst) >= mine);
                        }
                    });
                }
            });
            assert!(performed.into_inner() <= 800);
        }
    }

    #[test]
    fn a_failure_is_told_to_all_who_waited_and_to_nobody_else() {
        let sync = SharedSync::new(Duration::from_secs(60));
        sync.sync(|_| true, || Ok(())).unwrap();
        let failing = || Err(io::Error::from_raw_os_error(libc::ENOSPC));
        std::thread::scope(|scope| {
            let waiters = [(); 3].map(|()| scope.spawn(|| sync.sync(|waiting| waiting == 3, failing)));
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap().unwrap_err().raw_os_error(), Some(libc::ENOSPC));
            }
        });
        sync.sync(|_| true, || Ok(())).unwrap();
    }
}
