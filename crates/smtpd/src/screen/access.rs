//! `postscreen_access_list`: clients that are known as good or bad before any test.

use std::net::IpAddr;

use config::{Config, param};
use ipc::log;
use lookup::{Maps, MatchList, OpenError};

/// What the list says of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Permit,
    Reject,
    Dunno,
}

/// The list.
pub(super) struct AccessList(Vec<Item>);

enum Item {
    Networks(MatchList),
    Table(Maps, String),
    Fixed(Verdict),
}

impl AccessList {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        let words: Vec<String> = config.get(param::POSTSCREEN_ACCESS_LIST);
        let item = |word: &String| {
            Ok(match verdict(word) {
                Some(verdict) => Item::Fixed(verdict),
                None if word.eq_ignore_ascii_case("permit_mynetworks") => {
                    Item::Networks(MatchList::mynetworks(config)?)
                }
                None if word.contains(':') => {
                    Item::Table(Maps::open(std::slice::from_ref(word))?, word.clone())
                }
                None => {
                    let text = format!(
                        "postscreen_access_list: unknown word \"{word}\"; it must be permit_mynetworks, permit, reject, \
                         dunno or a table such as cidr:/etc/postroad/postscreen_access.cidr"
                    );
                    return Err(OpenError::Configuration(text));
                }
            })
        };
        words.iter().map(item).collect::<Result<_, _>>().map(Self)
    }

    /// What the list says. A table that cannot be asked says nothing.
    pub(super) fn verdict(&self, ip: IpAddr) -> Verdict {
        for item in &self.0 {
            let found = match item {
                Item::Fixed(verdict) => *verdict,
                Item::Networks(list) => match list.matches_host("", ip) {
                    Ok(true) => Verdict::Permit,
                    Ok(false) => continue,
                    Err(error) => {
                        log::warning!("{error}");
                        continue;
                    }
                },
                Item::Table(maps, name) => match maps.get(&ip.to_string()) {
                    Ok(Some(value)) => verdict(value.trim()).unwrap_or_else(|| {
                        log::warning!(
                            "{name}: {ip}: unknown result \"{value}\": expected permit, reject or dunno"
                        );
                        Verdict::Dunno
                    }),
                    Ok(None) => continue,
                    Err(error) => {
                        log::warning!("{error}");
                        continue;
                    }
                },
            };
            return found;
        }
        Verdict::Dunno
    }
}

fn verdict(word: &str) -> Option<Verdict> {
    match word.to_ascii_lowercase().as_str() {
        "permit" => Some(Verdict::Permit),
        "reject" => Some(Verdict::Reject),
        "dunno" => Some(Verdict::Dunno),
        _ => None,
    }
}
