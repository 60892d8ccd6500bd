//! Threads that are kept from one piece of work to the next: a thread is made only when none waits.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc::log;

/// How long a thread waits for more work before it ends and gives its stack back.
const LINGER: Duration = Duration::from_secs(10);

/// The stack of a worker: address space; only what is touched is memory.
const STACK: usize = 512 * 1024;

/// Runs each piece of work on a thread of its own.
pub(crate) struct Workers<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    handed_over: Condvar,
    work: Box<dyn Fn(T) + Send + Sync>,
}

struct State<T> {
    /// Work that a waiting thread was woken for; never more than there are waiting threads.
    waiting: VecDeque<T>,
    idle: usize,
}

impl<T: Send + 'static> Workers<T> {
    pub(crate) fn new(work: impl Fn(T) + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), idle: 0 });
        Self(Arc::new(Shared { state, handed_over: Condvar::new(), work: Box::new(work) }))
    }

    /// Hands `item` to a waiting thread, or to a new one.
    ///
    /// # Errors
    /// Why no thread could be made; the item is dropped.
    pub(crate) fn run(&self, item: T) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.idle > state.waiting.len() {
            state.waiting.push_back(item);
            drop(state);
            self.0.handed_over.notify_one();
            return Ok(());
        }
        drop(state);
        let shared = Arc::clone(&self.0);
        sys::stack::spawn(STACK, move || shared.live(item))
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn live(&self, first: T) {
        let mut next = Some(first);
        while let Some(item) = next {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(item))) {
                let text = panic_text(panic.as_ref());
                log::line(log::Level::Panic, format_args!("{text}; this session ends, the program goes on"));
            }
            next = self.wait();
        }
    }

    /// Waits for more work, `None` after [`LINGER`].
    fn wait(&self) -> Option<T> {
        let mut state = self.lock();
        state.idle += 1;
        let waited = self.handed_over.wait_timeout_while(state, LINGER, |s| s.waiting.is_empty());
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.idle -= 1;
        state.waiting.pop_front()
    }
}

/// For a thread whose client will be silent for long: gives back the memory of its stack beyond where it is now.
pub fn rest() {
    sys::stack::give_back();
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_work_is_done_at_the_same_time_and_a_panic_costs_one_piece() {
        let (sender, done) = mpsc::channel();
        let (gate, all_here) = (Arc::new(std::sync::Barrier::new(8)), sender);
        let workers = Workers::new(move |n: u32| {
            assert!(n != 99, "told to");
            gate.wait();
            all_here.send(n).unwrap();
        });
        workers.run(99).unwrap();
        for n in (0..8).chain(0..8) {
            workers.run(n).unwrap();
        }
        assert_eq!(done.iter().take(16).sum::<u32>(), 56);
    }
}
