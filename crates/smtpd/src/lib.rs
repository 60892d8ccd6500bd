//! smtpd: the SMTP server, one process with a thread per session.
//!
//! The protocol is `smtp-proto`'s; what a client may do is [`restrictions`]'; the queue is cleanup's, to which a message
//! is streamed while it arrives, so that this process needs no right to it. What remains here is to carry bytes and
//! answers between them, within limits, and to log it.

pub mod auth;
mod client;
mod expansion;
mod limits;
mod names;
mod policy;
mod proxy;
mod refusal;
mod report;
pub mod restrictions;
mod server;
mod session;
mod space;
mod stress;
pub mod tls;
mod transcript;
mod transfer;
mod wire;

pub use server::Server;

use std::path::Path;
use std::sync::Arc;

use config::Severity;
use ipc::log;
use service::{Fatal, Service};
use stress::Stress;

/// Runs the service until master ends it.
///
/// # Errors
/// A configuration that cannot work; a socket or a privilege that fails.
pub fn run(service: Service) -> Result<(), Fatal> {
    for problem in restrictions::verify(&service.config).into_iter().chain(auth::verify(&service.config)) {
        match problem.severity {
            // Rather no server than one that lets in what the operator meant to keep out.
            Severity::Error => return Err(Fatal::new(problem.text)),
            Severity::Warning => log::warning!("{}", problem.text),
            Severity::Note => {}
        }
    }
    let failed = |e: lookup::OpenError| Fatal::new(e.to_string());
    let calm = Server::new(&service.config, &service.name, service.cleanup()).map_err(failed)?;
    let lifecycle = Arc::clone(&service.lifecycle);
    let opener = Box::new(move |path: &Path| lifecycle.open(path));
    let calm = calm.with_tls(&service.config, opener).map_err(failed)?;
    let stressed = calm.stressed(&service.config).map_err(failed)?;
    let servers = Arc::new((calm, stressed));
    let stress = Stress::new(&service.name, service.max_sessions);
    let serving = Arc::clone(&servers);
    let result = service.serve_sessions(move |lifecycle, connection| {
        let is_stressed = stress.with(lifecycle.busy());
        let server = if is_stressed { &serving.1 } else { &serving.0 };
        session::serve(server, &connection, &|| lifecycle.stopping());
    });
    servers.0.finish();
    result
}
