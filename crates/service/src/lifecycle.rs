//! What master says while the daemon serves, and how it is answered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use config::Snapshot;
use crossbeam_channel::{Receiver, Sender};
use ipc::control::{ToChild, ToMaster};
use ipc::{frame, log};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A word of master's for the program's own loop.
#[derive(Debug)]
pub enum Event {
    /// Go on with this configuration.
    Reload(Snapshot),
    /// Finish what there is and end. Said once.
    Drain,
}

/// The state that all threads of a daemon share: is it to end, how busy is it.
#[derive(Debug)]
pub struct Lifecycle {
    control: UnixStream,
    draining: AtomicBool,
    stopping: AtomicBool,
    busy: AtomicU32,
    text: Mutex<String>,
    wake: EventFd,
    events: Receiver<Event>,
}

impl Lifecycle {
    /// Starts the thread that listens to master.
    ///
    /// # Errors
    /// What the system says to a new descriptor or thread.
    pub(crate) fn start(control: UnixStream, receiver: frame::Receiver) -> io::Result<Arc<Self>> {
        let (sender, events) = crossbeam_channel::unbounded();
        let lifecycle = Arc::new(Self {
            control,
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            busy: AtomicU32::new(0),
            text: Mutex::new(String::new()),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            events,
        });
        let listening = Arc::clone(&lifecycle);
        let thread = std::thread::Builder::new().name("control".into()).stack_size(128 * 1024);
        thread.spawn(move || listening.listen(receiver, &sender))?;
        Ok(lifecycle)
    }

    /// Tells master that the service is up.
    pub fn ready(&self) {
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

    /// Master's words, for programs with a loop of their own.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
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

    /// What `postroad status` shows of this service beside the number.
    pub fn set_text(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    pub(crate) fn finished(&self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    fn listen(&self, mut receiver: frame::Receiver, events: &Sender<Event>) {
        loop {
            match receiver.next_message(&self.control) {
                Ok(Some(ToChild::Reload(snapshot))) => {
                    let _ = events.send(Event::Reload(snapshot));
                    self.wake();
                }
                Ok(Some(ToChild::Ask)) => {
                    let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let _ = frame::send(&self.control, &ToMaster::Status { busy: self.busy(), text }, None);
                }
                Ok(Some(ToChild::Log)) => match frame::expect_descriptor(&mut receiver) {
                    Ok(file) => log::replace_file(file),
                    Err(error) => log::warning!("new log file from master: {error}"),
                },
                Ok(Some(ToChild::Drain)) => self.begin_drain(events),
                Ok(Some(ToChild::Stop)) => {
                    self.stopping.store(true, Ordering::Release);
                    self.begin_drain(events);
                }
                // Master is gone: nobody would stop this process otherwise.
                Ok(None) | Err(_) => {
                    self.stopping.store(true, Ordering::Release);
                    self.begin_drain(events);
                    return;
                }
            }
        }
    }

    fn begin_drain(&self, events: &Sender<Event>) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            let _ = events.send(Event::Drain);
        }
        self.wake();
    }
}
