//! A table that programs keep for themselves: results of address probes, clients that passed a test.
//!
//! It is one text file, in no format of another program's: `KEY TAB VALUE`, the last line for a key counts. A change is
//! one line, appended in one write, so that several processes may share the file, and a reload may have two of one
//! service. What others wrote is read within a second. When most lines are outdated the file is written anew under
//! another name and put in its place; what others append to the old one in that moment is lost, which costs a cache
//! nothing but a repeated test. Values are to say for themselves until when they count.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::OpenError;

/// The most entries; beyond it, a new one takes the place of any other.
const MAX_ENTRIES: usize = 500_000;

/// The longest line; a longer entry is not kept.
const MAX_LINE: usize = 2048;

/// How long the file is trusted to be what it was.
const CHECK: Duration = Duration::from_secs(1);

/// So many outdated lines are no reason to write the file anew.
const SLACK: usize = 1000;

/// Types of tables whose name is a path: all of them stand for this file.
const TYPES: [&str; 6] = ["btree", "hash", "lmdb", "sdbm", "dbm", "cdb"];

/// The table.
#[derive(Debug)]
pub struct Cache {
    /// None where it is kept in memory only.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Box<str>, Box<str>>,
    file: Option<File>,
    /// The file that was read, and how far.
    inode: u64,
    read_to: u64,
    lines: usize,
    checked: Option<Instant>,
}

impl Cache {
    /// The table that `parameter` names, as `btree:/path`; empty for one that is kept in memory. Nothing is opened
    /// before the table is asked something.
    ///
    /// # Errors
    /// A type of table that has no path.
    pub fn named(parameter: &str, table: &str) -> Result<Self, OpenError> {
        let name = table.trim();
        let name = name.strip_prefix("proxy:").unwrap_or(name);
        let path = match name.split_once(':') {
            None if name.is_empty() => None,
            Some((kind, path)) if TYPES.contains(&kind) && path.starts_with('/') => Some(path.into()),
            _ => {
                let text = format!(
                    "{parameter} = {table}: this table is a file that the mail system keeps: expected btree:/path, or \
                     nothing for one in memory"
                );
                return Err(OpenError::Configuration(text));
            }
        };
        Ok(Self { path, state: Mutex::default() })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// What reading the file says; the table is as empty as it was then.
    pub fn get(&self, key: &str) -> io::Result<Option<String>> {
        let mut state = self.lock();
        let read = self.refresh(&mut state);
        let value = state.entries.get(key).map(|value| value.to_string());
        if value.is_some() { Ok(value) } else { read.map(|()| None) }
    }

    /// Sets the value of a key. It counts for this process also where it could not be written.
    ///
    /// # Errors
    /// What writing the file says.
    pub fn put(&self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (plain(key), plain(value));
        let line = format!("{key}\t{value}\n");
        if key.is_empty() || line.len() > MAX_LINE {
            return Ok(());
        }
        let mut state = self.lock();
        let ready = self.refresh(&mut state);
        state.set(&key, &value);
        ready?;
        state.append(&line)?;
        if state.lines > state.entries.len() * 2 + SLACK {
            self.write_anew(&mut state)?;
        }
        Ok(())
    }

    /// Drops the entries that `keep` does not want, and writes the file anew if there were any; gives how many stay
    /// and how many went.
    ///
    /// # Errors
    /// What reading or writing the file says.
    pub fn retain(&self, mut keep: impl FnMut(&str, &str) -> bool) -> io::Result<(usize, usize)> {
        let mut state = self.lock();
        self.refresh(&mut state)?;
        let before = state.entries.len();
        state.entries.retain(|key, value| keep(key, value));
        let left = state.entries.len();
        if left < before {
            self.write_anew(&mut state)?;
        }
        Ok((left, before - left))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what others have written.
    fn refresh(&self, state: &mut State) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let now = Instant::now();
        if state.checked.is_some_and(|checked| now.duration_since(checked) < CHECK) {
            return Ok(());
        }
        state.checked = Some(now);
        state.catch_up(path).map_err(|error| named("read", path, &error))
    }

    fn write_anew(&self, state: &mut State) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        state.write_anew(path).map_err(|error| named("write", path, &error))
    }
}

impl State {
    fn set(&mut self, key: &str, value: &str) {
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(key) {
            let any = self.entries.keys().next().cloned();
            any.map(|any| self.entries.remove(&any));
        }
        self.entries.insert(key.into(), value.into());
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(line.as_bytes())
    }

    fn catch_up(&mut self, path: &Path) -> io::Result<()> {
        let there = fs::metadata(path).ok();
        if self.file.is_none() || there.is_none_or(|there| there.ino() != self.inode) {
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
            self.inode = file.metadata()?.ino();
            (self.read_to, self.lines) = (0, 0);
            self.file = Some(file);
        }
        let Some(file) = self.file.take() else { return Ok(()) };
        let result = self.read_on(&file);
        self.file = Some(file);
        result
    }

    /// Reads the lines behind those that were read; what was appended by this process is read once more.
    fn read_on(&mut self, mut file: &File) -> io::Result<()> {
        if file.metadata()?.len() <= self.read_to {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.read_to))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = Read::by_ref(&mut reader).take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
            if count == 0 || (line.last() != Some(&b'\n') && count < MAX_LINE) {
                // A line that is being written is read the next time.
                return Ok(());
            }
            self.read_to += count as u64;
            self.lines += 1;
            let entry =
                std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n')?.split_once('\t'));
            if let Some((key, value)) = entry {
                self.set(key, value);
            }
        }
    }

    fn write_anew(&mut self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let mut out = BufWriter::new(file);
        for (key, value) in &self.entries {
            writeln!(out, "{key}\t{value}")?;
        }
        out.flush()?;
        fs::rename(&fresh, path)?;
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        (self.inode, self.read_to, self.lines) = (metadata.ino(), metadata.len(), self.entries.len());
        self.file = Some(file);
        Ok(())
    }
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn named(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{operation} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(folder: &tempfile::TempDir) -> Cache {
        let name = format!("btree:{}/cache", folder.path().display());
        Cache::named("address_verify_map", &name).unwrap()
    }

    #[test]
    fn what_was_put_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let cache = at(&folder);
        cache.put("a@b", "1\tx\ny").unwrap();
        cache.put("a@c", "2").unwrap();
        cache.put("a@c", "3").unwrap();
        cache.put("", "no key").unwrap();
        cache.put("long", &"x".repeat(MAX_LINE)).unwrap();
        let again = at(&folder);
        assert_eq!(again.get("a@b").unwrap().as_deref(), Some("1 x y"));
        assert_eq!(again.get("a@c").unwrap().as_deref(), Some("3"));
        assert_eq!(again.get("").unwrap().or(again.get("long").unwrap()), None);
    }

    #[test]
    fn others_write_into_the_same_file_and_replace_it() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (at(&folder), at(&folder));
        one.put("a", "1").unwrap();
        assert_eq!(other.get("a").unwrap().as_deref(), Some("1"));
        assert_eq!(one.retain(|key, _| key != "a").unwrap(), (0, 1));
        one.put("b", "2").unwrap();
        other.lock().checked = None;
        assert_eq!(other.get("b").unwrap().as_deref(), Some("2"));
        assert_eq!(at(&folder).get("a").unwrap(), None);
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let cache = at(&folder);
        for n in 0..10 * SLACK {
            cache.put("key", &n.to_string()).unwrap();
            cache.lock().checked = None;
        }
        let size = fs::metadata(folder.path().join("cache")).unwrap().len();
        assert!(size < 20 * SLACK as u64, "{size}");
        assert_eq!(at(&folder).get("key").unwrap(), Some((10 * SLACK - 1).to_string()));
    }

    #[test]
    fn rubbish_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let rubbish = [&[0xff, b'\n'][..], &vec![b'x'; 3 * MAX_LINE], b"\nno tab\nk\tv\nhalf"].concat();
        fs::write(folder.path().join("cache"), rubbish).unwrap();
        assert_eq!(at(&folder).get("k").unwrap().as_deref(), Some("v"));
        assert_eq!(at(&folder).get("half").unwrap(), None);
    }

    #[test]
    fn a_table_without_a_path_is_a_mistake() {
        for wrong in ["memcache:/etc/x", "btree:relative", "/path", "regexp:/x"] {
            assert!(Cache::named("address_verify_map", wrong).is_err(), "{wrong}");
        }
        let memory = Cache::named("address_verify_map", "").unwrap();
        memory.put("a", "1").unwrap();
        assert_eq!(memory.get("a").unwrap().as_deref(), Some("1"));
        assert!(Cache::named("x", "proxy:btree:/var/lib/x").is_ok());
    }

    #[test]
    fn a_folder_that_is_not_there_costs_no_entry() {
        let cache = Cache::named("x", "btree:/nowhere/at/all").unwrap();
        assert!(cache.put("a", "1").is_err());
        assert_eq!(cache.get("a").unwrap().as_deref(), Some("1"));
    }
}
