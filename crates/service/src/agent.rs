//! Serving qmgr: deliveries that run side by side, each outcome logged, timed and sent back by this shared code.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipc::agent::{Reply, Request, RequestRecipient, SiteFailure};
use ipc::frame::{self, Receiver};
use ipc::log;
use ipc::outbox::Outbox;
use mail::{Dsn, Outcome, QueueId, Status};

use crate::Fatal;
use crate::connection::Stream;
use crate::lifecycle::Lifecycle;
use crate::outcome_rules::OutcomeRules;
use crate::startup::Service;
use crate::workers::{Workers, panic_text};

/// For how long the outcome of a recipient is kept back while its delivery goes on with the next one: what becomes of many
/// goes out together. If the agent is killed meanwhile, the recipient gets the message twice.
const KEPT_BACK_FOR: Duration = Duration::from_millis(5);

/// A recipient of a delivery.
pub type DeliveryRecipient = RequestRecipient;

/// For how long an agent waits until a message is in the queue that was only in memory.
const KEPT_WITHIN: Duration = Duration::from_secs(30);

/// How often it looks whether it is.
const LOOKED_AFTER: Duration = Duration::from_millis(1);

/// A message and where it shall go. The file is the queue file, open for reading, or the same in memory.
#[derive(Debug)]
pub struct Delivery {
    /// What qmgr asked for.
    pub request: Request,
    /// The queue file; `queue::Content` reads it.
    pub file: Arc<File>,
    /// The way back to the queue manager, if it comes from there.
    replies: Option<Arc<Replies>>,
}

impl Delivery {
    /// One that nobody waits for.
    #[must_use]
    pub fn new(request: Request, file: Arc<File>) -> Self {
        Self { request, file, replies: None }
    }

    /// Has the message kept that may be in memory only, since it may be delivered before it is in the queue: when this
    /// returns, it is in the queue and comes again after whatever happens. Asked before anything is done that a crash may
    /// leave half done.
    ///
    /// # Errors
    /// There is nobody to be asked, or the message is not in the queue in time; what the system says of its file.
    pub fn keep(&self) -> io::Result<()> {
        self.keep_within(KEPT_WITHIN)
    }

    fn keep_within(&self, patience: Duration) -> io::Result<()> {
        if !sys::lent::is_only_here(&self.file)? {
            return Ok(());
        }
        let Some(replies) = &self.replies else {
            return Err(io::Error::other("the message is in memory only, and there is nobody to keep it"));
        };
        let mut out = Vec::new();
        frame::push_message(&mut out, &Reply::Keep { delivery: self.request.delivery })?;
        // A queue manager that is gone is no reason to give up: whoever lent the file sees that, and keeps the message.
        replies.send(&mut out);
        let began = Instant::now();
        while began.elapsed() < patience {
            std::thread::sleep(LOOKED_AFTER);
            if !sys::lent::is_only_here(&self.file)? {
                return Ok(());
            }
            if sys::lent::is_given_up(&self.file)? {
                return Err(io::Error::other("the message could not be brought into the queue"));
            }
        }
        let text = format!(
            "the message is in memory only, and was not put into the queue within {} seconds",
            patience.as_secs()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }
}

/// A delivery agent that gives each recipient a treatment of its own.
pub trait Agent: Send + Sync + 'static {
    /// What is found out about a message once for all its recipients.
    type Message;

    /// Finds that out.
    ///
    /// # Errors
    /// What becomes of each recipient if that cannot be done.
    fn open(&self, delivery: &Delivery) -> Result<Self::Message, Box<Outcome>>;

    /// Delivers to one recipient. All recipients of a delivery are delivered to on one thread.
    ///
    /// The outcome is all that leaves it: logging, recording and notifying are shared code. A panic is a deferral.
    fn deliver(&self, delivery: &Delivery, message: &Self::Message, recipient: &DeliveryRecipient)
    -> Outcome;

    /// To how many recipients [`Agent::deliver_some`] delivers at most.
    fn at_a_time(&self) -> usize {
        1
    }

    /// Delivers to several recipients, and says what became of which of them. An agent that waits for a disk may wait
    /// for all of them at a time.
    fn deliver_some(
        &self,
        delivery: &Delivery,
        message: &Self::Message,
        recipients: &[DeliveryRecipient],
        give: &mut dyn FnMut(usize, Outcome),
    ) {
        for (place, recipient) in recipients.iter().enumerate() {
            give(place, self.deliver(delivery, message, recipient));
        }
    }

    /// Finds out what would become of the message, and does nothing ([`mail::Trace::is_probe`]): `sent`, with words such
    /// as "delivers to maildir", where it would be delivered. An agent that cannot tell leaves this as it is.
    fn probe(&self, _: &Delivery, _: &Self::Message, _: &DeliveryRecipient) -> Outcome {
        cannot_tell("none")
    }
}

/// A delivery agent that takes all recipients of a delivery to one place.
pub trait SiteAgent: Send + Sync + 'static {
    /// Delivers to all recipients, whose outcomes it puts into `results` as they become known; the result says whether
    /// the place itself failed. On one thread per delivery.
    ///
    /// A recipient without an outcome is deferred, whether by a panic or a mistake.
    fn deliver(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure>;

    /// As [`Agent::probe`], for all recipients.
    fn probe(&self, _: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        for position in results.undecided() {
            results.give(position, cannot_tell(self.relay()));
        }
        None
    }

    /// What is shown as `relay=` of recipients that were left without an outcome.
    fn relay(&self) -> &str {
        "none"
    }
}

/// One delivery on its way to a worker.
struct Job {
    delivery: Delivery,
    replies: Arc<Replies>,
    rules: Arc<OutcomeRules>,
}

/// The way back to the queue manager.
struct Replies {
    socket: UnixStream,
    outbox: Outbox,
    /// Threads that send what was kept back, when it is time.
    senders: Arc<Workers<Arc<Self>>>,
    /// One of them has this connection, and has not begun to send.
    is_waited_for: AtomicBool,
}

impl Service {
    /// Phases 2 to 4 of a delivery agent.
    ///
    /// # Errors
    /// Dropping privileges or polling failed.
    pub fn serve_deliveries(self, agent: impl Agent) -> Result<(), Fatal> {
        let relay = self.name.clone();
        self.serve_site_deliveries(OneByOne { agent, relay })
    }

    /// Phases 2 to 4 of a delivery agent that takes all recipients of a delivery at once.
    ///
    /// # Errors
    /// Dropping privileges or polling failed.
    pub fn serve_site_deliveries(self, agent: impl SiteAgent) -> Result<(), Fatal> {
        let rules = Arc::new(OutcomeRules::new(&self.config, self.program)?);
        let lifecycle = Arc::clone(&self.lifecycle);
        let workers = {
            let lifecycle = Arc::clone(&lifecycle);
            Workers::new(move |job: Job| {
                let _ended = DeliveryEnd(&lifecycle);
                deliver(&agent, &job);
            })
        };
        let senders = Arc::new(Workers::new(Replies::send_later));
        // Its sessions are the connections of qmgr; what is limited is qmgr's to limit, by the same master.cf.
        let connections = Self { max_sessions: None, ..self };
        connections.serve_sessions(move |lifecycle, connection| {
            if let Stream::Unix(socket) = &*connection.stream
                && let Err(error) = serve_queue_manager(socket, lifecycle, &workers, (&rules, &senders))
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
fn serve_queue_manager(
    socket: &UnixStream,
    lifecycle: &Lifecycle,
    workers: &Workers<Job>,
    (rules, senders): (&Arc<OutcomeRules>, &Arc<Workers<Arc<Replies>>>),
) -> io::Result<()> {
    frame::send(socket, &Reply::Ready, None)?;
    let replies = Arc::new(Replies::new(socket.try_clone()?, Arc::clone(senders)));
    let mut receiver = Receiver::of_conversation();
    while let Some(request) = receiver.next_message::<Request>(socket)? {
        let file = frame::expect_descriptor(&mut receiver)?;
        lifecycle.begin();
        if let Err(error) = workers.run(Job {
            delivery: Delivery { request, file: file.into(), replies: Some(Arc::clone(&replies)) },
            replies: Arc::clone(&replies),
            rules: Arc::clone(rules),
        }) {
            lifecycle.end();
            // Closing the connection tells qmgr, who defers what is out and comes again.
            return Err(io::Error::other(format!("start a delivery thread: {error}")));
        }
    }
    Ok(())
}

/// Has the agent deliver, and sends what it has not sent by then.
fn deliver(agent: &impl SiteAgent, job: &Job) {
    let mut results = Results::new(job);
    let is_probe = job.delivery.request.trace.is_probe();
    let delivered = catch_unwind(AssertUnwindSafe(|| match is_probe {
        true => agent.probe(&job.delivery, &mut results),
        false => agent.deliver(&job.delivery, &mut results),
    }));
    let site = delivered.unwrap_or_else(|panic| {
        log_panic(job.delivery.request.id, panic.as_ref());
        None
    });
    for position in results.undecided() {
        results.give(position, internal_error(agent.relay()));
    }
    results.end(site);
}

/// What the recipients of a delivery come to: each outcome is logged with its times, and sent to the queue manager.
pub struct Results<'a> {
    request: &'a Request,
    replies: &'a Arc<Replies>,
    rules: &'a OutcomeRules,
    decided: Vec<bool>,
    left: usize,
    /// What is to be sent: the outcome of the last recipient goes out together with the end.
    out: Vec<u8>,
    began: Instant,
    began_at: Duration,
    set_up: Option<Instant>,
    connection_uses: u64,
}

impl<'a> Results<'a> {
    fn new(job: &'a Job) -> Self {
        let (request, replies) = (&job.delivery.request, &job.replies);
        let left = request.recipients.len();
        Self {
            request,
            replies,
            rules: &job.rules,
            decided: vec![false; left],
            left,
            out: Vec::with_capacity(256),
            began: Instant::now(),
            began_at: since_epoch(),
            set_up: None,
            connection_uses: 1,
        }
    }

    /// The connection is made: what was waited for until this moment is its time, what comes is the transmission's.
    /// Where that is never said, all of the time counts for the connection.
    pub fn set_up(&mut self) {
        self.set_up = Some(Instant::now());
    }

    /// Another connection is being made.
    pub fn connecting(&mut self) {
        self.set_up = None;
        self.connection_uses = 1;
    }

    /// The connection serves for the so manieth time.
    pub fn reusing(&mut self, uses: u64) {
        self.connection_uses = uses;
    }

    /// The positions of the recipients that have no outcome yet.
    #[must_use]
    pub fn undecided(&self) -> Vec<usize> {
        (0..self.decided.len()).filter(|position| !self.decided[*position]).collect()
    }

    /// Says what became of the recipient at this position of the request. What is said first counts.
    pub fn give(&mut self, position: usize, outcome: Outcome) {
        let Some(recipient) = self.request.recipients.get(position) else { return };
        if std::mem::replace(&mut self.decided[position], true) {
            return;
        }
        self.left -= 1;
        let request = self.request;
        let outcome = self.rules.filtered(outcome);
        let is_soft =
            self.rules.soft_bounce && outcome.status == Status::Bounced && !request.trace.is_probe();
        let outcome = if is_soft { outcome.softened() } else { outcome };
        let log = match (request.trace.is_probe(), is_soft) {
            (true, _) => log::probed,
            (false, true) => log::softened,
            (false, false) => log::outcome,
        };
        log(request.id, &recipient.address, recipient.original.as_ref(), self.delays(), &outcome);
        let reply = Reply::Outcome { delivery: request.delivery, recipient: recipient.index, outcome };
        if frame::push_message(&mut self.out, &reply).is_err() {
            log::error!("{}: outcome of <{}> is too long to report", request.id, recipient.address);
        }
        if self.left > 0 {
            self.replies.keep_back(&mut self.out);
        }
    }

    fn delays(&self) -> log::Delays {
        let now = Instant::now();
        let set_up = self.set_up.unwrap_or(now);
        log::Delays {
            queued: self.request.active_since.saturating_sub(self.request.arrival),
            scheduled: self.began_at.saturating_sub(self.request.active_since),
            connecting: set_up.duration_since(self.began),
            delivering: now.duration_since(set_up),
            connection_uses: self.connection_uses,
        }
    }

    /// The times of the next recipient begin.
    fn begin_next(&mut self) {
        (self.began, self.began_at) = (Instant::now(), since_epoch());
        self.set_up = Some(self.began);
    }

    fn end(mut self, site: Option<SiteFailure>) {
        let done = Reply::Done { delivery: self.request.delivery, site };
        if frame::push_message(&mut self.out, &done).is_ok() {
            self.replies.send(&mut self.out);
        }
    }
}

/// Gives an agent its recipients, as many as it wants at a time; a panic leaves alone who has an outcome, and who comes later.
struct OneByOne<A> {
    agent: A,
    relay: String,
}

impl<A: Agent> SiteAgent for OneByOne<A> {
    fn probe(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        self.deliver(delivery, results)
    }

    fn deliver(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        let is_probe = delivery.request.trace.is_probe();
        let mut opened = None;
        let mut first = 0;
        for some in delivery.request.recipients.chunks(self.agent.at_a_time()) {
            results.begin_next();
            let delivered = catch_unwind(AssertUnwindSafe(|| {
                let mut give = |place: usize, outcome| results.give(first + place, outcome);
                match opened.get_or_insert_with(|| self.agent.open(delivery)) {
                    Ok(message) if is_probe => some.iter().enumerate().for_each(|(place, recipient)| {
                        give(place, self.agent.probe(delivery, message, recipient));
                    }),
                    Ok(message) => self.agent.deliver_some(delivery, message, some, &mut give),
                    Err(outcome) => {
                        (0..some.len()).for_each(|place| give(place, Outcome::clone(outcome)));
                    }
                }
            }));
            if let Err(panic) = delivered {
                log_panic(delivery.request.id, panic.as_ref());
                // Of those that have an outcome it is the first that counts.
                (0..some.len()).for_each(|place| results.give(first + place, internal_error(&self.relay)));
            }
            first += some.len();
        }
        None
    }

    fn relay(&self) -> &str {
        &self.relay
    }
}

fn log_panic(id: QueueId, panic: &(dyn Any + Send)) {
    log::line(log::Level::Panic, format_args!("{id}: {}", panic_text(panic)));
}

fn cannot_tell(relay: &str) -> Outcome {
    Outcome::deferred(relay, Dsn::new(4, 0, 0), "this transport cannot tell without a delivery")
}

fn internal_error(relay: &str) -> Outcome {
    Outcome::deferred(relay, Dsn::new(4, 3, 0), "internal error in the delivery agent; see the log")
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Replies {
    fn new(socket: UnixStream, senders: Arc<Workers<Arc<Self>>>) -> Self {
        Self { socket, outbox: Outbox::default(), senders, is_waited_for: AtomicBool::new(false) }
    }

    /// Has it sent with what is sent next, within [`KEPT_BACK_FOR`], however long the delivery takes that it is of.
    fn keep_back(self: &Arc<Self>, out: &mut Vec<u8>) {
        let is_much = self.outbox.leave(|waiting| {
            waiting.append(out);
            Ok(())
        });
        if is_much.unwrap_or(true) {
            self.send(out);
        } else if !self.is_waited_for.swap(true, Ordering::AcqRel)
            && self.senders.run(Arc::clone(self)).is_err()
        {
            // Without a thread more, it goes out at once.
            self.is_waited_for.store(false, Ordering::Release);
            self.send(out);
        }
    }

    fn send_later(self: Arc<Self>) {
        std::thread::sleep(KEPT_BACK_FOR);
        // What is kept back from here on is seen to by who does so.
        self.is_waited_for.store(false, Ordering::Release);
        self.send(&mut Vec::new());
    }

    /// A queue manager that is gone has its own way to find out what is left to do. One that is there would wait for what was
    /// not sent, and misread what follows half a reply: closing the connection makes it see to what it has no outcome of.
    fn send(&self, out: &mut Vec<u8>) {
        let put = |waiting: &mut Vec<u8>| {
            waiting.append(out);
            Ok(())
        };
        if let Err(error) = self.outbox.say(put, |words| (&self.socket).write_all(words)) {
            if error.kind() != io::ErrorKind::BrokenPipe {
                log::warning!("reply to the queue manager: {error}");
            }
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
