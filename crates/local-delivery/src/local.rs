//! local(8): delivery to the users of this system, by aliases, `.forward` files, mailboxes and commands.
//!
//! # How an expansion is delivered
//! An alias or `.forward` file is expanded completely, nested aliases and `:include:` files with it. Then:
//! - ONE local destination is delivered here and now: a chain such as `postmaster: root`, `root: alice` costs nothing.
//! - Of SEVERAL destinations, commands, files and mailboxes are delivered here; all addresses, local or not, become the
//!   recipients of ONE new message, in which each has its own state on disk. It is sent when nothing else of the
//!   expansion waits for a retry, so a retry never sends it twice. A list of 10,000 costs one queue file.
//! - An alias with an `owner-` companion is always sent as a new message: its failures are the owner's.
//!
//! Postfix delivers local addresses of an alias at once, and after one that failed for now expands the alias again: the
//! others get the message twice. Here a destination that is done is remembered for as long as the process lives (see
//! `served`), so that only a crash or a reload in between makes a command run twice.
//!
//! # What leaves this process
//! Reading of a user's files happens as that user. An `:include:` file of root's alias database is opened with the
//! rights of the least trusted owner along its path, see `include`.

mod agent;
mod alias;
mod attempt;
mod environment;
mod expansion;
mod forward_file;
mod forwarding;
mod include;
mod mailbox;
mod pass;
mod routing;
mod served;
pub(crate) mod settings;

use service::{Fatal, Service};

use agent::LocalAgent;

/// The program `local`.
///
/// # Errors
/// A table cannot be opened, a setting makes no sense, or the skeleton's.
pub fn run(service: Service) -> Result<(), Fatal> {
    let agent = LocalAgent::of_service(&service)?;
    service.serve_deliveries(agent)
}

#[cfg(test)]
mod tests;
