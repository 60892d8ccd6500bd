//! Who is banned, as anvil's file says: looked at again at most once a second, and only read when it has changed.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipc::anvil::{BANS_FILE, Ban, ClientNetwork, read_bans};
use ipc::log;

/// How long the file is trusted to be what it was.
const CHECK: Duration = Duration::from_secs(1);

/// The list.
pub(super) struct Bans {
    data_directory: PathBuf,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    checked: Option<Instant>,
    /// What tells one version of the file from another; none while there is no file.
    version: Option<(u64, i64, i64, u64)>,
    list: Arc<List>,
}

#[derive(Default)]
struct List {
    bans: HashMap<ClientNetwork, Ban>,
    /// The lengths that occur: of IPv6 or not, and the prefix.
    lengths: BTreeSet<(bool, u8)>,
}

impl Bans {
    pub(super) fn new(data_directory: PathBuf) -> Self {
        Self { data_directory, cached: Mutex::default() }
    }

    /// The ban of this address, of the smallest network first.
    pub(super) fn of(&self, ip: IpAddr) -> Option<Ban> {
        let list = self.list();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let lengths = list.lengths.iter().rev().filter(|(is_v6, _)| *is_v6 == ip.is_ipv6());
        let mut found = lengths.filter_map(|(_, prefix)| list.bans.get(&ClientNetwork::of(ip, *prefix)));
        found.find(|ban| ban.until > now).cloned()
    }

    fn list(&self) -> Arc<List> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if cached.checked.is_some_and(|checked| now.duration_since(checked) < CHECK) {
            return Arc::clone(&cached.list);
        }
        cached.checked = Some(now);
        let path = self.data_directory.join(BANS_FILE);
        let version = match fs::metadata(&path) {
            Ok(file) => Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                log::warning!("look at {}: {error}", path.display());
                return Arc::clone(&cached.list);
            }
        };
        if version != cached.version {
            match read_bans(&self.data_directory) {
                Ok(bans) => {
                    let lengths =
                        bans.iter().map(|ban| (ban.network.is_v6(), ban.network.prefix())).collect();
                    let bans = bans.into_iter().map(|ban| (ban.network, ban)).collect();
                    (cached.list, cached.version) = (Arc::new(List { bans, lengths }), version);
                }
                // The list that is known stays in force.
                Err(error) => log::warning!("read the list of bans: {error}"),
            }
        }
        Arc::clone(&cached.list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_counts_and_no_ban_that_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let ban = |network: &str, until, reason: &str| Ban {
            network: network.parse().unwrap(),
            until,
            reason: reason.to_owned(),
        };
        let list = [
            ban("192.0.2.0/24", u64::MAX, "net"),
            ban("192.0.2.1", u64::MAX, "host"),
            ban("192.0.2.2", 1, "over"),
            ban("2001:db8::/32", u64::MAX, "six"),
        ];
        fs::write(folder.path().join(BANS_FILE), ipc::anvil::format_bans(list.iter())).unwrap();
        let bans = Bans::new(folder.path().to_owned());
        let reason = |ip: &str| bans.of(ip.parse().unwrap()).map(|ban| ban.reason);
        assert_eq!(reason("192.0.2.1").as_deref(), Some("host"));
        assert_eq!(reason("192.0.2.2").as_deref(), Some("net"));
        assert_eq!(reason("192.0.3.1"), None);
        assert_eq!(reason("2001:db8:1::1").as_deref(), Some("six"));
        assert_eq!(reason("::1"), None);
    }
}
