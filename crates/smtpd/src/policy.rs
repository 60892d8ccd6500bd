//! Asking policy services: the client's side of Postfix's published policy protocol.
//!
//! A request is `name=value` lines and an empty line, the answer one line `action=…` and an empty line. Connections stay
//! open between requests and are shared by all sessions of this process; those of one message go over one connection,
//! because services gather what they learn of a message there. A service that cannot be asked costs a session at most
//! its timeout for each try; then its default action stands for the answer.

mod connection;
mod request;
mod service;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use config::{Config, param};
use ipc::log;

use crate::report::Subject;
use connection::Connection;
pub(crate) use connection::read_action;
pub(crate) use request::{Instance, next_instance};
pub(crate) use service::Service;

/// The most idle connections to one service.
const MAX_IDLE: usize = 100;

/// What happens when the default action itself names the service that cannot be asked.
const LAST_RESORT: &str = "451 4.3.5 Server configuration problem";

/// The open connections to all services of this configuration.
pub(crate) struct Services {
    queue_directory: PathBuf,
    facts: request::Facts,
    idle: Mutex<HashMap<String, Vec<Idle>>>,
}

/// A connection that waits for the next request.
struct Idle {
    connection: Connection,
    since: Instant,
    /// The message whose requests it has carried; nobody else's, until that message is done.
    held_for: Option<Instance>,
}

impl Services {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            queue_directory: config.get(param::QUEUE_DIRECTORY),
            facts: request::Facts::new(config),
            idle: Mutex::default(),
        }
    }

    /// The action that the service answers with, or that stands for it.
    pub(crate) fn ask(&self, service: &Service, subject: &Subject<'_>) -> String {
        let request = request::text(&self.facts, subject, &service.policy_context);
        let mut left = service.try_limit;
        loop {
            let (mut connection, used) = match self.take(service, subject.instance) {
                Some(connection) => (Ok(connection), true),
                None => (Connection::open(service, &self.queue_directory), false),
            };
            let answer = match &mut connection {
                Ok(connection) => connection.ask(&request, service.timeout),
                Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
            };
            match answer {
                Ok(action) => {
                    if let Ok(connection) = connection {
                        self.give_back(service, connection, subject.instance);
                    }
                    return action;
                }
                // It was closed while it waited, which services may do at any time: that is no failed try.
                Err(_) if used => continue,
                Err(error) => log::warning!("problem talking to server {}: {error}", service.name()),
            }
            left = left.saturating_sub(1);
            if left == 0 {
                return self.default_action(service, subject);
            }
            std::thread::sleep(service.retry_delay);
        }
    }

    fn default_action(&self, service: &Service, subject: &Subject<'_>) -> String {
        let action = &service.default_action;
        log::info!(
            "policy service {} does not answer about {}; default action: {action}",
            service.name(),
            subject.client
        );
        let asks_again = action.trim_start().to_ascii_lowercase().starts_with("check_policy_service");
        if asks_again { LAST_RESORT.to_owned() } else { action.clone() }
    }

    /// The message is done: its connections may carry the requests of others.
    pub(crate) fn release(&self, instance: Instance) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for waiting in idle.values_mut().flatten().filter(|waiting| waiting.held_for == Some(instance)) {
            waiting.held_for = None;
        }
    }

    fn take(&self, service: &Service, instance: Instance) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(service.name())?;
        let now = Instant::now();
        waiting.retain(|waiting| {
            now.duration_since(waiting.since) < service.max_idle
                && waiting.connection.age(now) < service.max_ttl
        });
        let place = waiting
            .iter()
            .rposition(|waiting| waiting.held_for == Some(instance))
            .or_else(|| waiting.iter().rposition(|waiting| waiting.held_for.is_none()))?;
        Some(waiting.swap_remove(place).connection)
    }

    fn give_back(&self, service: &Service, connection: Connection, instance: Instance) {
        if service.request_limit > 0 && connection.requests() >= service.request_limit {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.entry(service.name().to_owned()).or_default();
        if waiting.len() < MAX_IDLE {
            waiting.push(Idle { connection, since: Instant::now(), held_for: Some(instance) });
        }
    }
}

#[cfg(test)]
mod tests;
