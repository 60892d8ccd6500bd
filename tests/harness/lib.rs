//! What scenarios are written with: an [`Instance`] of the mail system in a scratch folder, and a plain [`Smtp`] client.
//!
//! An instance never disturbs the host: its own folders, a free high port of the loopback interface, and a master that is
//! ended when the value is dropped, or the test program is killed. Started by root it runs as `nobody`, unless a scenario asks for root's rights.
//! Where several hosts, the DNS or port 25 are needed, a [`Network`] has them.

// A scenario that cannot go on ends, and says why.
#![allow(clippy::panic, clippy::print_stdout)]

mod certificates;
mod disk;
mod dns;
mod instance;
mod maildir;
mod network;
mod peer;
mod ports;
mod postfix;
mod scripted;
mod sink;
mod smtp;
mod strace;
mod watcher;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use certificates::Authority;
pub use disk::{Disk, DiskKind};
pub use instance::{Builder, Instance, Output, run};
pub use maildir::messages;
pub use network::{Host, Network, Running};
pub use peer::{is_root, peer, peer_package, postfix_package, postfix_peer};
pub use ports::free_port;
pub use postfix::Postfix;
pub use scripted::{Says, Scripted};
pub use sink::{Sink, Taken};
pub(crate) use smtp::reset;
pub use smtp::{Reply, Smtp};
pub use strace::{Call, Strace, Tracing, calls, most_per_thread};

/// How long a scenario waits for what must happen. Far longer than it takes, so that a loaded machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A scratch folder. What is left in it when this process ends, however it comes to that, ends as well.
pub(crate) fn scratch_folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("make a scratch folder");
    watcher::watch(folder.path());
    folder
}

/// Says that it is over when it is dropped: whoever works until then ends with a test that fails, too.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until `found` gives something, looking again every few milliseconds.
///
/// # Panics
/// When it does not happen within [`PATIENCE`]; `what` says what was waited for.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
