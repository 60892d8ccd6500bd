//! The list of bans, and its file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use ipc::anvil::{BANS_FILE, Ban, ClientNetwork, format_bans, read_bans};

/// The most bans at a time.
const MAX_BANS: usize = 65_536;

/// Who is banned. Every change is on disk before it is said to be done.
#[derive(Debug)]
pub(crate) struct Bans {
    data_directory: PathBuf,
    list: BTreeMap<ClientNetwork, Ban>,
}

impl Bans {
    /// The bans of this instance; those that were there before count on.
    ///
    /// # Errors
    /// What reading the file says; the list is empty then, and the file is written anew with the next ban.
    pub(crate) fn open(data_directory: PathBuf) -> (Self, io::Result<()>) {
        let (list, result) = match read_bans(&data_directory) {
            Ok(bans) => (bans.into_iter().map(|ban| (ban.network, ban)).collect(), Ok(())),
            Err(error) => (BTreeMap::new(), Err(error)),
        };
        (Self { data_directory, list }, result)
    }

    /// Adds a ban, or makes one longer.
    ///
    /// # Errors
    /// What writing the file says; the ban is not in force then.
    pub(crate) fn add(&mut self, ban: Ban, now: u64) -> io::Result<()> {
        self.list.retain(|_, other| other.until > now);
        if self.list.len() >= MAX_BANS {
            return Err(io::Error::other(format!("there are {MAX_BANS} bans already")));
        }
        let network = ban.network;
        let before = self.list.insert(network, ban);
        self.save().inspect_err(|_| {
            match before {
                Some(before) => self.list.insert(network, before),
                None => self.list.remove(&network),
            };
        })
    }

    /// Lifts a ban; false where there is none.
    ///
    /// # Errors
    /// What writing the file says.
    pub(crate) fn remove(&mut self, network: ClientNetwork) -> io::Result<bool> {
        let Some(ban) = self.list.remove(&network) else { return Ok(false) };
        self.save().inspect_err(|_| drop(self.list.insert(network, ban)))?;
        Ok(true)
    }

    /// Forgets bans that are over; gives them.
    pub(crate) fn expire(&mut self, now: u64) -> Vec<Ban> {
        let over: Vec<Ban> = self.list.values().filter(|ban| ban.until <= now).cloned().collect();
        if !over.is_empty() {
            self.list.retain(|_, ban| ban.until > now);
            // Servers look at the end of each ban themselves.
            let _ = self.save();
        }
        over
    }

    /// Whether this very network is banned.
    pub(crate) fn contains(&self, network: ClientNetwork, now: u64) -> bool {
        self.list.get(&network).is_some_and(|ban| ban.until > now)
    }

    /// Replaces the file as a whole: a reader sees the old list or the new one.
    fn save(&self) -> io::Result<()> {
        let path = self.data_directory.join(BANS_FILE);
        let fresh = path.with_extension("new");
        let failed = |operation: &str, path: &std::path::Path, error: &io::Error| {
            io::Error::new(error.kind(), format!("{operation} {}: {error}", path.display()))
        };
        fs::write(&fresh, format_bans(self.list.values())).map_err(|e| failed("write", &fresh, &e))?;
        fs::rename(&fresh, &path).map_err(|e| failed("rename", &fresh, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(network: &str, until: u64) -> Ban {
        Ban { network: network.parse().unwrap(), until, reason: "because".to_owned() }
    }

    #[test]
    fn bans_outlive_the_process_and_end_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Bans::open(folder.path().to_owned());
        let (mut bans, result) = open();
        result.unwrap();
        bans.add(ban("192.0.2.1", 100), 10).unwrap();
        bans.add(ban("192.0.2.0/24", 200), 10).unwrap();
        let (mut bans, _) = open();
        assert!(bans.contains("192.0.2.1".parse().unwrap(), 99));
        assert!(!bans.contains("192.0.2.1".parse().unwrap(), 100));
        assert_eq!(bans.expire(150), [ban("192.0.2.1", 100)]);
        assert!(!bans.remove("192.0.2.1".parse().unwrap()).unwrap());
        assert!(bans.remove("192.0.2.0/24".parse().unwrap()).unwrap());
        assert_eq!(read_bans(folder.path()).unwrap(), []);
    }

    #[test]
    fn a_ban_that_cannot_be_written_is_not_in_force() {
        let (mut bans, _) = Bans::open("/nowhere/at/all".into());
        assert!(bans.add(ban("192.0.2.1", 100), 10).is_err());
        assert!(!bans.contains("192.0.2.1".parse().unwrap(), 10));
    }
}
