//! `data_directory/qmgr.pace`: until when destinations with a rate have to wait, so that a restart does not forget it.
//!
//! A line is added before a delivery begins, and the file is written anew when it has grown: nothing is synced, since a
//! power cut takes longer than most rates ask for. The lines are written by the loop itself, the one exception to its
//! leaving disks alone: a line that was still on its way to a thread when the process is killed would be a delivery too
//! many, and there are few of them by their nature.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::log;

use crate::scheduler::Site;

/// Waits that are shorter are not written down: a restart takes as long.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

/// How large the file may become before it is written anew.
const LARGE: usize = 256 * 1024;

/// How much of a file is believed: what a million destinations need is a tenth of it.
const LARGEST: u64 = 64 * 1024 * 1024;

pub(crate) struct PaceRecord {
    path: PathBuf,
    file: Option<File>,
    size: usize,
    /// The size at which it is written anew.
    limit: usize,
}

impl PaceRecord {
    /// Reads the record of an earlier process. One that cannot be read or written is said so, and done without.
    pub(crate) fn open(data_directory: &Path, now: SystemTime) -> (Self, Vec<(Site, SystemTime)>) {
        let path = data_directory.join("qmgr.pace");
        let held = match read(&path) {
            Ok(text) => parse(&text, now),
            Err(error) => {
                log::warning!("read {}: {error}; rates begin afresh", path.display());
                Vec::new()
            }
        };
        let mut record = Self { path, file: None, size: 0, limit: LARGE };
        if !held.is_empty() {
            record.rewrite(held.iter().map(|(site, time)| (&*site.transport, &*site.destination, *time)));
        }
        (record, held)
    }

    /// Notes until when a destination has to wait; `true` when the file has grown, so that it should be written anew.
    pub(crate) fn note(&mut self, site: &Site, until: SystemTime) -> bool {
        let line = line(&site.transport, &site.destination, until);
        let written = self.file().and_then(|file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            log::warning!("write {}: {error}; a restart would forget the rates", self.path.display());
        }
        self.size += line.len();
        self.size > self.limit
    }

    /// Replaces the file by what still holds.
    pub(crate) fn rewrite<'a>(&mut self, held: impl Iterator<Item = (&'a str, &'a str, SystemTime)>) {
        let text: String =
            held.map(|(transport, destination, until)| line(transport, destination, until)).collect();
        let fresh = self.path.with_extension("pace.new");
        self.file = None;
        if let Err(error) = fs::write(&fresh, &text).and_then(|()| fs::rename(&fresh, &self.path)) {
            log::warning!("write {}: {error}; a restart would forget the rates", fresh.display());
        }
        self.size = text.len();
        self.limit = LARGE.max(2 * self.size);
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => Ok(none.insert(OpenOptions::new().append(true).create(true).open(&self.path)?)),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(LARGEST).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn line(transport: &str, destination: &str, until: SystemTime) -> String {
    let since = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06} {transport} {destination}\n", since.as_secs(), since.subsec_micros())
}

/// The last line of each destination that is not over yet. A torn line is none.
fn parse(text: &str, now: SystemTime) -> Vec<(Site, SystemTime)> {
    let mut held = HashMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut fields = line.splitn(3, ' ');
        let (Some(time), Some(transport), Some(destination)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some((seconds, micros)) = time.split_once('.') else { continue };
        let (Ok(seconds), Ok(micros)) = (seconds.parse::<u32>(), micros.parse::<u32>()) else { continue };
        let since = Duration::from_secs(seconds.into()) + Duration::from_micros(micros.into());
        held.insert((transport, destination), UNIX_EPOCH + since);
    }
    let site = |(transport, destination): (&str, &str)| Site {
        transport: transport.into(),
        destination: destination.into(),
    };
    held.into_iter().filter(|(_, until)| *until > now).map(|(names, until)| (site(names), until)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(destination: &str) -> Site {
        Site { transport: "smtp".into(), destination: destination.into() }
    }

    #[test]
    fn a_restart_finds_what_still_holds() {
        let folder = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (mut record, held) = PaceRecord::open(folder.path(), now);
        assert_eq!(held, []);
        let later = |seconds| now + Duration::from_secs(seconds);
        record.note(&site("a"), later(10));
        record.note(&site("a"), later(20));
        record.note(&site("b"), later(5));
        record.note(&site("\"odd name\"@c"), later(30));
        drop(record);
        let text = fs::read_to_string(folder.path().join("qmgr.pace")).unwrap();
        fs::write(folder.path().join("qmgr.pace"), format!("{text}garbage\n1000099.000000 smtp torn"))
            .unwrap();
        let (_, mut held) = PaceRecord::open(folder.path(), later(10));
        held.sort();
        assert_eq!(held, [(site("\"odd name\"@c"), later(30)), (site("a"), later(20))]);
    }

    #[test]
    fn a_record_that_has_grown_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut record, _) = PaceRecord::open(folder.path(), UNIX_EPOCH);
        let until = UNIX_EPOCH + Duration::from_secs(99);
        while !record.note(&site("a"), until) {}
        record.rewrite([("smtp", "a", until)].into_iter());
        assert!(fs::metadata(folder.path().join("qmgr.pace")).unwrap().len() < 100);
        assert!(!record.note(&site("b"), until));
        assert_eq!(PaceRecord::open(folder.path(), UNIX_EPOCH).1.len(), 2);
    }
}
