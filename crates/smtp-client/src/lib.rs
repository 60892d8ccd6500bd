//! The SMTP and LMTP client: programs smtp and lmtp.
//!
//! Contract: takes a message to where its next hop says, and gives each recipient the outcome that the servers gave it. It
//! has no right to the queue: the message is a read-only descriptor. Nothing here decides when to try again, or whether
//! to tell the sender. Once a server has taken a message with its last reply, that counts, whatever happens then.
//!
//! - `agent`: the program: all that deliveries share, made of the configuration.
//! - `delivery`: one delivery: places in their order until each recipient has its answer; `hosts`: the servers of a place.
//! - `opening`: from a connection to a server that listens: greeting, EHLO, STARTTLS, AUTH.
//! - `login`, `token`: who this host is to a server.
//! - `transaction`: one message to one server: which reply decides about whom.
//! - `check`: what can be said of next hops before there is mail for them.
//! - `conversation`, `stream`, `connect`: bytes and time limits.
//! - `cache`: sessions that are kept for the next message.
//! - `content`: what is changed on the way out.
//!
//! The protocol itself is `smtp_proto::client`; the DNS and TLS are `net`.

mod agent;
mod cache;
mod check;
mod connect;
mod content;
mod conversation;
mod delivery;
mod destination;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod hosts;
mod login;
mod opening;
mod reply_filter;
mod server;
mod settings;
mod stream;
mod token;
mod transaction;

use config::{Config, Diagnostic, Severity};
use service::{Fatal, Service};
use smtp_proto::client::Protocol;

/// What `postroad check` says of the TLS and the next hops of a service: `prefix` is `smtp` or `lmtp`.
#[must_use]
pub fn verify(config: &Config, prefix: &str) -> Vec<Diagnostic> {
    let protocol = if prefix == "lmtp" { Protocol::Lmtp } else { Protocol::Smtp };
    let next_hops = check::next_hops(&settings::Own { config, protocol });
    let file = config.directory().join("main.cf");
    let diagnostic = |severity, text| Diagnostic { severity, file: file.clone(), line: 0, text };
    let warnings = net::tls::warnings(config, prefix).into_iter().chain(next_hops);
    let errors = net::tls::client::Context::new(config, prefix, None).err().into_iter();
    warnings
        .map(|text| diagnostic(Severity::Warning, text))
        .chain(errors.map(|text| diagnostic(Severity::Error, text)))
        .collect()
}

/// The SMTP client: the phases after its birth.
///
/// # Errors
/// Parameters, tables or files that cannot be used.
pub fn smtp(service: Service) -> Result<(), Fatal> {
    agent::run(service, Protocol::Smtp)
}

/// The LMTP client: the phases after its birth.
///
/// # Errors
/// As [`smtp`].
pub fn lmtp(service: Service) -> Result<(), Fatal> {
    agent::run(service, Protocol::Lmtp)
}
