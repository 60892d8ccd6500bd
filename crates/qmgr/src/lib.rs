//! qmgr: takes messages up, has agents deliver them, records every result, and tries again what failed.
//!
//! Contract: after its commit a queue file is changed, moved and removed by this program alone (the operator's postsuper
//! aside). One loop owns all state and never waits for anything but its channels: disks are the business of
//! [`disk`]'s threads, agents and clients that of a reading thread for each connection. What is decided (who may be
//! delivered to now, what a result means, when to try again) is decided by code without I/O: [`scheduler`],
//! [`message`], [`retry`], [`deferred`], [`intake`].
//!
//! A crash at any moment loses nothing: what was being delivered is taken up again at the next start. A message whose
//! outcome was not yet recorded is then delivered a second time; that is the one window for duplicates.

mod deferred;
mod deliveries;
mod disk;
mod event_loop;
mod flush;
mod intake;
mod limits;
mod link;
mod message;
mod offers;
mod pace_record;
mod promptness;
mod reports;
mod retry;
mod routing;
mod scheduler;
mod words;

use service::{Fatal, Service};

/// Heaps of the allocator: what disk threads and links read is freed by the loop.
const HEAPS: u16 = 2;

/// Runs the queue manager.
///
/// # Errors
/// The queue or a table that routing needs cannot be opened.
pub fn run(service: Service) -> Result<(), Fatal> {
    sys::memory::share_heaps(HEAPS);
    event_loop::EventLoop::new(service)?.run()
}
