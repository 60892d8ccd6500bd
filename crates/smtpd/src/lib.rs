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
pub mod screen;
mod server;
mod session;
mod space;
mod stress;
pub mod tls;
mod transcript;
mod transfer;
mod wire;

pub use server::Server;

use std::sync::Arc;

use config::{Config, Diagnostic, Severity};
use ipc::log;
use service::{Fatal, Service};
use stress::Stress;

/// Runs the service until master ends it.
///
/// # Errors
/// A configuration that cannot work; a socket or a privilege that fails.
pub fn run(service: Service) -> Result<(), Fatal> {
    log_problems(&service.config)?;
    let servers = Arc::new(Servers::new(&service, &service.config, &service.name)?);
    let stress = Stress::new(&service.name, service.max_sessions);
    let serving = Arc::clone(&servers);
    let result = service.serve_sessions(move |lifecycle, connection| {
        let server = serving.of(stress.with(lifecycle.busy()));
        session::serve(server, &connection, &|| lifecycle.stopping());
    });
    servers.calm.finish();
    result
}

/// What is wrong with a configuration for this server.
#[must_use]
pub fn judge(config: &Config) -> Vec<Diagnostic> {
    let mut found = restrictions::verify(config);
    found.extend(auth::verify(config));
    found.extend(tls::verify(config));
    found
}

/// Rather no server than one that lets in what the operator meant to keep out.
fn log_problems(config: &Config) -> Result<(), Fatal> {
    for problem in restrictions::verify(config).into_iter().chain(auth::verify(config)) {
        match problem.severity {
            Severity::Error => return Err(Fatal::new(problem.text)),
            Severity::Warning => log::warning!("{}", problem.text),
            Severity::Note => {}
        }
    }
    Ok(())
}

/// The server, and the same one under stress.
struct Servers {
    calm: Server,
    stressed: Server,
}

impl Servers {
    fn new(service: &Service, config: &Config, name: &str) -> Result<Self, Fatal> {
        let failed = |e: lookup::OpenError| Fatal::new(e.to_string());
        let calm = Server::new(config, name, service.cleanup()).map_err(failed)?;
        let calm = calm.with_tls(config, service.opener()).map_err(failed)?;
        let stressed = calm.stressed(config).map_err(failed)?;
        Ok(Self { calm, stressed })
    }

    const fn of(&self, stress: bool) -> &Server {
        if stress { &self.stressed } else { &self.calm }
    }
}
