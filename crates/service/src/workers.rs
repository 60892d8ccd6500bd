//! Threads that are kept from one piece of work to the next: a thread is made only when none waits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use ipc::log;

/// How long a thread waits for more work before it ends and gives its stack back.
const LINGER: Duration = Duration::from_secs(10);

/// The stack of a worker: address space; only what is touched is memory.
const STACK: usize = 512 * 1024;

/// Runs each piece of work on a thread of its own.
pub(crate) struct Workers<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
    work: Arc<dyn Fn(T) + Send + Sync>,
}

impl<T: Send + 'static> Workers<T> {
    pub(crate) fn new(work: impl Fn(T) + Send + Sync + 'static) -> Self {
        // Without capacity: sending succeeds only when a thread is waiting at this moment.
        let (sender, receiver) = crossbeam_channel::bounded(0);
        Self { sender, receiver, work: Arc::new(work) }
    }

    /// Hands `item` to a waiting thread, or to a new one.
    ///
    /// # Errors
    /// The item and the reason, where no thread can be made.
    pub(crate) fn run(&self, item: T) -> Result<(), io::Error> {
        match self.sender.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(item) | TrySendError::Disconnected(item)) => self.spawn(item),
        }
    }

    fn spawn(&self, first: T) -> io::Result<()> {
        let (receiver, work) = (self.receiver.clone(), Arc::clone(&self.work));
        std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                let mut next = Some(first);
                while let Some(item) = next {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(item))) {
                        let text = panic_text(panic.as_ref());
                        log::line(
                            log::Level::Panic,
                            format_args!("{text}; this session ends, the program goes on"),
                        );
                    }
                    next = receiver.recv_timeout(LINGER).ok();
                }
            })
            .map(drop)
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
