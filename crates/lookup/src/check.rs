//! What `postroad check` can find out about lists, tables and classes before a daemon starts.

use config::{Config, Param, param};

use crate::canonical::{Canonical, Masquerade};
use crate::domain::Parents;
use crate::expand::VirtualAliases;
use crate::{MatchList, OpenError, RecipientCheck};

/// What is wrong with a configuration in the eyes of this crate.
#[derive(Debug, Default)]
pub struct Findings {
    /// What no daemon can work with.
    pub errors: Vec<OpenError>,
    /// What works, but hardly as it was meant.
    pub warnings: Vec<String>,
}

/// Opens all that the daemons will open, and looks for domains in more than one class.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let mut errors = Vec::new();
    for result in [
        MatchList::mynetworks(config).map(drop),
        RecipientCheck::new(config).map(drop),
        VirtualAliases::new(config).map(drop),
        Canonical::new(config).map(drop),
        Masquerade::new(config).map(drop),
    ] {
        errors.extend(result.err().filter(|error| !errors.contains(error)));
    }
    let warnings = if errors.is_empty() { domains_in_two_classes(config) } else { Vec::new() };
    Findings { errors, warnings }
}

/// The lists of the classes, in the order in which they are tried.
const CLASSES: [Param<Vec<String>>; 4] = [
    param::MYDESTINATION,
    param::VIRTUAL_ALIAS_DOMAINS,
    param::VIRTUAL_MAILBOX_DOMAINS,
    param::RELAY_DOMAINS,
];

fn domains_in_two_classes(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (at, later) in CLASSES.iter().enumerate() {
        for earlier in &CLASSES[..at] {
            // The literals of one list, looked up in the other; `relay_domains` is about subdomains too, so an entry
            // that only lies below another is no mistake.
            let literals = config.get(*later).into_iter().filter(|item| is_literal(item));
            let list = config.get(*earlier);
            warnings.extend(literals.filter(|domain| holds(config, earlier.name(), &list, domain)).map(
                |domain| {
                    format!(
                        "{domain} is in {} and in {}: the first is what counts; list it in one of them only",
                        earlier.name(),
                        later.name()
                    )
                },
            ));
        }
    }
    warnings
}

fn is_literal(item: &str) -> bool {
    !item.contains([':', '/', '!']) && !item.starts_with('.')
}

/// Whether a list holds `domain` itself. A table that cannot be asked has been complained about already.
fn holds(config: &Config, parameter: &str, items: &[String], domain: &str) -> bool {
    let list = MatchList::domains(parameter, items, Parents::from_config(config, parameter));
    list.is_ok_and(|list| list.matches(domain).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn findings(main_cf: &str) -> Findings {
        let base = "myhostname = mail.example.com\ninet_interfaces = 127.0.0.1\nalias_maps =\n";
        let main_cf = format!("{base}{main_cf}").into_bytes();
        let snapshot = config::Snapshot { main_cf, master_cf: Vec::new() };
        check(&Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0)
    }

    #[test]
    fn a_domain_in_two_classes_is_told() {
        let found = findings(
            "virtual_alias_maps = inline:{ {alias.example = x} }\n\
             virtual_mailbox_domains = mail.example.com, box.example\n\
             relay_domains = alias.example, sub.box.example\n",
        );
        assert!(found.errors.is_empty(), "{:?}", found.errors);
        assert_eq!(
            found.warnings,
            [
                "mail.example.com is in mydestination and in virtual_mailbox_domains: \
                 the first is what counts; list it in one of them only",
                "alias.example is in virtual_alias_domains and in relay_domains: \
                 the first is what counts; list it in one of them only",
            ]
        );
    }

    #[test]
    fn what_can_never_work_is_told_once_with_its_parameter() {
        let found = findings("mynetworks = 10.1.0.0/8\nrelay_transport = :host\ntransport_maps = nosuch:x\n");
        let texts: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("mynetworks: \"10.1.0.0/8\": bits are set"), "{texts:?}");
        assert!(texts[1].starts_with("relay_transport = :host: no transport is named"), "{texts:?}");
    }
}
