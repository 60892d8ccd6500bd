//! The domains whose mail may be asked for: `fast_flush_domains`, for `postqueue -s`, `sendmail -qR` and ETRN.

use std::collections::BTreeSet;

use config::Config;
use ipc::log;
use lookup::MatchList;
use mail::Notify;
use queue::{RecipientState, Stored};
use service::Fatal;

/// How many recipients are read at a time.
const BATCH: usize = 1000;

/// The most domains that are noted of one message.
const MOST_DOMAINS: usize = 100;

pub(crate) struct FlushSites {
    list: MatchList,
}

impl FlushSites {
    pub(crate) fn new(config: &Config) -> Result<Self, Fatal> {
        let list = MatchList::fast_flush_domains(config).map_err(|error| Fatal::new(error.to_string()))?;
        Ok(Self { list })
    }

    /// Whether no domain may be asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The domains that may be asked for in which a message has recipients that wait, in lower case.
    pub(crate) fn domains_of(&self, message: &Stored) -> Vec<String> {
        let (mut domains, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut next = 0;
        while !self.is_empty() && next < message.recipient_count() && domains.len() < MOST_DOMAINS {
            let batch = match message.recipients_from(next, BATCH) {
                Ok(batch) if !batch.is_empty() => batch,
                // It is tried at its time all the same.
                Ok(_) | Err(_) => break,
            };
            next = batch.last().map_or(u32::MAX, |last| last.index.saturating_add(1));
            let waiting = batch.into_iter().filter(|stored| {
                stored.state == RecipientState::Pending && !stored.recipient.notify.contains(Notify::EXPANDED)
            });
            for stored in waiting {
                let Some(domain) = stored.recipient.address.domain().map(str::to_lowercase) else { continue };
                if domains.contains(&domain) || refused.contains(&domain) {
                    continue;
                }
                let list = if self.contain(&domain) { &mut domains } else { &mut refused };
                list.insert(domain);
            }
        }
        domains.into_iter().take(MOST_DOMAINS).collect()
    }

    fn contain(&self, domain: &str) -> bool {
        self.list.matches_domain(domain).unwrap_or_else(|error| {
            log::warning!("fast_flush_domains: {error}");
            false
        })
    }
}
