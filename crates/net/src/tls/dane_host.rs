//! What `dane` and `dane-only` mean for one host: which TLSA records it has, and what is asked of it where it has none that can be
//! used (RFC 7672 section 2.2).

use std::fmt;

use config::Config;

use super::client::Context;
use super::policy::{Level, Policy};
use crate::dns::{Answer, DnsError, Tlsa};

/// What the DNS said of a host on the way to it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Its name.
    pub name: &'a str,
    /// The name at the end of its aliases.
    pub canonical: &'a str,
    /// The record that named the host is validated, or the operator named it.
    pub name_secure: bool,
    /// Its address records are validated.
    pub address_secure: bool,
    /// The port.
    pub port: u16,
}

/// Asks the DNS for the TLSA records of a name.
pub type LookUp<'a> = dyn Fn(&str) -> Result<Answer<Vec<Tlsa>>, DnsError> + 'a;

/// Why no mail goes to this host for the time being; the enhanced status is 4.7.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaneError {
    /// Nobody could say whether there are records: not to know is not to have none.
    Lookup {
        /// The host and port.
        site: String,
        /// For the log.
        cause: String,
    },
    /// `dane-only`, and this in the way.
    Impossible(&'static str),
    /// A configuration in which `dane-only` cannot work, or a policy that cannot be made.
    Configuration(String),
}

impl fmt::Display for DaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup { site, .. } => write!(f, "TLSA lookup error for {site}"),
            Self::Impossible(why) => f.write_str(why),
            Self::Configuration(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DaneError {}

/// The parameters that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Why DANE cannot be had with this configuration.
    obstacle: Option<&'static str>,
    /// `…_tls_dane_insecure_mx_policy`.
    insecure_mx: Level,
    /// `…_tls_force_insecure_host_tlsa_lookup`.
    force_lookup: bool,
}

impl Rules {
    pub(super) fn new(config: &Config, prefix: &str) -> Result<Self, String> {
        let text = |rest: &str| config.text(&format!("{prefix}_{rest}")).unwrap_or_default();
        let insecure_mx = match config.text("smtp_tls_dane_insecure_mx_policy").as_deref() {
            Some("may") => Level::May,
            Some("encrypt") => Level::Encrypt,
            Some("dane") => Level::Dane,
            other => {
                let given = other.unwrap_or_default();
                return Err(format!(
                    "smtp_tls_dane_insecure_mx_policy = {given}: must be may, encrypt or dane"
                ));
            }
        };
        let obstacle = obstacle(config, prefix).map(|(why, _)| why);
        Ok(Self { obstacle, insecure_mx, force_lookup: text("tls_force_insecure_host_tlsa_lookup") == "yes" })
    }
}

/// Why DANE cannot be had with this configuration, and the setting with which it can.
fn obstacle(config: &Config, prefix: &str) -> Option<(&'static str, String)> {
    let text = |rest: &str| config.text(&format!("{prefix}_{rest}")).unwrap_or_default();
    let uses_dns = config::split_list(&text("host_lookup")).iter().any(|word| word == "dns");
    if !uses_dns {
        Some(("dnssec lookups disabled", format!("{prefix}_host_lookup = dns")))
    } else if text("dns_support_level") != "dnssec" {
        Some(("dnssec lookups disabled", format!("{prefix}_dns_support_level = dnssec")))
    } else if config.text("ignore_mx_lookup_error").as_deref() == Some("yes") {
        Some(("MX lookup errors ignored", "ignore_mx_lookup_error = no".to_owned()))
    } else {
        None
    }
}

/// That `…_tls_security_level` asks for DANE where it cannot be had.
pub(super) fn warning(config: &Config, prefix: &str) -> Option<String> {
    let name = format!("{prefix}_tls_security_level");
    let level = Level::from_name(&config.text(&name)?).ok().filter(|level| level.uses_dane())?;
    let (why, remedy) = obstacle(config, prefix)?;
    let instead = match level {
        Level::DaneOnly => "all mail waits",
        _ => "it counts as may",
    };
    Some(format!(
        "{name} = {}: no TLSA records are looked up ({why}), and {instead}; set {remedy}",
        level.name()
    ))
}

impl Context {
    /// The policy for one host. `look_up` asks the DNS for the TLSA records of a name. A policy whose level has nothing to do with
    /// DANE comes back as it is.
    ///
    /// # Errors
    /// See [`DaneError`].
    pub fn policy_for_host(
        &self,
        policy: Policy,
        host: &Host<'_>,
        look_up: &LookUp<'_>,
    ) -> Result<Policy, DaneError> {
        if !policy.level.uses_dane() {
            return Ok(policy);
        }
        let rules = self.dane_rules();
        if let Some(obstacle) = rules.obstacle {
            return self.without_dane(&policy, Level::May, obstacle);
        }
        let mut level = policy.level;
        if !host.name_secure {
            if level == Level::DaneOnly {
                return Err(DaneError::Impossible("non DNSSEC destination"));
            }
            level = match rules.insecure_mx {
                Level::Dane => Level::HalfDane,
                lower => return self.lower(&policy, lower),
            };
        }
        let Some((base, records)) = find_records(host, rules.force_lookup, look_up)? else {
            return self.without_dane(&policy, Level::May, "no TLSA records found");
        };
        let usable = self.dane().usable(&records);
        if usable.is_empty() {
            return self.without_dane(&policy, Level::Encrypt, "TLSA records unusable");
        }
        Ok(Policy { level, tlsa: usable, tlsa_base: Some(base), ..policy })
    }

    /// What is left of a policy for which the records are missing.
    fn without_dane(&self, policy: &Policy, level: Level, why: &'static str) -> Result<Policy, DaneError> {
        match policy.level {
            Level::DaneOnly => Err(DaneError::Impossible(why)),
            _ => self.lower(policy, level),
        }
    }

    fn lower(&self, policy: &Policy, level: Level) -> Result<Policy, DaneError> {
        let made = self.policy_of_level(level).map_err(|e| DaneError::Configuration(e.to_string()))?;
        // What a table said for this destination holds as well without the records.
        let ciphers = if level == Level::May { made.ciphers } else { policy.ciphers };
        let protocols = if level == Level::May { made.protocols } else { policy.protocols };
        Ok(Policy { level, ciphers, protocols, tlsa: Vec::new(), tlsa_base: None, ..policy.clone() })
    }
}

/// The records, and the name they belong to: of the name at the end of the aliases if that is a secure way, else of the host's.
fn find_records(
    host: &Host<'_>,
    force: bool,
    look_up: &LookUp<'_>,
) -> Result<Option<(String, Vec<Tlsa>)>, DaneError> {
    if !host.address_secure && !force {
        return Ok(None);
    }
    let aliased = host.address_secure && !host.canonical.eq_ignore_ascii_case(host.name);
    for base in [aliased.then_some(host.canonical), Some(host.name)].into_iter().flatten() {
        match look_up(&format!("_{}._tcp.{base}", host.port)) {
            Ok(answer) if answer.secure => return Ok(Some((base.to_owned(), answer.value))),
            Ok(_)
            | Err(DnsError::NotFound { .. } | DnsError::NoData { .. } | DnsError::InvalidName { .. }) => {}
            Err(error) => {
                let site = format!("{}:{}", host.name, host.port);
                return Err(DaneError::Lookup { site, cause: error.to_string() });
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::dns::Kind;

    fn context(main_cf: &str) -> Context {
        let main_cf =
            format!("myhostname = a.example\nsmtp_tls_security_level = dane\n{main_cf}").into_bytes();
        let snapshot = config::Snapshot { main_cf, master_cf: Vec::new() };
        Context::new(&Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0, "smtp", None).unwrap()
    }

    /// A name of a zone, whether it is signed, and the usage of its only record; 255 for a server that fails.
    type Row = (&'static str, bool, u8);

    fn decide(
        main_cf: &str,
        level: Level,
        host: Host<'_>,
        zone: &[Row],
    ) -> Result<(Level, Option<String>), String> {
        let context = context(main_cf);
        let look_up = |name: &str| {
            let name = name.strip_prefix("_25._tcp.").unwrap().to_owned();
            match zone.iter().find(|(known, ..)| *known == name) {
                None => Err(DnsError::NotFound { name, kind: Kind::Tlsa }),
                Some((_, _, 255)) => {
                    Err(DnsError::Temporary { name, kind: Kind::Tlsa, cause: "SERVFAIL".into() })
                }
                Some((_, secure, usage)) => Ok(Answer {
                    value: vec![Tlsa { usage: *usage, selector: 1, matching: 1, data: vec![0; 32] }],
                    secure: *secure,
                    ttl: Duration::from_secs(60),
                    canonical: name,
                }),
            }
        };
        let policy = context.policy_of_level(level).unwrap();
        let decided = context.policy_for_host(policy, &host, &look_up);
        decided.map(|policy| (policy.level, policy.tlsa_base)).map_err(|e| e.to_string())
    }

    const HOST: Host<'_> =
        Host { name: "mx.test", canonical: "mx.test", name_secure: true, address_secure: true, port: 25 };
    const DNSSEC: &str = "smtp_dns_support_level = dnssec\n";

    #[test]
    fn dane_that_cannot_be_had_is_told_with_what_helps() {
        let told = |main_cf: &str, prefix: &str| {
            let main_cf = format!("myhostname = a.example\n{main_cf}").into_bytes();
            let snapshot = config::Snapshot { main_cf, master_cf: Vec::new() };
            crate::tls::warnings(&Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0, prefix)
        };
        let dane = "smtp_tls_security_level = dane\n";
        assert_eq!(
            told(dane, "smtp"),
            [
                "smtp_tls_security_level = dane: no TLSA records are looked up (dnssec lookups disabled), and it counts as \
              may; set smtp_dns_support_level = dnssec"
            ]
        );
        assert_eq!(
            told("lmtp_tls_security_level = dane-only\nsmtp_dns_support_level = enabled\n", "lmtp"),
            [
                "lmtp_tls_security_level = dane-only: no TLSA records are looked up (dnssec lookups disabled), and all mail \
              waits; set lmtp_dns_support_level = dnssec"
            ]
        );
        let only = |more: &str| told(&format!("{dane}{DNSSEC}{more}"), "smtp").join("");
        assert_eq!(only(""), "");
        assert!(only("smtp_host_lookup = native\n").ends_with("; set smtp_host_lookup = dns"));
        assert!(only("ignore_mx_lookup_error = yes\n").ends_with("; set ignore_mx_lookup_error = no"));
        assert_eq!(told("smtp_tls_security_level = may\n", "smtp"), [""; 0]);
        assert_eq!(told(dane, "lmtp"), [""; 0]);
        assert_eq!(told("smtpd_tls_security_level = may\n", "smtpd"), [""; 0]);
    }

    #[test]
    fn the_records_decide() {
        let aliased = Host { canonical: "real.test", ..HOST };
        let insecure = Host { address_secure: false, ..HOST };
        let rows: [(Host<'_>, &[Row], _, _); 9] = [
            (
                HOST,
                &[("mx.test", true, 3)],
                Ok((Level::Dane, Some("mx.test"))),
                Ok((Level::DaneOnly, Some("mx.test"))),
            ),
            (HOST, &[], Ok((Level::May, None)), Err("no TLSA records found")),
            (HOST, &[("mx.test", false, 3)], Ok((Level::May, None)), Err("no TLSA records found")),
            (HOST, &[("mx.test", true, 1)], Ok((Level::Encrypt, None)), Err("TLSA records unusable")),
            (
                HOST,
                &[("mx.test", true, 255)],
                Err("TLSA lookup error for mx.test:25"),
                Err("TLSA lookup error for mx.test:25"),
            ),
            (insecure, &[("mx.test", true, 3)], Ok((Level::May, None)), Err("no TLSA records found")),
            (
                aliased,
                &[("mx.test", true, 3), ("real.test", true, 3)],
                Ok((Level::Dane, Some("real.test"))),
                Ok((Level::DaneOnly, Some("real.test"))),
            ),
            (
                aliased,
                &[("mx.test", true, 2)],
                Ok((Level::Dane, Some("mx.test"))),
                Ok((Level::DaneOnly, Some("mx.test"))),
            ),
            (
                aliased,
                &[("mx.test", true, 2), ("real.test", true, 255)],
                Err("TLSA lookup error for mx.test:25"),
                Err("TLSA lookup error for mx.test:25"),
            ),
        ];
        for (host, zone, dane, only) in rows {
            for (level, expected) in [(Level::Dane, dane), (Level::DaneOnly, only)] {
                let expected =
                    expected.map(|(level, base): (Level, Option<&str>)| (level, base.map(str::to_owned)));
                assert_eq!(
                    decide(DNSSEC, level, host, zone),
                    expected.map_err(str::to_owned),
                    "{host:?} {zone:?}"
                );
            }
        }
    }

    #[test]
    fn an_insecure_mx_is_never_proof() {
        let host = Host { name_secure: false, ..HOST };
        let zone = [("mx.test", true, 3)];
        let decide =
            |more: &str, level| decide(&format!("{DNSSEC}{more}"), level, host, &zone).map(|found| found.0);
        assert_eq!(decide("", Level::Dane), Ok(Level::HalfDane));
        assert_eq!(decide("smtp_tls_dane_insecure_mx_policy = may\n", Level::Dane), Ok(Level::May));
        assert_eq!(decide("smtp_tls_dane_insecure_mx_policy = encrypt\n", Level::Dane), Ok(Level::Encrypt));
        assert_eq!(decide("", Level::DaneOnly), Err("non DNSSEC destination".into()));
    }

    #[test]
    fn without_dnssec_there_is_no_dane() {
        let zone = [("mx.test", true, 3)];
        assert_eq!(decide("", Level::Dane, HOST, &zone), Ok((Level::May, None)));
        assert_eq!(decide("", Level::DaneOnly, HOST, &zone), Err("dnssec lookups disabled".into()));
        let forced = format!("{DNSSEC}smtp_tls_force_insecure_host_tlsa_lookup = yes\n");
        let host = Host { address_secure: false, ..HOST };
        assert_eq!(decide(&forced, Level::Dane, host, &zone), Ok((Level::Dane, Some("mx.test".into()))));
    }
}
