//! Deliveries under way: jobs that the scheduler begins, the agents they are given to, and what comes back.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{Config, Presence, ServiceKind};
use ipc::agent::{Reply, Request};
use ipc::log;
use mail::{Address, Outcome, QueueId};
use service::Mailbox;

use crate::event_loop::{Input, limits_of};
use crate::link::{Heard, Link};
use crate::message::ActiveMessage;
use crate::routing::Way;
use crate::scheduler::{Job, Scheduler, Started};

/// How often an agent may go away over a delivery before its recipients are deferred: it may be their message that ends
/// the agent, and others wait behind it.
const MAX_FAILURES: u32 = 3;

/// How long a transport rests after its agent went away or could not be reached; master restarts it meanwhile.
const REST: Duration = Duration::from_secs(1);

pub(crate) struct Deliveries {
    scheduler: Scheduler,
    /// The services of master.cf that agents stand behind, with their process limits.
    services: HashMap<String, Option<u32>>,
    config: Config,
    private: PathBuf,
    inbox: Arc<Mailbox<Input>>,
    links: HashMap<String, Link>,
    /// Connections to agents of an earlier generation, until their deliveries are done.
    retired: Vec<Link>,
    running: HashMap<u64, Running>,
    next_number: u64,
    /// Deliveries that wait or run, by message.
    open: HashMap<QueueId, usize>,
}

/// A delivery that an agent works on.
struct Running {
    started: Started,
    link: u64,
    /// The numbers, in the queue file, of those that have no outcome yet, with their positions.
    undecided: Vec<(u32, u32)>,
}

/// What came of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One recipient's outcome.
    Outcome { id: QueueId, index: u32, outcome: Outcome },
    /// A delivery of this message ended.
    Done { id: QueueId },
    /// The agent went away too often over these recipients.
    Abandoned { id: QueueId, positions: Vec<u32> },
}

impl Deliveries {
    pub(crate) fn new(config: &Config, private: PathBuf, inbox: Arc<Mailbox<Input>>) -> Self {
        Self {
            scheduler: Scheduler::default(),
            services: services_of(config),
            config: config.clone(),
            private,
            inbox,
            links: HashMap::new(),
            retired: Vec::new(),
            running: HashMap::new(),
            next_number: 1,
            open: HashMap::new(),
        }
    }

    /// Goes over to another configuration: new limits at once, new agents as soon as the old ones have finished.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.services = services_of(config);
        self.config = config.clone();
        for (transport, deliveries) in &self.services {
            if self.scheduler.limits(transport).is_some() {
                self.scheduler.set_limits(transport, limits_of(config, transport, *deliveries));
            }
        }
        self.retired.extend(self.links.drain().map(|(_, link)| link));
        self.retired.retain(|link| link.outstanding > 0);
    }

    /// Whether a transport has a program behind it.
    pub(crate) fn knows(&mut self, transport: &str) -> bool {
        let Some(deliveries) = self.services.get(transport) else { return false };
        if self.scheduler.limits(transport).is_none() {
            self.scheduler.set_limits(transport, limits_of(&self.config, transport, *deliveries));
        }
        true
    }

    /// What a recipient's concurrency is counted by: its next hop, or itself where a delivery has one recipient.
    pub(crate) fn destination(&self, way: &Way, recipient: &Address) -> String {
        match self.scheduler.limits(&way.transport) {
            Some(limits) if limits.destination_recipients == 1 => recipient.as_str().to_owned(),
            _ => way.nexthop.to_lowercase(),
        }
    }

    /// Queues deliveries for recipients that go the same way, as many to a delivery as its transport allows.
    pub(crate) fn queue(
        &mut self,
        id: QueueId,
        transport: &str,
        destination: &str,
        members: Vec<(String, u32)>,
    ) {
        let most = self.scheduler.limits(transport).map_or(1, |limits| limits.destination_recipients).max(1);
        for part in members.chunks(most) {
            let nexthop = part.first().map(|(nexthop, _)| nexthop.clone()).unwrap_or_default();
            let recipients = part.iter().map(|(_, position)| *position).collect();
            *self.open.entry(id).or_default() += 1;
            self.scheduler.add(transport, destination, Job { message: id, nexthop, recipients, failures: 0 });
        }
    }

    /// Whether a delivery of this message waits or runs.
    pub(crate) fn has_any(&self, id: QueueId) -> bool {
        self.open.contains_key(&id)
    }

    /// Deliveries that agents work on.
    pub(crate) fn running(&self) -> usize {
        self.scheduler.running()
    }

    /// When a transport that rests may go on.
    pub(crate) fn next_resume(&self) -> Option<Instant> {
        self.scheduler.next_resume()
    }

    /// Has all transports go on at once.
    pub(crate) fn resume_all(&mut self) {
        let now = Instant::now();
        self.scheduler.with_work().iter().for_each(|transport| self.scheduler.suspend(transport, now));
    }

    /// Begins all deliveries that may begin; gives those whose agent cannot be reached time and again.
    pub(crate) fn begin<'a>(
        &mut self,
        message: impl Fn(QueueId) -> Option<&'a ActiveMessage>,
    ) -> Vec<(QueueId, Vec<u32>)> {
        let (now, mut abandoned) = (Instant::now(), Vec::new());
        for transport in self.scheduler.with_work() {
            while let Some(started) = self.scheduler.start(&transport, now) {
                let Some(message) = message(started.job.message) else {
                    self.end(&started);
                    continue;
                };
                if let Err(error) = self.give(&started, message) {
                    log::warning!("transport {transport}: {error}");
                    abandoned.extend(self.fail(started));
                }
            }
        }
        abandoned
    }

    /// Gives a delivery to its agent.
    fn give(&mut self, started: &Started, message: &ActiveMessage) -> io::Result<()> {
        self.next_number += 1;
        let number = self.next_number;
        let positions = &started.job.recipients;
        let recipients: Vec<_> =
            positions.iter().filter_map(|p| message.recipients.get(*p as usize)).cloned().collect();
        let undecided = recipients.iter().map(|r| r.index).zip(positions.iter().copied()).collect();
        let request = Request {
            delivery: number,
            nexthop: started.job.nexthop.clone(),
            recipients,
            ..message.template.clone()
        };
        let link = match self.links.get_mut(&started.transport) {
            Some(link) => link,
            None => {
                let path = self.private.join(&started.transport);
                let inbox = Arc::clone(&self.inbox);
                let link = Link::connect(&path, number, move |heard| inbox.put(Input::Agent(number, heard)))
                    .map_err(|e| io::Error::new(e.kind(), format!("connect to {}: {e}", path.display())))?;
                self.links.entry(started.transport.clone()).or_insert(link)
            }
        };
        link.send(&request, message.file.as_fd())?;
        let running = Running { started: started.clone(), link: link.number, undecided };
        self.running.insert(number, running);
        Ok(())
    }

    /// Takes what a connection says.
    pub(crate) fn take(&mut self, link: u64, heard: Heard<Reply>) -> Vec<Verdict> {
        match heard {
            Heard::Replies(replies) => {
                replies.into_iter().filter_map(|reply| self.take_reply(link, reply)).collect()
            }
            Heard::Closed(error) => self.closed(link, error.as_ref()),
        }
    }

    fn take_reply(&mut self, link: u64, reply: Reply) -> Option<Verdict> {
        match reply {
            Reply::Outcome { delivery, recipient, outcome } => {
                let running = self.running.get_mut(&delivery).filter(|running| running.link == link)?;
                let place = running.undecided.iter().position(|(index, _)| *index == recipient)?;
                running.undecided.remove(place);
                Some(Verdict::Outcome { id: running.started.job.message, index: recipient, outcome })
            }
            Reply::Done { delivery, .. } => {
                let running = self.running.remove(&delivery)?;
                self.answered(link);
                let id = running.started.job.message;
                if running.undecided.is_empty() {
                    self.end(&running.started);
                    return Some(Verdict::Done { id });
                }
                log::warning!(
                    "{id}: the agent {} left recipients without an outcome",
                    running.started.transport
                );
                self.end(&running.started);
                Some(Verdict::Abandoned { id, positions: positions_of(&running) })
            }
        }
    }

    /// An agent went away: what it had not decided is given to its successor.
    fn closed(&mut self, link: u64, error: Option<&io::Error>) -> Vec<Verdict> {
        self.links.retain(|_, known| known.number != link);
        self.retired.retain(|known| known.number != link);
        let lost: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, running)| running.link == link)
            .map(|(number, _)| *number)
            .collect();
        let mut verdicts = Vec::new();
        for running in lost.iter().filter_map(|number| self.running.remove(number)).collect::<Vec<_>>() {
            let (id, transport) = (running.started.job.message, running.started.transport.clone());
            let why = error.map_or_else(String::new, |error| format!(" ({error})"));
            log::warning!(
                "{id}: the agent {transport} went away during the delivery{why}; it is tried again"
            );
            let mut started = running.started.clone();
            started.job.recipients = positions_of(&running);
            if started.job.recipients.is_empty() {
                self.end(&started);
                verdicts.push(Verdict::Done { id });
            } else if let Some((id, positions)) = self.fail(started) {
                verdicts.push(Verdict::Abandoned { id, positions });
            }
        }
        verdicts
    }

    /// Puts a delivery back after its agent failed, or gives it up after too many times.
    fn fail(&mut self, mut started: Started) -> Option<(QueueId, Vec<u32>)> {
        self.links.remove(&started.transport);
        self.scheduler.suspend(&started.transport, Instant::now() + REST);
        started.job.failures += 1;
        if started.job.failures < MAX_FAILURES {
            self.scheduler.put_back(started);
            return None;
        }
        self.end(&started);
        Some((started.job.message, started.job.recipients))
    }

    /// Gives back what a delivery held.
    fn end(&mut self, started: &Started) {
        self.scheduler.finish(started);
        let id = started.job.message;
        if let Some(count) = self.open.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&id);
            }
        }
    }

    fn answered(&mut self, number: u64) {
        if let Some(link) = self.links.values_mut().find(|link| link.number == number) {
            link.outstanding = link.outstanding.saturating_sub(1);
        } else if let Some(link) = self.retired.iter_mut().find(|link| link.number == number) {
            link.outstanding = link.outstanding.saturating_sub(1);
            self.retired.retain(|link| link.outstanding > 0);
        }
    }
}

fn positions_of(running: &Running) -> Vec<u32> {
    running.undecided.iter().map(|(_, position)| *position).collect()
}

/// The agents of master.cf: services on private UNIX sockets that are programs here.
fn services_of(config: &Config) -> HashMap<String, Option<u32>> {
    let agents = config.services().iter().filter(|entry| {
        entry.kind == ServiceKind::Unix && entry.private && entry.presence == Presence::Program
    });
    agents.map(|entry| (entry.name.clone(), entry.maxproc)).collect()
}
