//! The senders of notices and probes: mail to them is taken, because other hosts ask whether they exist before they take
//! mail from them, and goes nowhere.

use std::time::Duration;

use config::{Config, param};
use mail::Address;

/// The local parts of `double_bounce_sender` and `address_verify_sender`.
pub struct Absorbed {
    double_bounce: String,
    /// None for the null sender.
    probe: Option<String>,
    /// `address_verify_sender_ttl` is set: something changing follows the local part.
    probe_varies: bool,
}

impl Absorbed {
    /// Those of this configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let local = |address: String| address.split('@').next().unwrap_or_default().to_ascii_lowercase();
        let probe = local(config.get(param::ADDRESS_VERIFY_SENDER));
        Self {
            double_bounce: local(config.get(param::DOUBLE_BOUNCE_SENDER)),
            probe: Some(probe).filter(|probe| !matches!(probe.trim(), "" | "<>" | "postmaster")),
            probe_varies: config.get::<Duration>(param::ADDRESS_VERIFY_SENDER_TTL).as_secs() > 0,
        }
    }

    /// Whether this address, of a domain of this host's, is one of them.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        let local = address.local_part().to_ascii_lowercase();
        let is_probe = self.probe.as_ref().is_some_and(|probe| {
            local == *probe
                || (self.probe_varies
                    && local
                        .strip_prefix(probe.as_str())
                        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric())))
        });
        is_probe || local == self.double_bounce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changing_sender_is_known_in_all_its_forms() {
        let contains = |settings: &str, local: &str| {
            let main_cf = format!("compatibility_level = 3.6\n{settings}\n").into_bytes();
            let snapshot = config::Snapshot { main_cf, master_cf: Vec::new() };
            let config = Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]);
            let address = Address::new(format!("{local}@example.com")).unwrap();
            Absorbed::from_config(&config.unwrap().0).contains(&address)
        };
        assert!(contains("", "double-bounce") && contains("", "Double-Bounce"));
        assert!(!contains("", "double-bounce1x") && !contains("", "jane"));
        assert!(contains("address_verify_sender_ttl = 1h", "double-bounce1x"));
        assert!(!contains("address_verify_sender_ttl = 1h", "double-bounce-x"));
        assert!(contains("address_verify_sender = probe@example.com", "probe"));
        assert!(!contains("address_verify_sender = postmaster", "postmaster"));
        assert!(!contains("address_verify_sender = <>", "x"));
    }
}
