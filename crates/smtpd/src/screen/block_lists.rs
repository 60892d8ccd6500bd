//! `postscreen_dnsbl_sites`: lists in the DNS, each with a weight, that add up to a score.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use config::{Config, param};
use ipc::log;
use lookup::{Maps, OpenError};
use net::dns::Answer;

use crate::restrictions::dns_list::{DnsList, reversed};

/// The lists.
pub(super) struct BlockLists {
    sites: Vec<Site>,
    /// `postscreen_dnsbl_reply_map`: a zone's name may be a secret.
    names: Option<Maps>,
    min_ttl: Duration,
    max_ttl: Duration,
}

struct Site {
    list: DnsList,
    weight: i32,
}

/// What the lists have said of one client until now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Score {
    pub(super) total: i32,
    /// The lists that have not answered.
    pub(super) awaited: usize,
    /// The list that weighs most against the client.
    worst: Option<(i32, String)>,
    ttl: Option<Duration>,
}

impl BlockLists {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        let texts: Vec<String> = config.get(param::POSTSCREEN_DNSBL_SITES);
        let map: String = config.get(param::POSTSCREEN_DNSBL_REPLY_MAP);
        let wrong = |why| OpenError::Configuration(format!("postscreen_dnsbl_sites: {why}"));
        Ok(Self {
            sites: texts.iter().map(|text| Site::parse(text)).collect::<Result<_, _>>().map_err(wrong)?,
            names: (!map.is_empty()).then(|| Maps::open(&[map])).transpose()?,
            min_ttl: config.get(param::POSTSCREEN_DNSBL_MIN_TTL),
            max_ttl: config.get(param::POSTSCREEN_DNSBL_MAX_TTL),
        })
    }

    pub(super) const fn are_none(&self) -> bool {
        self.sites.is_empty()
    }

    /// The zones to ask: several sites with different patterns may share one.
    pub(super) fn questions(&self, ip: IpAddr) -> Vec<(String, String)> {
        let mut zones: Vec<&str> = self.sites.iter().map(|site| site.list.zone()).collect();
        zones.sort_unstable();
        zones.dedup();
        let reversed = reversed(ip);
        zones.into_iter().map(|zone| (zone.to_owned(), format!("{reversed}.{zone}"))).collect()
    }

    /// Adds what a zone says of a client.
    pub(super) fn add(&self, score: &mut Score, zone: &str, answer: Option<&Answer<Vec<IpAddr>>>) {
        score.awaited = score.awaited.saturating_sub(1);
        let Some(answer) = answer else { return };
        score.ttl = Some(score.ttl.map_or(answer.ttl, |ttl| ttl.min(answer.ttl)));
        let found: Vec<Ipv4Addr> = answer
            .value
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        for site in self.sites.iter().filter(|site| site.list.zone() == zone) {
            if !found.iter().any(|ip| site.list.counts(*ip)) {
                continue;
            }
            score.total = score.total.saturating_add(site.weight);
            if score.worst.as_ref().is_none_or(|(weight, _)| *weight < site.weight) {
                score.worst = Some((site.weight, zone.to_owned()));
            }
        }
    }

    /// The list that a client is told to be on.
    pub(super) fn name_for(&self, score: &Score) -> String {
        let Some((_, zone)) = &score.worst else { return String::new() };
        let own = self.names.as_ref().map(|maps| maps.get(zone));
        match own {
            Some(Ok(Some(name))) => name,
            Some(Err(error)) => {
                log::warning!("postscreen_dnsbl_reply_map: {error}");
                zone.clone()
            }
            _ => zone.clone(),
        }
    }

    /// How long a good score counts: as long as the answers, within the limits of the parameters.
    pub(super) fn ttl_of(&self, score: &Score) -> Duration {
        score.ttl.unwrap_or(self.max_ttl).max(self.min_ttl).min(self.max_ttl.max(self.min_ttl))
    }
}

impl Site {
    /// `zone`, `zone=pattern`, each perhaps with `*weight`.
    fn parse(text: &str) -> Result<Self, String> {
        let (list, weight) = match text.rsplit_once('*') {
            Some((list, weight)) => {
                let weight = weight.parse().map_err(|_| {
                    format!("{text}: the weight behind * must be a whole number, such as 2 or -1")
                })?;
                (list, weight)
            }
            None => (text, 1),
        };
        Ok(Self { list: DnsList::parse(list).map_err(|why| format!("{text}: {why}"))?, weight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(sites: &str) -> BlockLists {
        let sites: Vec<Site> = sites.split(' ').map(|site| Site::parse(site).unwrap()).collect();
        let (min_ttl, max_ttl) = (Duration::from_secs(60), Duration::from_secs(3600));
        BlockLists { sites, names: None, min_ttl, max_ttl }
    }

    fn answer(ip: &str, ttl: u64) -> Answer<Vec<IpAddr>> {
        let value = vec![ip.parse().unwrap()];
        Answer { value, secure: false, ttl: Duration::from_secs(ttl), canonical: String::new() }
    }

    #[test]
    fn weights_add_up() {
        let lists = lists("a.example*2 a.example=127.0.0.[4..9]*3 b.example w.example*-4 c.example*5");
        assert_eq!(lists.questions("192.0.2.1".parse().unwrap()).len(), 4);
        let mut score = Score { awaited: 4, ..Score::default() };
        lists.add(&mut score, "a.example", Some(&answer("127.0.0.4", 600)));
        assert_eq!((score.total, score.awaited), (5, 3));
        lists.add(&mut score, "b.example", Some(&answer("127.0.0.2", 30)));
        lists.add(&mut score, "w.example", Some(&answer("127.0.0.2", 300)));
        lists.add(&mut score, "c.example", None);
        assert_eq!((score.total, score.awaited), (2, 0));
        assert_eq!(lists.name_for(&score), "a.example");
        assert_eq!(lists.ttl_of(&score), Duration::from_secs(60));
        assert_eq!(lists.ttl_of(&Score::default()), Duration::from_secs(3600));
    }

    #[test]
    fn mistakes_are_told() {
        for wrong in ["a.example*x", "a.example=127.0.0*2", "no zone", "*2", "a.example*"] {
            assert!(Site::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Site::parse("a.example=127.0.0.2*-7").unwrap().weight, -7);
    }
}
