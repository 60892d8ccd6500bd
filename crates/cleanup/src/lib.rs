//! cleanup, the only door into the queue, and pickup, which brings what local users submitted to that door.
//!
//! Contract: what a client hands over is checked and brought into canonical form here, and is durable before the client
//! is told so: in the queue, or where it was delivered already. A message streams through: only its header block is held in memory, within a limit.
//! Besides the header fields that `Rules` name, and what header and body checks ask for, not a byte of the content changes.
//!
//! A session (`session`) takes one message after another from its connection. The envelope is brought into its final form
//! at once (`recipients`); the content goes through `message`, field by field while the header block lasts (`checks`, `missing`), then in large pieces, or where there are checks line by line (`inspection`).

mod checks;
mod clock;
#[doc(hidden)]
pub mod fuzzing;
mod inspection;
mod message;
mod missing;
pub mod pickup;
mod prospects;
mod received;
mod recipients;
mod rules;
mod session;

pub use rules::Rules;

use std::sync::Arc;

use config::param;
use prospects::Prospects;
use queue::Root;
use service::{Fatal, Service};

/// The cleanup daemon: the phases after its birth.
///
/// # Errors
/// Tables that cannot be opened, a queue directory that is not one.
pub fn run(service: Service) -> Result<(), Fatal> {
    lookup::report_warnings_to(|text| ipc::log::warning!("{text}"));
    let rules = Rules::new(&service.config).map_err(Fatal::new)?;
    let root = Root::open(&service.queue_directory()).map_err(|error| service.without_queue(&error))?;
    let incoming = root.incoming().map_err(|error| Fatal::new(error.to_string()))?;
    let concurrency: u64 = service.config.get(param::EARLY_DELIVERY_CONCURRENCY);
    let early_delivery_concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    let committing = incoming.clone();
    let queue_manager = service.queue_manager().that_offers(move || committing.commit_journal());
    let prospects = Prospects::default();
    let door = session::Door { rules, incoming, queue_manager, early_delivery_concurrency, prospects };
    let door = Arc::new(door);
    service.serve_sessions(move |_, connection| session::serve(&door, &connection))
}

#[cfg(test)]
mod tests;
