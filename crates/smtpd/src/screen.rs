//! postscreen's work: clients are looked at before they cost a session.
//!
//! One thread holds all clients that are under test, with a socket and a few hundred bytes each: who speaks before the
//! greeting, or is on block lists, never gets a session. Who passes is remembered, and gets one in this process, on a thread
//! of its own: there is no second process that the connection would have to be handed to. The sessions are those of the
//! service `smtpd pass … smtpd` of master.cf, by its `-o` settings and its process limit.
//!
//! Postfix's tests behind the greeting (pipelining, commands of other protocols, bare line feeds) are not made here but
//! in the session, which sees the same and can refuse at once (`reject_unauth_pipelining`, `smtpd_forbidden_commands`,
//! `smtpd_forbid_bare_newline`): a client need not come again for the sake of a test, and finds TLS and AUTH. What is left
//! behind the greeting is to tell a client that has failed so, whatever it says (`refusing`).

mod access;
mod block_lists;
mod encrypted;
#[doc(hidden)]
pub mod fuzzing;
mod lookout;
mod passed;
mod peer;
mod refusing;
mod settings;
mod turn;

use std::sync::Arc;

use config::{Config, Diagnostic, Severity, param};
use ipc::log;
use lookup::OpenError;
use service::{Fatal, Service};

use crate::stress::Stress;
use crate::{Servers, session};
use lookout::Lookout;
use settings::Settings;

/// Runs the service until master ends it.
///
/// # Errors
/// A configuration that cannot work; a socket or a privilege that fails.
pub fn run(mut service: Service) -> Result<(), Fatal> {
    let failed = |error: OpenError| Fatal::new(error.to_string());
    let Some((name, config, limit)) = session_service(&service.config) else {
        return Err(Fatal::new(missing(&service.config)));
    };
    crate::log_problems(&config)?;
    let settings = Settings::new(&service.config).map_err(failed)?;
    let mut servers = Servers::new(&service, &config, &name)?;
    // The proxy has spoken before a session begins.
    servers.calm.proxy_timeout = None;
    servers.stressed.proxy_timeout = None;
    // One process, in Postfix, whose limits are the parameters postscreen_pre_queue_limit and its like.
    service.max_sessions = limit;
    // A client under test has one file, one with a session no more than two.
    let tested = u32::try_from(service.config.get(param::POSTSCREEN_PRE_QUEUE_LIMIT)).unwrap_or(u32::MAX);
    crate::allow_files_for(&service, limit.map(|limit| limit.saturating_add(tested / 2)));
    service.drop_privileges()?;
    let (servers, stress) = (Arc::new(servers), Stress::new(&name, limit));
    let serving = Arc::clone(&servers);
    let speaker: Arc<str> = format!("{}/smtpd", config.get(param::SYSLOG_NAME)).into();
    let sessions = service.sessions(move |lifecycle, connection| {
        log::speak_as(Some(Arc::clone(&speaker)));
        let server = serving.of(stress.with(lifecycle.busy()));
        session::serve(server, &connection, &|| lifecycle.stopping());
    });
    service.lifecycle.ready();
    let lookout = Lookout::new(settings, sessions, Arc::clone(&service.lifecycle), Arc::clone(&servers));
    let result = lookout.serve(service.listeners);
    servers.calm.finish();
    result
}

/// The service whose sessions clients get: its name, the configuration with its settings, and how many there may be.
fn session_service(config: &Config) -> Option<(String, Config, Option<u32>)> {
    let name: String = config.get(param::SMTPD_SERVICE_NAME);
    let entry = config
        .services()
        .iter()
        .find(|entry| entry.kind == config::ServiceKind::Pass && entry.name == name)?;
    let apply = |config: Config, (name, value): &(String, String)| config.with_text(name, value);
    let own = entry.overrides.iter().fold(config.clone(), apply);
    Some((entry.name.clone(), own, entry.maxproc))
}

fn missing(config: &Config) -> String {
    let name: String = config.get(param::SMTPD_SERVICE_NAME);
    format!(
        "postscreen needs the service that it lets clients to: add “{name} pass - - n - - smtpd” to master.cf \
         (smtpd_service_name = {name})"
    )
}

/// What is wrong with a configuration for this program, and for the sessions that it begins.
#[must_use]
pub fn judge(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut report = |text: String| {
        let file = config.directory().join("main.cf");
        found.push(Diagnostic { severity: Severity::Error, file, line: 0, text });
    };
    if let Err(error) = Settings::new(config) {
        report(error.to_string());
    }
    match session_service(config) {
        Some((_, config, _)) => found.extend(crate::judge(&config)),
        None => report(missing(config)),
    }
    found
}
