//! Serving qmgr: deliveries that run side by side, each outcome logged, timed and sent back by this shared code.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipc::agent::{Reply, Request, RequestRecipient};
use ipc::frame::{self, Receiver};
use ipc::log;
use mail::{Dsn, Outcome};

use crate::Fatal;
use crate::connection::Stream;
use crate::lifecycle::Lifecycle;
use crate::startup::Service;
use crate::workers::{Workers, panic_text};

/// A recipient of a delivery.
pub type DeliveryRecipient = RequestRecipient;

/// A message and where it shall go. The file is the queue file, open for reading.
#[derive(Debug)]
pub struct Delivery {
    /// What qmgr asked for.
    pub request: Request,
    /// The queue file; `queue::Content` reads it.
    pub file: File,
}

/// A delivery agent.
pub trait Agent: Send + Sync + 'static {
    /// Delivers to one recipient. Called once for each recipient of a delivery, on one thread per delivery.
    ///
    /// The outcome is all that leaves it: logging, recording and notifying are shared code. A panic is a deferral.
    fn deliver(&self, delivery: &Delivery, recipient: &DeliveryRecipient) -> Outcome;
}

/// One delivery on its way to a worker.
struct Job {
    delivery: Delivery,
    replies: Arc<Mutex<UnixStream>>,
}

impl Service {
    /// Phases 2 to 4 of a delivery agent.
    ///
    /// # Errors
    /// Dropping privileges or polling failed.
    pub fn serve_deliveries(self, agent: impl Agent) -> Result<(), Fatal> {
        let (lifecycle, name) = (Arc::clone(&self.lifecycle), self.name.clone());
        let workers = {
            let lifecycle = Arc::clone(&lifecycle);
            Workers::new(move |job: Job| {
                let _ended = DeliveryEnd(&lifecycle);
                deliver(&agent, &name, &job);
            })
        };
        // Its sessions are the connections of qmgr; what is limited is qmgr's to limit, by the same master.cf.
        let connections = Self { max_sessions: None, ..self };
        connections.serve_sessions(move |lifecycle, connection| {
            if let Stream::Unix(socket) = &*connection.stream
                && let Err(error) = serve_queue_manager(socket, lifecycle, &workers)
            {
                log::warning!("connection from the queue manager: {error}");
            }
        })
    }
}

struct DeliveryEnd<'a>(&'a Lifecycle);

impl Drop for DeliveryEnd<'_> {
    fn drop(&mut self) {
        self.0.end();
        if self.0.draining() {
            self.0.wake();
        }
    }
}

/// Takes requests until qmgr closes. It closes after a reload when its last delivery here is done.
fn serve_queue_manager(socket: &UnixStream, lifecycle: &Lifecycle, workers: &Workers<Job>) -> io::Result<()> {
    let replies = Arc::new(Mutex::new(socket.try_clone()?));
    let mut receiver = Receiver::new();
    while let Some(request) = receiver.next_message::<Request>(socket)? {
        let file = frame::expect_descriptor(&mut receiver)?;
        lifecycle.begin();
        if let Err(error) =
            workers.run(Job { delivery: Delivery { request, file }, replies: Arc::clone(&replies) })
        {
            lifecycle.end();
            // Closing the connection tells qmgr, who defers what is out and comes again.
            return Err(io::Error::other(format!("start a delivery thread: {error}")));
        }
    }
    Ok(())
}

/// Delivers to each recipient and sends the outcomes: those of one recipient with the end in one write.
fn deliver(agent: &impl Agent, relay: &str, job: &Job) {
    let request = &job.delivery.request;
    let mut out = Vec::with_capacity(256);
    for (done, recipient) in (1..).zip(&request.recipients) {
        let outcome = attempt(agent, relay, &job.delivery, recipient);
        let reply = Reply::Outcome { delivery: request.delivery, recipient: recipient.index, outcome };
        if frame::push_message(&mut out, &reply).is_err() {
            log::error!("{}: outcome of <{}> is too long to report", request.id, recipient.address);
        }
        if done < request.recipients.len() {
            send(&job.replies, &mut out);
        }
    }
    if frame::push_message(&mut out, &Reply::Done { delivery: request.delivery, site: None }).is_ok() {
        send(&job.replies, &mut out);
    }
}

fn attempt(agent: &impl Agent, relay: &str, delivery: &Delivery, recipient: &DeliveryRecipient) -> Outcome {
    let (began, begin_time) = (Instant::now(), since_epoch());
    let result = catch_unwind(AssertUnwindSafe(|| agent.deliver(delivery, recipient)));
    let outcome = result.unwrap_or_else(|panic| {
        let text = panic_text(panic.as_ref());
        log::line(log::Level::Panic, format_args!("{}: {text}", delivery.request.id));
        Outcome::deferred(relay, Dsn::new(4, 3, 0), "internal error in the delivery agent; see the log")
    });
    let request = &delivery.request;
    let delays = log::Delays {
        queued: request.active_since.saturating_sub(request.arrival),
        scheduled: begin_time.saturating_sub(request.active_since),
        connecting: Duration::ZERO,
        delivering: began.elapsed(),
    };
    log::outcome(request.id, &recipient.address, recipient.original.as_ref(), delays, &outcome);
    outcome
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A queue manager that is gone has its own way to find out what is left to do.
fn send(replies: &Mutex<UnixStream>, out: &mut Vec<u8>) {
    let socket = replies.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = (&*socket).write_all(out);
    out.clear();
}
