//! Restrictions on the certificate that a client has shown.

use lookup::LookupError;

use super::access::act_on;
use super::class::Class;
use super::client::permit_if;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

/// `permit_tls_all_clientcerts`: whoever an authority of `smtpd_tls_CAfile` vouches for.
pub(super) fn permit_all(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    let tls = e.subject.client.tls.as_ref();
    Ok(permit_if(tls.is_some_and(|tls| tls.is_trusted())))
}

/// `permit_tls_clientcerts`: a certificate or key whose fingerprint is in `relay_clientcerts`, whoever vouches for it.
pub(super) fn permit_listed(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    for print in fingerprints(e) {
        if e.judge.relay_certificates.get(&print)?.is_some() {
            return Ok(Decision::Permit);
        }
    }
    Ok(Decision::Dunno)
}

/// `check_ccert_access`: what a table says of the certificate, else of its key.
pub(super) fn about(e: &mut Evaluation<'_>, _: Class, argument: &Argument) -> Result<Decision, LookupError> {
    let Argument::Table { maps, label } = argument else { return Ok(Decision::Dunno) };
    for print in fingerprints(e) {
        if let Some(value) = maps.get(&print)? {
            return act_on(e, Some(value), Class::Client, label);
        }
    }
    Ok(Decision::Dunno)
}

fn fingerprints(e: &Evaluation<'_>) -> Vec<String> {
    let prints = e.subject.client.tls.as_ref().and_then(|tls| tls.fingerprints());
    prints.map(Vec::from).unwrap_or_default()
}
