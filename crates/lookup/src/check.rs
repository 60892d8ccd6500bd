//! What `postroad check` can find out about lists, tables and classes before a daemon starts.

use config::{Config, PROGRAMS, Param, ServiceKind, param};

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
    let mut errors = tables(config);
    for result in [
        MatchList::mynetworks(config).map(drop),
        RecipientCheck::new(config).map(drop),
        VirtualAliases::new(config).map(drop),
        Canonical::new(config).map(drop),
        Masquerade::new(config).map(drop),
    ] {
        errors.extend(result.err().filter(|error| !is_told(&errors, error)));
    }
    let mut warnings = if errors.is_empty() { domains_in_two_classes(config) } else { Vec::new() };
    warnings.extend(transports_without_service(config));
    if config.get(param::INET_INTERFACES).is_empty() {
        let text = "inet_interfaces is empty: services of master.cf without an address of their own listen nowhere; \
                    write loopback-only where mail comes from this host alone";
        warnings.push(text.to_owned());
    }
    Findings { errors, warnings }
}

/// Opens every table that a parameter names.
fn tables(config: &Config) -> Vec<OpenError> {
    let mut errors = Vec::new();
    // The two that begin with proxy_ list the tables of others, where Postfix's proxymap may go.
    let names_tables = |name: &str| name.ends_with("_maps") && !name.starts_with("proxy_");
    // What merely takes over the value of another is told of that one.
    let is_own = |row: &config::Parameter| !row.default.contains('$') || config.is_set(row.name);
    let own = config::parameters().filter(|row| row.implemented && is_own(row));
    for parameter in own.filter(|row| names_tables(row.name)) {
        for spec in config::split_list(&config.text(parameter.name).unwrap_or_default()) {
            let named = |text| format!("{}: {text}", parameter.name);
            let error = crate::open(&spec).err().map(|error| match error {
                OpenError::Configuration(text) => OpenError::Configuration(named(text)),
                OpenError::Unavailable(text) => OpenError::Unavailable(named(text)),
            });
            errors.extend(error.filter(|error| !is_told(&errors, error)));
        }
    }
    errors
}

/// One table may stand in several parameters; the first one is enough to find it.
fn is_told(errors: &[OpenError], error: &OpenError) -> bool {
    let error = error.to_string();
    errors.iter().any(|other| without_parameter(&other.to_string()) == without_parameter(&error))
}

/// A text about a parameter without the name of that in front.
#[must_use]
pub fn without_parameter(text: &str) -> &str {
    text.split_once(": ").filter(|(name, _)| config::find(name).is_some()).map_or(text, |(_, rest)| rest)
}

/// Parameters that name a transport, with that of the domains which it is for.
const TRANSPORTS: [(&str, &str); 7] = [
    ("local_transport", "mydestination"),
    ("virtual_transport", "virtual_mailbox_domains"),
    ("relay_transport", "relay_domains"),
    ("default_transport", "relayhost"),
    ("content_filter", "content_filter"),
    ("mailbox_transport", "mailbox_transport"),
    ("fallback_transport", "fallback_transport"),
];

/// Mail for a transport that is no service waits until it is returned. What nobody has asked for may be missing.
fn transports_without_service(config: &Config) -> Vec<String> {
    let services = || config.services().iter().filter(|entry| entry.kind != ServiceKind::Inet);
    if config.services().is_empty() {
        return Vec::new();
    }
    let missing = |(parameter, domains): (&str, &str)| {
        let has_domains =
            || config.is_set(domains) && config.text(domains).is_some_and(|text| !text.is_empty());
        let wanted = config.is_set(parameter) || has_domains();
        let value = config.text(parameter).filter(|_| wanted)?;
        let name = value.split(':').next().filter(|name| !name.is_empty())?;
        if services().any(|entry| entry.name == name) {
            return None;
        }
        // The name of a program is no slip of the pen.
        let known = || services().map(|entry| entry.name.as_str()).filter(|_| !PROGRAMS.contains(&name));
        let near = config::nearest(name, known());
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Some(format!("{parameter} = {value}: master.cf has no service {name}, and mail for it waits{near}"))
    };
    TRANSPORTS.into_iter().filter_map(missing).collect()
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
        findings_with(main_cf, "")
    }

    fn findings_with(main_cf: &str, master_cf: &str) -> Findings {
        let base = "myhostname = mail.example.com\ninet_interfaces = 127.0.0.1\nalias_maps =\n";
        let main_cf = format!("{base}{main_cf}").into_bytes();
        let snapshot = config::Snapshot { main_cf, master_cf: master_cf.as_bytes().to_vec() };
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
    fn a_transport_that_is_no_service_is_told() {
        let master_cf = "smtp unix - - n - - smtp\nlocal unix - n n - - local\nscan inet n - n - - smtpd\n";
        let told = |main_cf: &str| findings_with(main_cf, master_cf).warnings;
        assert_eq!(
            told(
                "default_transport = smpt\nmailbox_transport = lmtp:unix:private/x\nrelay_domains = a.example\n"
            ),
            [
                "relay_transport = relay: master.cf has no service relay, and mail for it waits",
                "default_transport = smpt: master.cf has no service smpt, and mail for it waits; did you mean smtp?",
                "mailbox_transport = lmtp:unix:private/x: master.cf has no service lmtp, and mail for it waits",
            ]
        );
        assert_eq!(told("content_filter =\nrelayhost = [a.example]\nrelay_domains =\n"), [""; 0]);
        assert_eq!(told("content_filter = scan:x\nrelay_domains =\n").len(), 1);
        assert_eq!(findings("default_transport = smpt\nrelay_domains =\n").warnings, [""; 0]);
    }

    #[test]
    fn a_host_without_interfaces_is_told() {
        let warnings = findings("inet_interfaces =\n").warnings;
        assert!(warnings.iter().any(|text| text.starts_with("inet_interfaces is empty: ")), "{warnings:?}");
    }

    #[test]
    fn every_table_that_a_parameter_names_is_opened() {
        let found =
            findings("alias_database = hsh:/x\nmailbox_command_maps = hsh:/x\nproxy_read_maps = hsh:/y\n");
        let texts: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        let start = "mailbox_command_maps: table hsh:/x: there is no table type \"hsh\"; did you mean hash?";
        assert!(texts[0].starts_with(start), "{texts:?}");
    }

    #[test]
    fn what_can_never_work_is_told_once_with_its_parameter() {
        let found = findings("mynetworks = 10.1.0.0/8\nrelay_transport = :host\ntransport_maps = nosuch:x\n");
        let texts: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("transport_maps: table nosuch:x: there is no"), "{texts:?}");
        assert!(texts[1].starts_with("mynetworks: \"10.1.0.0/8\": bits are set"), "{texts:?}");
        assert!(texts[2].starts_with("relay_transport = :host: no transport is named"), "{texts:?}");
    }
}
