//! Restrictions on who the client is.

use lookup::LookupError;

use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

/// Permits, or says nothing.
pub(super) const fn permit_if(yes: bool) -> Decision {
    if yes { Decision::Permit } else { Decision::Dunno }
}

/// `permit_mynetworks`.
pub(super) fn permit_mynetworks(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let client = e.subject.client;
    match client.ip {
        Some(ip) => Ok(permit_if(e.judge.mynetworks.matches_host(&client.name, ip)?)),
        None => Ok(permit_if(client.on_unix_socket)),
    }
}
