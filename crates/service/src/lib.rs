//! The skeleton of every daemon: a program is a function over a [`Service`], and this crate does the rest.
//!
//! A daemon's life has four phases, in this order and in one place:
//! 1. *before drop*: [`daemon`] takes what master left it (control socket, log, listening sockets, the checked
//!    configuration), confines the process to its files and ports, and calls the program, which opens its tables and keys
//!    with the rights it was started with;
//! 2. *drop*: `serve_…` becomes `mail_owner` for good, unless master.cf says that the service keeps root, gives up
//!    gaining rights again, and confines the process to its system calls ([`sandbox`]);
//! 3. *serve*: a thread per session ([`Service::serve_sessions`]) or per delivery ([`Service::serve_deliveries`]);
//! 4. *drain*: master asks for it (reload, stop) or goes away; no new work, what there is is finished.
//!
//! A panic in a session or a delivery ends that one, is logged, and costs nothing else.

mod accounts;
mod agent;
mod connection;
mod debug_peers;
mod judgement;
mod lifecycle;
mod mailbox;
mod outcome_rules;
mod ownership;
pub mod pass;
pub mod sandbox;
mod sessions;
mod startup;
pub mod transcript;
mod workers;

use std::fmt;

pub use agent::{Agent, Delivery, DeliveryRecipient, Results, SiteAgent};
pub use connection::{Connection, Stream, is_own_trouble, tell_own_trouble};
pub use debug_peers::DebugPeers;
pub use judgement::judge;
pub use lifecycle::{Event, Lifecycle};
pub use mailbox::Mailbox;
pub use sessions::{Sessions, accept_one};
pub use startup::{Listener, Opener, Service, daemon, daemon_with_judgement};
pub use workers::rest;

/// Why a daemon ends that should not: printed once, by [`daemon`]. Master starts it again, with back-off.
#[derive(Debug)]
pub struct Fatal(String);

impl Fatal {
    /// Operation, object, cause.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}

impl From<std::io::Error> for Fatal {
    fn from(error: std::io::Error) -> Self {
        Self(config::cause(&error))
    }
}
