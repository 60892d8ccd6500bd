//! `debug_peer_list`: other sides whose sessions the log shows.

use std::net::IpAddr;

use config::{Config, param};
use ipc::log;
use lookup::domain::Parents;
use lookup::{MatchList, OpenError};

/// The list, and how much is shown.
pub struct DebugPeers {
    list: MatchList,
    level: u32,
}

impl DebugPeers {
    /// As the parameters say.
    ///
    /// # Errors
    /// A list that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let items: Vec<String> = config.get(param::DEBUG_PEER_LIST);
        let parents = Parents::from_config(config, "debug_peer_list");
        Ok(Self {
            list: MatchList::hosts("debug_peer_list", &items, parents)?,
            level: u32::try_from(config.get(param::DEBUG_PEER_LEVEL)).unwrap_or(u32::MAX),
        })
    }

    /// How much is shown of sessions with this host: nothing with 0, what is said with 1, and from 2 on what is decided, too.
    #[must_use]
    pub fn level_of(&self, name: &str, ip: IpAddr) -> u32 {
        if self.level == 0 {
            return 0;
        }
        match self.list.matches_host(name, ip) {
            Ok(true) => self.level,
            Ok(false) => 0,
            Err(error) => {
                log::warning!("{error}");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_networks_are_matched() {
        let main_cf = "debug_peer_list = 192.0.2.0/24, example.org\ndebug_peer_level = 3\n";
        let snapshot = config::Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) =
            Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        let peers = DebugPeers::new(&config).unwrap();
        assert_eq!(peers.level_of("unknown", "192.0.2.7".parse().unwrap()), 3);
        assert_eq!(peers.level_of("mx.example.org", "198.51.100.1".parse().unwrap()), 3);
        assert_eq!(peers.level_of("example.com", "198.51.100.1".parse().unwrap()), 0);
    }
}
