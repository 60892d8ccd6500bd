//! One line of master.cf at work: its sockets, its programs, its failures.

use std::time::{Duration, Instant};

use config::ServiceEntry;
use ipc::log;
use nix::unistd::Pid;

use crate::child::Child;
use crate::sockets::Endpoint;

/// The first wait after a program ended badly; it doubles up to [`LONGEST_BACK_OFF`].
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// A program that ran this long has started well: what ended it then is answered with the shortest wait. Short, because
/// the wait is there against programs that cannot start, and mail waits meanwhile.
const GOOD_RUN: Duration = Duration::from_secs(1);

pub(crate) struct Service {
    pub(crate) entry: ServiceEntry,
    pub(crate) endpoints: Vec<Endpoint>,
    /// The program of this generation, if it was needed yet, and those of earlier ones that still drain.
    pub(crate) children: Vec<Child>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Service {
    pub(crate) fn new(entry: ServiceEntry, endpoints: Vec<Endpoint>) -> Self {
        Self { entry, endpoints, children: Vec::new(), failures: 0, not_before: None }
    }

    /// The program that takes new work.
    pub(crate) fn current(&self) -> Option<&Child> {
        self.children.iter().find(|child| !child.draining)
    }

    /// Whether master listens on this service's sockets, to start its program when a client comes.
    pub(crate) fn waits_for_client(&self, now: Instant) -> bool {
        self.current().is_none() && !self.backs_off(now)
    }

    /// Whether the program is to run without being asked for: master.cf's wake-up column.
    pub(crate) fn starts_by_itself(&self, now: Instant) -> bool {
        self.entry.wakeup.is_some_and(|wakeup| !wakeup.only_if_used) && self.waits_for_client(now)
    }

    /// When a program that failed may be started again, if that is still ahead.
    pub(crate) fn backs_off(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|time| time > now)
    }

    /// How long the program that failed is not to be started yet, if none runs.
    pub(crate) fn wait_before_start(&self, now: Instant) -> Option<Duration> {
        self.deadline().map(|time| time.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// When this service next wants attention by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.current().is_none())
    }

    /// Forgets a wait that is over: the client that the program is started for may be long in coming, and nothing is to
    /// be looked after until then.
    pub(crate) fn end_wait(&mut self, now: Instant) {
        self.not_before = self.not_before.filter(|time| *time > now);
    }

    /// Notes that the program with this pid ended; tells whether it was one of this service's.
    pub(crate) fn ended(&mut self, pid: Pid, how: &str, failed: bool, now: Instant) -> bool {
        let Some(place) = self.children.iter().position(|child| child.pid == pid) else { return false };
        let child = self.children.remove(place);
        if child.draining && !failed {
            return true;
        }
        if now.duration_since(child.started) >= GOOD_RUN {
            self.failures = 0;
        }
        if failed {
            let wait = self.back_off(now);
            log::warning!(
                "process {} pid {} ({}) {how}; next start in {} ms at the earliest",
                self.entry.command,
                pid,
                self.entry.name,
                wait.as_millis()
            );
        }
        true
    }

    /// Notes that the program could not be started.
    pub(crate) fn failed_to_start(&mut self, error: &std::io::Error, now: Instant) {
        let wait = self.back_off(now);
        log::error!("service {}: {error}; next try in {} ms", self.entry.name, wait.as_millis());
    }

    fn back_off(&mut self, now: Instant) -> Duration {
        let wait = back_off_after(self.failures);
        self.failures += 1;
        self.not_before = Some(now + wait);
        wait
    }
}

/// How long to wait after this many failures in a row.
fn back_off_after(failures: u32) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << failures.min(16)).min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::{Config, Snapshot};

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        assert_eq!(back_off_after(0), Duration::from_millis(100));
        assert_eq!(back_off_after(3), Duration::from_millis(800));
        assert_eq!(back_off_after(10), Duration::from_secs(60));
        assert_eq!(back_off_after(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn a_wait_that_is_over_wants_no_attention() {
        let master_cf = b"showq unix n - n - - showq\n".to_vec();
        let snapshot = Snapshot { main_cf: Vec::new(), master_cf };
        let (config, _) = Config::inspect(Path::new("/etc/postfix"), &snapshot, &[]);
        let mut service = Service::new(config.services()[0].clone(), Vec::new());
        let now = Instant::now();
        service.failed_to_start(&std::io::ErrorKind::NotFound.into(), now);
        let deadline = now + FIRST_BACK_OFF;
        service.end_wait(now);
        assert_eq!(service.deadline(), Some(deadline));
        assert!(!service.waits_for_client(now));
        service.end_wait(deadline);
        assert_eq!(service.deadline(), None);
        assert!(service.waits_for_client(deadline));
    }
}
