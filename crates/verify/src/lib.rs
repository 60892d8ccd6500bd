//! verify: what is known of addresses, and the probes that find it out.
//!
//! smtpd asks about an address before it takes mail from or to it. What is not known, or not known any more, is found out
//! by a message without content that goes through the queue like any other, but that no agent delivers; bounce, whom the
//! queue manager tells what became of it, tells this program. It stands between several servers and the queue, so it can
//! live in none of them: a server sees no outcomes, and what one has found out serves all.
//!
//! Contract: a query is answered from memory; probes are submitted by a thread of their own. Nothing is lost with this
//! program but what a probe finds out again.

mod entry;
#[doc(hidden)]
pub mod fuzzing;
mod probe;
mod server;

use std::sync::Arc;

use config::{Config, Diagnostic, Severity, param};
use ipc::log;
use lookup::Cache;
use service::{Event, Fatal, Service};

/// Runs the service until master ends it.
///
/// # Errors
/// A table or an address that cannot be used; a privilege or a socket that fails.
pub fn run(mut service: Service) -> Result<(), Fatal> {
    // The process limit of master.cf is Postfix's one process for all clients, not one client.
    service.max_sessions = None;
    let server = server::Server::new(&service.config, service.cleanup()).map_err(Fatal::new)?;
    let server = Arc::new(server);
    let (told, directory) = (Arc::clone(&server), service.config.directory().to_owned());
    service.lifecycle.tell(move |event| match event {
        Event::Reload(snapshot) => match Config::from_snapshot(&directory, &snapshot, &[]) {
            Ok((config, _)) => told.configure(&config),
            Err(_) => log::warning!("the configuration cannot be read; the old one stays"),
        },
        Event::Drain => {}
    });
    service.serve_sessions(move |_, connection| server::serve(&server, &connection))
}

/// What is wrong with the parameters of this program.
#[must_use]
pub fn judge(config: &Config) -> Vec<Diagnostic> {
    let table: String = config.get(param::ADDRESS_VERIFY_MAP);
    let mut found = Vec::new();
    let mut report = |name: &str, text: String| {
        let (file, line) = (config.directory().join("main.cf"), config.line_of(name).unwrap_or_default());
        found.push(Diagnostic { severity: Severity::Error, file, line, text });
    };
    if let Err(error) = Cache::named("address_verify_map", &table) {
        report("address_verify_map", error.to_string());
    }
    if let Err(text) = probe::Sender::new(config) {
        report("address_verify_sender", text);
    }
    found
}
