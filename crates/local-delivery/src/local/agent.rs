//! The agent: what all deliveries of the process share.

use std::path::PathBuf;

use config::{Config, param};
use ipc::log;
use mail::Outcome;
use queue::Content;
use service::{Agent, Delivery, DeliveryRecipient, Fatal, Service};

use super::attempt::Attempt;
use super::routing::Routing;
use super::served::Served;
use super::settings::Settings;
use crate::failure::{Failure, outcome};
use crate::letter::{self, Letter, Queued};
use crate::maildir::Lasting;
use crate::rights::{Instance, SystemUsers, Users};

/// What `relay=` says.
pub(super) const RELAY: &str = "local";

pub(super) struct LocalAgent {
    pub(super) settings: Settings,
    pub(super) routing: Routing,
    pub(super) instance: Instance,
    pub(super) users: Box<dyn Users>,
    pub(super) served: Served,
    pub(super) cleanup: ipc::cleanup::Client,
    pub(super) queue_directory: PathBuf,
    pub(super) lasting: Lasting,
}

impl LocalAgent {
    pub(super) fn of_service(service: &Service) -> Result<Self, Fatal> {
        let agent = Self::new(&service.config, &service.name, service.cleanup())?;
        if !agent.instance.is_root() {
            log::info!("not started by root: delivering to uid {} only", agent.instance.own_uid());
        }
        let (limit, size) = (agent.settings.limit, service.config.get(param::MESSAGE_SIZE_LIMIT));
        if limit > 0 && (size == 0 || limit < size) {
            log::warning!(
                "mailbox_size_limit = {limit} is smaller than message_size_limit = {size}: messages between them are \
                 taken in and then returned; set mailbox_size_limit to 0 or to something larger"
            );
        }
        Ok(agent)
    }

    pub(super) fn new(config: &Config, service: &str, cleanup: ipc::cleanup::Client) -> Result<Self, Fatal> {
        Ok(Self {
            settings: Settings::new(config)?,
            routing: Routing::new(config, service)?,
            instance: Instance::current(),
            users: Box::new(SystemUsers::default()),
            served: Served::default(),
            cleanup,
            queue_directory: config.get(param::QUEUE_DIRECTORY),
            lasting: Lasting::from_config(config),
        })
    }
}

impl LocalAgent {
    fn attempt(
        &self,
        delivery: &Delivery,
        content: &Content,
        recipient: &DeliveryRecipient,
    ) -> Result<Outcome, Failure> {
        let queued = Queued { content, delivery };
        let letter =
            Letter::open(&queued).map_err(|error| Failure::from_io(&error, "read the queue file"))?;
        Ok(Attempt::new(self, delivery, recipient, &letter).conclude_with_outcome())
    }
}

impl Agent for LocalAgent {
    type Message = Content;

    fn open(&self, delivery: &Delivery) -> Result<Content, Box<Outcome>> {
        letter::content_of(delivery).map_err(|failure| outcome(RELAY, Err(failure)).into())
    }

    fn deliver(&self, delivery: &Delivery, content: &Content, recipient: &DeliveryRecipient) -> Outcome {
        self.attempt(delivery, content, recipient).unwrap_or_else(|failure| outcome(RELAY, Err(failure)))
    }

    /// The same way to its end, where nothing is written, run or sent.
    fn probe(&self, delivery: &Delivery, content: &Content, recipient: &DeliveryRecipient) -> Outcome {
        self.deliver(delivery, content, recipient)
    }
}
