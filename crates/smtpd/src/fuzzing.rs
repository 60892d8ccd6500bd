//! What `tests/fuzz` reaches of this crate: the parsers of what clients and services send. No program uses it.

use std::net::SocketAddr;

use smtp_proto::Verb;

use crate::auth::{Step, dovecot};
use crate::policy::read_action;
use crate::proxy::{self, Header};
pub use crate::screen::fuzzing::{passed_entry, turned_away};
use crate::session::attribute;

/// The addresses of a PROXY header, none for a connection of the balancer's own, and how much is left behind it.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> Option<(Option<(SocketAddr, SocketAddr)>, usize)> {
    let mut input = bytes;
    match proxy::read(&mut input).ok()? {
        Header::Proxied(from, to) => Some((Some((from, to)), input.len())),
        Header::Local => Some((None, input.len())),
    }
}

/// What Dovecot announces: mechanisms with their traits.
#[must_use]
pub fn dovecot_greeting(mut bytes: &[u8]) -> Option<Vec<(String, Vec<String>)>> {
    let mechanisms = dovecot::read_greeting(&mut bytes).ok()?;
    Some(mechanisms.into_iter().map(|mechanism| (mechanism.name, mechanism.traits)).collect())
}

/// The user whom an answer of Dovecot's lets in.
#[must_use]
pub fn dovecot_accepts(line: &str) -> Option<String> {
    let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
    match dovecot::understood(&fields) {
        Step::Accepted(user) => Some(user),
        _ => None,
    }
}

/// The action of a policy service's answer.
#[must_use]
pub fn policy_action(bytes: &[u8]) -> Option<String> {
    read_action(bytes).ok()
}

/// Every meaning of the arguments of XCLIENT or XFORWARD, as texts that go on into headers and log lines.
#[must_use]
pub fn attributes(arguments: &str) -> Vec<String> {
    let attributes = attribute::parse(Verb::Xclient, arguments).unwrap_or_default();
    let texts = attributes.iter().flat_map(|attribute| {
        let address = attribute.address().ok().flatten().map(|address| address.to_string());
        let port = attribute.port().ok().map(|port| port.to_string());
        [attribute.host_name().ok().flatten(), address, port, attribute.word(), attribute.helo()]
    });
    texts.flatten().collect()
}
