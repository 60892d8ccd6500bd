//! A queue that many threads put into and one thread empties, all of it at a time.
//!
//! Why not a channel: the reader here sleeps and wakes once for a whole batch, takes one lock for it, and has one place to
//! wait at for whatever happens. Waiting at several channels registers with each of them anew for every message, and
//! channels spin before they sleep, which on a busy machine takes the processor from who has something to do.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Room for more items than this is given back after a peak.
const KEPT_ROOM: usize = 1024;

/// The queue. Shared by reference counting.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    /// The reader waits, and nobody has woken it yet: to wake one that is awake is a system call for nothing.
    asleep: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { items: Vec::new(), asleep: false }), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Puts something in, and wakes the reader if it is asleep.
    pub fn put(&self, item: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.items.push(item);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Puts something in that is in no hurry: the reader finds it when it is awake for something else, or its patience ends.
    pub fn leave(&self, item: T) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).items.push(item);
    }

    /// Waits until something is there, or for `patience`, and moves all of it into `items`, which must be empty.
    pub fn take(&self, items: &mut Vec<T>, patience: Option<Duration>) {
        items.shrink_to(KEPT_ROOM);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asleep = state.items.is_empty();
        if state.asleep {
            let is_empty = |state: &mut State<T>| state.items.is_empty();
            state = match patience {
                None => self.arrived.wait_while(state, is_empty).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.arrived.wait_timeout_while(state, patience, is_empty);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.asleep = false;
        }
        std::mem::swap(&mut state.items, items);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_lost_between_writers_and_the_reader() {
        let mailbox = Arc::new(Mailbox::default());
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || (0..1000).for_each(|n| mailbox.put(n)))
            })
            .collect();
        let (mut sum, mut count, mut items) = (0, 0, Vec::new());
        while count < 4000 {
            mailbox.take(&mut items, None);
            count += items.len();
            sum += items.drain(..).sum::<u64>();
        }
        assert_eq!(sum, 4 * 999 * 1000 / 2);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    }

    #[test]
    fn patience_ends() {
        let mailbox = Mailbox::<u8>::default();
        let mut items = Vec::new();
        mailbox.take(&mut items, Some(Duration::from_millis(1)));
        assert!(items.is_empty());
    }
}
