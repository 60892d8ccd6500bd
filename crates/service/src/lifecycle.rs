//! What master says while the daemon serves, and how it is answered.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::Snapshot;
use ipc::control::{ToChild, ToMaster};
use ipc::{frame, log};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::sandbox::Sandbox;

/// A word of master's for the program's own loop.
#[derive(Debug)]
pub enum Event {
    /// Go on with this configuration.
    Reload(Snapshot),
    /// Finish what there is and end. Said once.
    Drain,
}

/// The state that all threads of a daemon share: is it to end, how busy is it.
pub struct Lifecycle {
    control: UnixStream,
    draining: AtomicBool,
    stopping: AtomicBool,
    retired: AtomicBool,
    finished: AtomicBool,
    busy: AtomicU32,
    describe: Mutex<Option<Describe>>,
    wake: EventFd,
    events: Mutex<Events>,
    /// Where the answer goes to who waits in [`Lifecycle::open`].
    opened: Mutex<Option<SyncSender<io::Result<File>>>>,
    /// Held by who asks: there is one question at a time.
    opening: Mutex<()>,
    sandbox: Arc<Sandbox>,
}

/// How long a process without a master finishes what it is about: as long as master lets a stop take. The next master's
/// queue manager waits for this one's, and nobody else would end what a silent peer holds up. Nothing is lost by that.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a child waits for a file from master.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// Gives the line that `postroad status` shows of a service.
type Describe = Box<dyn Fn() -> String + Send>;

/// Where master's words go.
enum Events {
    /// Nobody listens yet.
    Kept(Vec<Event>),
    /// The program's own loop.
    Told(Box<dyn Fn(Event) + Send>),
}

impl Lifecycle {
    /// Starts the thread that listens to master.
    ///
    /// # Errors
    /// What the system says to a new descriptor or thread.
    pub(crate) fn start(
        control: UnixStream,
        receiver: frame::Receiver,
        sandbox: Arc<Sandbox>,
    ) -> io::Result<Arc<Self>> {
        let lifecycle = Arc::new(Self {
            control,
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            busy: AtomicU32::new(0),
            describe: Mutex::new(None),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|e| {
                io::Error::other(format!("make a descriptor for wake-ups: {}", io::Error::from(e)))
            })?,
            events: Mutex::new(Events::Kept(Vec::new())),
            opened: Mutex::new(None),
            opening: Mutex::new(()),
            sandbox,
        });
        let listening = Arc::clone(&lifecycle);
        let thread = std::thread::Builder::new().name("control".into()).stack_size(128 * 1024);
        thread
            .spawn(move || listening.listen(receiver))
            .map_err(|e| io::Error::other(format!("start the thread that listens to master: {e}")))?;
        Ok(lifecycle)
    }

    /// Tells master that the service is up. What only the start needed of memory is given back.
    pub fn ready(&self) {
        sys::memory::settle();
        // A master that is gone shows itself to the listening thread.
        let _ = frame::send(&self.control, &ToMaster::Ready, None);
    }

    /// Whether to take no new work.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the whole mail system stops, so that clients who only wait are sent away.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends the program, for which there is nothing to do, and with it the connections that its clients keep open for
    /// later: master starts it again for the next that comes.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.begin_drain();
    }

    pub(crate) fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Has master's words told to a program with a loop of its own, those that came before included.
    pub fn tell(&self, told: impl Fn(Event) + Send + 'static) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Events::Kept(kept) = &mut *events {
            std::mem::take(kept).into_iter().for_each(&told);
        }
        *events = Events::Told(Box::new(told));
    }

    fn happened(&self, event: Event) {
        match &mut *self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            Events::Kept(kept) => kept.push(event),
            Events::Told(told) => told(event),
        }
    }

    /// Readable when there is a reason to look at [`Lifecycle::draining`] or at the number of sessions.
    pub fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes [`Lifecycle::wake_descriptor`] readable.
    pub fn wake(&self) {
        // It fails only when the counter is full, and then it is readable already.
        let _ = self.wake.write(1);
    }

    /// Makes it unreadable again.
    pub fn quiet(&self) {
        let _ = self.wake.read();
    }

    /// Sessions or deliveries at this moment.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::Acquire)
    }

    /// One more session or delivery.
    pub fn begin(&self) {
        self.busy.fetch_add(1, Ordering::AcqRel);
    }

    /// One session or delivery less; gives the number that is left.
    pub fn end(&self) -> u32 {
        self.busy.fetch_sub(1, Ordering::AcqRel) - 1
    }

    /// Sets what `postroad status` shows of this service beside the number.
    pub fn describe_with(&self, describe: impl Fn() -> String + Send + 'static) {
        *self.describe.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(describe));
    }

    /// Has master open a file of [`ipc::control::key_files`], which this process may not open itself.
    ///
    /// # Errors
    /// Master's reason; a master that does not answer.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let _alone = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, answer) = sync_channel(1);
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        frame::send(&self.control, &ToMaster::Open(path.to_owned()), None)?;
        let answer = answer.recv_timeout(OPEN_PATIENCE);
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        answer.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "master does not answer"))?
    }

    fn answered(&self, answer: io::Result<File>) {
        if let Some(waiting) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Who does not wait any more needs no answer.
            let _ = waiting.try_send(answer);
        }
    }

    pub(crate) fn finished(&self) {
        self.finished.store(true, Ordering::Release);
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    fn listen(&self, mut receiver: frame::Receiver) {
        loop {
            // Master has little to say, and its longest words are whole configurations.
            receiver.release();
            match receiver.next_message(&self.control) {
                Ok(Some(ToChild::Reload(snapshot))) if self.sandbox.admits(&snapshot) => {
                    self.happened(Event::Reload(snapshot));
                    self.wake();
                }
                // Master starts the program again once it has ended.
                Ok(Some(ToChild::Reload(_))) => {
                    log::info!("the configuration names what this process is confined from; it begins anew");
                    self.begin_drain();
                }
                Ok(Some(ToChild::Ask)) => {
                    let describe = self.describe.lock().unwrap_or_else(PoisonError::into_inner);
                    let text = describe.as_ref().map(|describe| describe());
                    drop(describe);
                    let text = text.into_iter().filter(|text| !text.is_empty());
                    let text = text.chain([self.sandbox.state()]).collect::<Vec<_>>().join(", ");
                    let _ = frame::send(&self.control, &ToMaster::Status { busy: self.busy(), text }, None);
                }
                Ok(Some(ToChild::Log)) => match frame::expect_descriptor(&mut receiver) {
                    Ok(file) => log::replace_file(file),
                    Err(error) => log::warning!("new log file from master: {error}"),
                },
                Ok(Some(ToChild::Opened(result))) => self.answered(match result {
                    Ok(()) => frame::expect_descriptor(&mut receiver),
                    Err(text) => Err(io::Error::other(text)),
                }),
                Ok(Some(ToChild::Drain)) => self.begin_drain(),
                Ok(Some(ToChild::Stop)) => {
                    self.stopping.store(true, Ordering::Release);
                    self.begin_drain();
                }
                // Master is gone: nobody would stop this process otherwise.
                end @ (Ok(None) | Err(_)) => {
                    if let Err(error) = end {
                        log::warning!("connection to master: {error}; this process ends");
                    }
                    self.stopping.store(true, Ordering::Release);
                    self.begin_drain();
                    return self.end_after_patience();
                }
            }
        }
    }

    /// Ends a process whose master is gone, unless it ends by itself meanwhile.
    fn end_after_patience(&self) {
        if self.finished.load(Ordering::Acquire) {
            return;
        }
        std::thread::sleep(ORPHAN_PATIENCE);
        let seconds = ORPHAN_PATIENCE.as_secs();
        log::warning!(
            "master is gone, and what this process does has not ended within {seconds} s; it ends itself"
        );
        log::flush();
        std::process::exit(1);
    }

    fn begin_drain(&self) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            self.happened(Event::Drain);
        }
        self.wake();
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("busy", &self.busy()).field("draining", &self.draining()).finish()
    }
}
