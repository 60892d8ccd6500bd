//! Restrictions on the certificate that a client has shown.

use config::split_list;
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

/// What of a certificate a table is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    Fingerprint,
    KeyFingerprint,
    /// The common name, of a certificate that an authority vouches for: anybody can write any name into one of his own.
    Subject,
    /// The issuer's common name, likewise.
    Issuer,
}

/// A table, and what it is asked for, in this order.
pub(super) struct Search {
    pub(super) table: String,
    pub(super) order: Vec<Feature>,
}

const FEATURES: [(&str, Feature); 4] = [
    ("cert_fingerprint", Feature::Fingerprint),
    ("pubkey_fingerprint", Feature::KeyFingerprint),
    ("subject_cn", Feature::Subject),
    ("issuer_cn", Feature::Issuer),
];

impl Search {
    /// Reads `type:table`, or `{ type:table, { search_order = cert_fingerprint, … } }`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut order = vec![Feature::Fingerprint, Feature::KeyFingerprint];
        let Some(inner) = inside_braces(text) else { return Ok(Self { table: text.to_owned(), order }) };
        let words = split_list(inner);
        let (table, attributes) = words.split_first().ok_or("the braces are empty")?;
        for attribute in attributes {
            let bare = inside_braces(attribute).unwrap_or(attribute);
            let found = bare.split_once('=').filter(|(name, _)| name.trim() == "search_order");
            let (_, value) = found.ok_or_else(|| format!("\"{attribute}\" is not {{ search_order = … }}"))?;
            order = split_list(value).iter().map(|word| feature(word)).collect::<Result<_, _>>()?;
        }
        Ok(Self { table: table.clone(), order })
    }
}

fn inside_braces(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}').map(str::trim)
}

fn feature(word: &str) -> Result<Feature, String> {
    let known = FEATURES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    known.map(|(_, feature)| *feature).ok_or_else(|| {
        format!("search_order: there is no {word}; there are {}", FEATURES.map(|(name, _)| name).join(", "))
    })
}

/// `check_ccert_access`: what a table says of the certificate, else of its key; or of what `search_order` names.
pub(super) fn about(e: &mut Evaluation<'_>, _: Class, argument: &Argument) -> Result<Decision, LookupError> {
    let (Argument::Certificate { maps, label, order }, Some(tls)) = (argument, &e.subject.client.tls) else {
        return Ok(Decision::Dunno);
    };
    let prints = tls.fingerprints();
    for feature in order {
        let key = match feature {
            Feature::Fingerprint => prints.as_ref().map(|[certificate, _]| certificate.as_str()),
            Feature::KeyFingerprint => prints.as_ref().map(|[_, key]| key.as_str()),
            Feature::Subject => tls.trusted_names().map(|(subject, _)| subject),
            Feature::Issuer => tls.trusted_names().map(|(_, issuer)| issuer),
        };
        let Some(key) = key.filter(|key| !key.is_empty()) else { continue };
        match maps.get(key) {
            Ok(None) => {}
            found => return act_on(e, found, Class::Client, label),
        }
    }
    Ok(Decision::Dunno)
}

fn fingerprints(e: &Evaluation<'_>) -> Vec<String> {
    let prints = e.subject.client.tls.as_ref().and_then(|tls| tls.fingerprints());
    prints.map(Vec::from).unwrap_or_default()
}
