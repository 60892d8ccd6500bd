//! Free space on the queue's file system: `queue_minfree`.
//!
//! Asked at most once a second for all sessions. A message that comes when the disk fills up faster than that is refused
//! by cleanup.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipc::log;

/// How long an answer holds.
const CHECK: Duration = Duration::from_secs(1);

/// What is known about the free space.
#[derive(Debug)]
pub(crate) struct Space {
    queue_directory: PathBuf,
    /// Below this, nothing is taken.
    needed: u64,
    checked: Mutex<Option<(Instant, u64)>>,
}

impl Space {
    /// Like Postfix, asks for `queue_minfree`, and for one and a half times the largest message.
    pub(crate) fn new(queue_directory: &Path, queue_minfree: u64, message_size_limit: u64) -> Self {
        let largest = message_size_limit.saturating_add(message_size_limit / 2);
        let (queue_directory, needed) = (queue_directory.to_owned(), queue_minfree.max(largest));
        Self { queue_directory, needed, checked: Mutex::new(None) }
    }

    /// Whether a message may come. Where the system does not say, it may: cleanup has the last word.
    pub(crate) fn suffices(&self) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((when, free)) = *checked
            && now.duration_since(when) < CHECK
        {
            return free > self.needed;
        }
        let free = match nix::sys::statvfs::statvfs(&self.queue_directory) {
            Ok(status) => status.blocks_available().saturating_mul(status.fragment_size()),
            Err(_) => u64::MAX,
        };
        *checked = Some((now, free));
        if free <= self.needed {
            log::warning!(
                "not enough free space in mail queue: {free} bytes, {} are needed \
                 (queue_minfree, and 1.5 times message_size_limit)",
                self.needed
            );
        }
        free > self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_seen() {
        assert!(Space::new(Path::new("/"), 0, 0).suffices());
        assert!(!Space::new(Path::new("/"), u64::MAX, 0).suffices());
        assert!(Space::new(Path::new("/nowhere"), 1000, 1000).suffices());
    }
}
