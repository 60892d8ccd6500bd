//! anvil: what all servers of an instance count together.
//!
//! Servers tell it what clients did that they should not do often; it decides who is banned, and keeps the list, which is a
//! file in `data_directory` that servers read. They ask it before an authenticated user sends more. And it writes the
//! statistics of client rates to the log; the rates themselves are counted within each server, which is one process,
//! because they hold for one service, as in Postfix.
//!
//! Contract: it never stands in the way of mail. Nothing is lost with it but counts; bans are on disk.

mod bans;
mod offences;
mod server;
mod users;
mod window;

use std::sync::Arc;
use std::time::Duration;

use config::Config;
use ipc::log;
use service::{Event, Fatal, Service};

/// How long nobody says anything until the program ends where it knows nothing that would be lost with it: on most sites it
/// is needed for an hour once a month.
const PATIENCE: Duration = Duration::from_secs(100);

/// Enough for a thread that looks at two tables.
const STACK: usize = 128 * 1024;

/// How often it is looked whether it has come to that.
const LOOK: Duration = Duration::from_secs(10);

/// Runs the service until master ends it, or nothing is left to count.
///
/// # Errors
/// A privilege or a socket that fails.
pub fn run(mut service: Service) -> Result<(), Fatal> {
    // The usual 1 in master.cf is about processes: one serves all servers, each of which keeps a connection.
    service.max_sessions = None;
    let server = Arc::new(server::Server::new(&service.config));
    let (told, directory) = (Arc::clone(&server), service.config.directory().to_owned());
    let program = service.program;
    service.lifecycle.tell(move |event| match event {
        Event::Reload(snapshot) => match Config::from_snapshot(&directory, &snapshot, &[]) {
            Ok((config, _)) => told.configure(&config),
            Err(_) => log::warning!("{program}: the configuration cannot be read; the old one stays"),
        },
        Event::Drain => {}
    });
    let (looked_at, lifecycle) = (Arc::clone(&server), Arc::clone(&service.lifecycle));
    let look = move || {
        while !looked_at.is_needless(PATIENCE) {
            std::thread::sleep(LOOK);
        }
        lifecycle.retire();
    };
    std::thread::Builder::new().name("idle".into()).stack_size(STACK).spawn(look)?;
    service.serve_sessions(move |_, connection| server.serve(&connection))
}
