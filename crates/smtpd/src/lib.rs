//! smtpd: the SMTP server, one process with a thread per session.
//!
//! The protocol is `smtp-proto`'s; what a client may do is [`restrictions`]'; the queue is cleanup's, to which a message
//! is streamed while it arrives, so that this process needs no right to it. What remains here is to carry bytes and
//! answers between them, within limits, and to log it.

pub mod auth;
mod client;
mod expansion;
#[doc(hidden)]
pub mod fuzzing;
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
    allow_files_for(&service, service.max_sessions);
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
    found.extend(files_needed(config));
    found
}

/// The most open files that a session needs: its client's, and the way of its message to cleanup.
const FILES_PER_SESSION: u64 = 2;

/// What a process has open beside its sessions: sockets, tables, the log, policy services.
const OWN_FILES: u64 = 64;

/// What is to be said where the system allows too few open files for so many sessions.
fn too_few_files(sessions: u32, allowed: u64) -> Option<String> {
    let needed = u64::from(sessions) * FILES_PER_SESSION + OWN_FILES;
    (needed > allowed).then(|| {
        format!(
            "{sessions} sessions need up to {needed} open files, and the system allows a process {allowed}: raise that limit \
             where master is started (LimitNOFILE= of its systemd unit, or ulimit -Hn), or lower the number of processes in \
             master.cf; clients wait while there are no more"
        )
    })
}

/// As many as the system allows, before rights are given up.
fn allow_files_for(service: &Service, sessions: Option<u32>) {
    let allowed = service.allow_most_files();
    if let Some(text) = allowed.zip(sessions).and_then(|(allowed, sessions)| too_few_files(sessions, allowed))
    {
        log::warning!("service \"{}\": {text}", service.name);
    }
}

/// The services of master.cf whose sessions could be more than this host has files for.
fn files_needed(config: &Config) -> Vec<Diagnostic> {
    let Some(allowed) = Service::most_files() else { return Vec::new() };
    let file = config.directory().join("master.cf");
    let servers = config.services().iter().filter(|entry| entry.command == "smtpd");
    let texts = servers.filter_map(|entry| {
        let text = too_few_files(entry.maxproc?, allowed)?;
        Some(format!("service {}: {text}", entry.name))
    });
    texts.map(|text| Diagnostic { severity: Severity::Warning, file: file.clone(), line: 0, text }).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_files_that_is_too_low_is_told() {
        assert_eq!(too_few_files(100, 1024), None);
        let text = too_few_files(1000, 1024).unwrap();
        assert!(
            text.starts_with(
                "1000 sessions need up to 2064 open files, and the system allows a process 1024"
            )
        );
    }
}
