//! pickup: what local users submitted, from `maildrop/` to cleanup.
//!
//! A file is removed once cleanup has its message in the queue, and not before: a crash in between submits it twice. What
//! is no submission goes to `corrupt/`; what cleanup refuses for good goes back to its sender; what it cannot take now
//! stays for the next round.

mod notice;
mod submission;

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use config::param;
use ipc::cleanup::Options;
use ipc::log;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use queue::{Dropped, Maildrop, QueueError, Root};
use service::{Fatal, Lifecycle, Listener, Service};

use submission::Submitter;

/// How often the folder is looked at where master.cf does not say: a poke may get lost.
const WAKE_UP: Duration = Duration::from_secs(60);

/// Files that are taken from the folder before it is read again.
const ROUND: usize = 1000;

/// Files that are on their way at a time: their commits share the file system's journal.
const AT_A_TIME: usize = 4;

/// The stack of a thread that brings files to cleanup.
const STACK: usize = 256 * 1024;

/// The pickup daemon: the phases after its birth.
///
/// # Errors
/// A queue directory that is not one; dropping privileges or polling failed.
pub fn run(service: Service) -> Result<(), Fatal> {
    let submitter = Submitter {
        cleanup: service.cleanup(),
        options: options(&service.config.get(param::RECEIVE_OVERRIDE_OPTIONS)),
        content_filter: Some(service.config.get(param::CONTENT_FILTER)).filter(|filter| !filter.is_empty()),
        myhostname: service.config.get(param::MYHOSTNAME),
    };
    let wakeup = service.wakeup.filter(|interval| !interval.is_zero()).unwrap_or(WAKE_UP);
    service.drop_privileges()?;
    // After the drop: a folder that mail_owner cannot read must show now.
    let root = Root::open(&service.queue_directory())?;
    let maildrop = root.maildrop().map_err(|error| Fatal::new(error.to_string()))?;
    let ends = || service.lifecycle.draining();
    let pickup = Pickup { maildrop, submitter, ends: &ends };
    service.lifecycle.ready();
    while !service.lifecycle.draining() {
        pickup.round();
        wait(&service.listeners, &service.lifecycle, wakeup)?;
    }
    Ok(())
}

fn options(overrides: &[String]) -> Options {
    let has = |word: &str| overrides.iter().any(|given| given.eq_ignore_ascii_case(word));
    Options {
        filter: !has("no_header_body_checks"),
        map_addresses: !has("no_address_mappings"),
        ..Options::default()
    }
}

/// Waits for a poke, a word of master's, or the end of the interval. That somebody connects is the poke.
fn wait(listeners: &[Listener], lifecycle: &Lifecycle, interval: Duration) -> Result<(), Fatal> {
    let descriptors = listeners.iter().map(AsFd::as_fd).chain([lifecycle.wake_descriptor()]);
    let mut wanted: Vec<PollFd<'_>> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(interval).unwrap_or(PollTimeout::MAX);
    match poll(&mut wanted, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(Fatal::new(format!("poll: {error}"))),
    }
    lifecycle.quiet();
    // Listeners do not block; whatever else accept says, the next round is made all the same.
    listeners.iter().for_each(|listener| while service::accept_one(listener).is_some() {});
    Ok(())
}

struct Pickup<'a> {
    maildrop: Maildrop,
    submitter: Submitter,
    /// Whether to take up nothing more.
    ends: &'a (dyn Fn() -> bool + Sync),
}

impl Pickup<'_> {
    /// Takes up what is there. Files that come meanwhile have their own poke.
    fn round(&self) {
        loop {
            let names = match self.maildrop.names(ROUND) {
                Ok(names) => names,
                Err(error) => return log::warning!("{error}"),
            };
            let gone = self.take_all(&names);
            // A folder fuller than a round is read again, as long as that helps.
            if names.len() < ROUND || gone == 0 || (self.ends)() {
                return;
            }
        }
    }

    /// Takes up these files, some at a time; how many are gone from the folder then.
    fn take_all(&self, names: &[OsString]) -> usize {
        let (next, gone) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                if (self.ends)() {
                    return;
                }
                if self.take(name) {
                    gone.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..names.len().min(AT_A_TIME) {
                let thread = std::thread::Builder::new().name("submission".into()).stack_size(STACK);
                // Without a thread the others, or this one alone, do the work.
                let _ = thread.spawn_scoped(scope, work);
            }
            work();
        });
        gone.into_inner()
    }

    /// Takes up one file; `true` if it is gone from the folder.
    fn take(&self, name: &OsStr) -> bool {
        let shown = name.to_string_lossy();
        let dropped = match self.maildrop.take_up(name) {
            Ok(dropped) => dropped,
            Err(error) => {
                log::warning!("{error}");
                return false;
            }
        };
        match dropped {
            Dropped::NotYet => false,
            Dropped::Abandoned => {
                log::warning!("maildrop/{shown}: removed: it was never finished");
                self.done("remove", self.maildrop.remove(name))
            }
            Dropped::Suspicious(why) => self.set_aside(name, why),
            Dropped::Finished { file, uid, modified, size } => {
                let found = submission::Found { file, uid, modified, size };
                match self.submitter.submit(found) {
                    Ok(()) => self.done("remove", self.maildrop.remove(name)),
                    Err(submission::Failure::Malformed(why)) => self.set_aside(name, &why),
                    Err(submission::Failure::Later(why)) => {
                        log::warning!("maildrop/{shown}: {why}; trying again later");
                        false
                    }
                }
            }
        }
    }

    fn set_aside(&self, name: &OsStr, why: &str) -> bool {
        let shown = name.to_string_lossy();
        match self.maildrop.set_aside(name) {
            Ok(()) => log::warning!("maildrop/{shown}: moved to corrupt/: {why}"),
            Err(error) => {
                log::error!("maildrop/{shown} is {why}: {error}");
                return false;
            }
        }
        true
    }

    fn done(&self, operation: &str, result: Result<(), QueueError>) -> bool {
        if let Err(error) = &result {
            log::error!("{operation} a submission: {error}");
        }
        result.is_ok()
    }
}

#[cfg(test)]
mod tests;
