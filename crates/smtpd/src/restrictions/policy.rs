//! `check_policy_service`: a program of the site decides.

use lookup::LookupError;

use super::action::Entry;
use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

/// Asks the service, and does what it answers; where it cannot be asked, what `smtpd_policy_service_default_action` says.
pub(super) fn check(
    e: &mut Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::Policy(service) = argument else { return Ok(Decision::Dunno) };
    let action = e.judge.policy.ask(service, e.subject);
    Entry { value: &action, source: service.name(), class }.act(e)
}
