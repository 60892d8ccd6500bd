//! smtpd: the SMTP server, one process with a thread per session.
//!
//! The protocol is `smtp-proto`'s; what a client may do is [`restrictions`]'; the queue is cleanup's, to which a message
//! is streamed while it arrives, so that this process needs no right to it. What remains here is to carry bytes and
//! answers between them, within limits, and to log it.

mod client;
mod connections;
mod policy;
mod refusal;
mod report;
pub mod restrictions;
mod server;
mod session;
mod space;
mod transfer;
mod wire;

pub use server::Server;

use config::{Severity, param};
use ipc::log;
use service::{Fatal, Service};

/// Runs the service until master ends it.
///
/// # Errors
/// A configuration that cannot work; a socket or a privilege that fails.
pub fn run(service: Service) -> Result<(), Fatal> {
    for problem in restrictions::verify(&service.config) {
        match problem.severity {
            // Rather no server than one that lets in what the operator meant to keep out.
            Severity::Error => return Err(Fatal::new(problem.text)),
            Severity::Warning => log::warning!("{}", problem.text),
            Severity::Note => {}
        }
    }
    let server = Server::new(&service.config, service.cleanup()).map_err(|e| Fatal::new(e.to_string()))?;
    if service.config.get(param::SMTPD_PEERNAME_LOOKUP) {
        log::info!(
            "client names come from /etc/hosts only, not from the DNS; other clients are called unknown"
        );
    }
    service.serve_sessions(move |lifecycle, connection| {
        session::serve(&server, &connection, &|| lifecycle.stopping());
    })
}
