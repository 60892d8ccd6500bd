//! pickup: what local users submit, from `maildrop/` and from the [`desk`] to cleanup.
//!
//! Two ways in one process: a thread takes up what lies in the folder, and each client at the desk has a thread of its own
//! for as long as it takes. A client is answered when cleanup has its message in the queue.
//!
//! A file is removed once cleanup has its message in the queue, and not before: a crash in between submits it twice. What
//! is no submission goes to `corrupt/`; what cleanup refuses for good goes back to its sender; what it cannot take now
//! stays for the next round.

mod desk;
mod notice;
mod submission;

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use config::param;
use ipc::cleanup::Options;
use ipc::log;
use mail::submission::SOCKET_FOLDER;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use queue::{Dropped, Maildrop, QueueError, Root};
use service::{Fatal, Lifecycle, Listener, Service, Sessions};

use desk::Desk;
use submission::Submitter;

/// How often the folder is looked at where master.cf does not say: a poke may get lost.
const WAKE_UP: Duration = Duration::from_secs(60);

/// Files that are taken from the folder before it is read again.
const ROUND: usize = 1000;

/// Files that are on their way at a time: their commits share the file system's journal.
const AT_A_TIME: usize = 4;

/// Clients that are let in before the folder and master are attended to again.
const CLIENTS: usize = 16;

/// The stack of a thread that brings files to cleanup.
const STACK: usize = 256 * 1024;

/// The pickup daemon: the phases after its birth.
///
/// # Errors
/// A queue directory that is not one; dropping privileges or polling failed.
pub fn run(mut service: Service) -> Result<(), Fatal> {
    let submitter = Arc::new(Submitter {
        cleanup: service.cleanup(),
        options: options(&service.config.get(param::RECEIVE_OVERRIDE_OPTIONS)),
        content_filter: Some(service.config.get(param::CONTENT_FILTER)).filter(|filter| !filter.is_empty()),
        myhostname: service.config.get(param::MYHOSTNAME),
    });
    let wakeup = service.wakeup.filter(|interval| !interval.is_zero()).unwrap_or(WAKE_UP);
    let authorized: Vec<String> = service.config.get(param::AUTHORIZED_SUBMIT_USERS);
    let desk = Arc::new(Desk {
        submitter: Arc::clone(&submitter),
        is_open: authorized.first().is_some_and(|item| item.starts_with("static:")),
        present: Default::default(),
    });
    service.drop_privileges()?;
    // After the drop: a folder that mail_owner cannot read must show now.
    let root = Root::open(&service.queue_directory()).map_err(|error| service.without_queue(&error))?;
    let maildrop = root.maildrop().map_err(|error| Fatal::new(error.to_string()))?;
    let lifecycle = Arc::clone(&service.lifecycle);
    let listeners = std::mem::take(&mut service.listeners);
    // The desk knows how many may be there, and need not be told at the end of each.
    service.max_sessions = None;
    let sessions = {
        let desk = Arc::clone(&desk);
        service.sessions(move |_, connection| desk.serve(&connection))
    };
    let ends = || lifecycle.draining();
    let pickup = Pickup { maildrop, submitter, ends: &ends };
    let (poke, poked) = sync_channel(1);
    std::thread::scope(|scope| {
        let rounds = std::thread::Builder::new().name("maildrop".into()).stack_size(STACK);
        let pickup = &pickup;
        rounds.spawn_scoped(scope, move || pickup.rounds(&poked))?;
        lifecycle.ready();
        attend(listeners, &lifecycle, &desk, sessions, wakeup, poke)
    })
}

/// Lets clients in and has the folder looked at, until master ends it; what has begun is finished then.
fn attend(
    listeners: Vec<Listener>,
    lifecycle: &Lifecycle,
    desk: &Desk,
    mut sessions: Sessions,
    wakeup: Duration,
    poke: SyncSender<()>,
) -> Result<(), Fatal> {
    let (desks, doorbells): (Vec<Listener>, Vec<Listener>) = listeners.into_iter().partition(is_desk);
    while !lifecycle.draining() {
        // A round that is due already will find the mail.
        if poke.try_send(()) == Err(TrySendError::Disconnected(())) {
            return Err(Fatal::new("the thread that takes up what is in maildrop/ has ended"));
        }
        let begun = Instant::now();
        loop {
            // However many come to the desk: what could not be taken up the last time waits for the next round.
            let left = wakeup.saturating_sub(begun.elapsed());
            let rings = wait(&doorbells, &desks, lifecycle, left)?;
            for client in desks.iter().flat_map(|desk| (0..CLIENTS).map_while(|_| service::accept_one(desk)))
            {
                if desk.admits(&client) {
                    sessions.start(client);
                }
            }
            if rings || left.is_zero() || lifecycle.draining() {
                break;
            }
        }
    }
    drop(poke);
    sessions.drain(desks)
}

/// Whether users reach this socket, and not only postdrop.
fn is_desk(listener: &Listener) -> bool {
    let Listener::Unix(listener) = listener else { return false };
    let address = listener.local_addr().ok();
    let folder = address.as_ref().and_then(|address| address.as_pathname()?.parent()?.file_name());
    folder.is_some_and(|folder| folder == SOCKET_FOLDER)
}

fn options(overrides: &[String]) -> Options {
    let has = |word: &str| overrides.iter().any(|given| given.eq_ignore_ascii_case(word));
    Options {
        filter: !has("no_header_body_checks"),
        map_addresses: !has("no_address_mappings"),
        ..Options::default()
    }
}

/// Waits for a ring of one of the doorbells, a client, a word of master's, or the end of the interval; whether the folder
/// is to be looked at. That somebody connects to a doorbell is the ring.
fn wait(
    doorbells: &[Listener],
    desks: &[Listener],
    lifecycle: &Lifecycle,
    interval: Duration,
) -> Result<bool, Fatal> {
    let listeners = doorbells.iter().chain(desks).map(AsFd::as_fd);
    let mut wanted: Vec<PollFd<'_>> =
        listeners.chain([lifecycle.wake_descriptor()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(interval).unwrap_or(PollTimeout::MAX);
    let is_due = match poll(&mut wanted, timeout) {
        Ok(ready) => ready == 0,
        Err(nix::errno::Errno::EINTR) => false,
        Err(error) => return Err(Fatal::new(format!("poll: {error}"))),
    };
    if wanted.last().is_some_and(has_input) {
        lifecycle.quiet();
    }
    let rings = wanted.iter().zip(doorbells).filter(|(fd, _)| has_input(fd)).map(|(_, doorbell)| doorbell);
    // Listeners do not block; whatever else accept says, the next round is made all the same.
    let rung = rings.map(|doorbell| while service::accept_one(doorbell).is_some() {}).count();
    Ok(is_due || rung > 0)
}

fn has_input(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}

struct Pickup<'a> {
    maildrop: Maildrop,
    submitter: Arc<Submitter>,
    /// Whether to take up nothing more.
    ends: &'a (dyn Fn() -> bool + Sync),
}

impl Pickup<'_> {
    /// A round for each poke, until nobody is left who could.
    fn rounds(&self, poked: &Receiver<()>) {
        while poked.recv().is_ok() {
            self.round();
        }
    }

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
                match self.submitter.submit(&found) {
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
