//! Keys of our own, as the files have them at the moment: a renewed pair takes effect without a reload.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::log;
use rustls::sign::CertifiedKey;

use super::keys::KeyFiles;
use super::server::Opener;

/// How long files are trusted to be what they were; longer where somebody else has to be asked.
const CHECK: Duration = Duration::from_secs(1);
const CHECK_BY_OPENER: Duration = Duration::from_secs(5);

/// The largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The files, and what was made of their keys.
pub(super) struct Store<T> {
    files: Vec<KeyFiles>,
    opener: Option<Box<Opener>>,
    /// Files that only the opener can open are looked at less often.
    needs_opener: bool,
    stamps: Vec<Option<Stamp>>,
    checked: Option<Instant>,
    current: Option<Arc<T>>,
}

impl<T> Store<T> {
    pub(super) fn new(files: Vec<KeyFiles>, opener: Option<Box<Opener>>) -> Self {
        Self { files, opener, needs_opener: false, stamps: Vec::new(), checked: None, current: None }
    }

    /// What `build` makes of the keys; made anew when a file has changed.
    pub(super) fn current(
        &mut self,
        build: impl Fn(Vec<Arc<CertifiedKey>>) -> Result<Arc<T>, String>,
    ) -> Result<Arc<T>, String> {
        let patience = if self.needs_opener { CHECK_BY_OPENER } else { CHECK };
        if let Some(current) = &self.current
            && self.checked.is_some_and(|checked| checked.elapsed() < patience)
        {
            return Ok(Arc::clone(current));
        }
        self.checked = Some(Instant::now());
        let stamps = self.look();
        match &self.current {
            Some(current) if stamps == self.stamps => return Ok(Arc::clone(current)),
            _ => {}
        }
        let loaded = self.load().and_then(&build);
        // Also after a failure: it is told once for each change of the files.
        self.stamps = stamps;
        match (loaded, &self.current) {
            (Ok(config), before) => {
                if before.is_some() {
                    log::info!("certificates were renewed: {}", self.names());
                }
                self.current = Some(Arc::clone(&config));
                Ok(config)
            }
            (Err(error), Some(current)) => {
                log::warning!("{error}; the certificates of before are used on");
                Ok(Arc::clone(current))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Has the files looked at next, as if it were time.
    #[cfg(test)]
    pub(super) fn doubt(&mut self) {
        self.checked = None;
    }

    fn names(&self) -> String {
        let mut paths: Vec<&str> =
            self.files.iter().flat_map(|files| &files.paths).map(String::as_str).collect();
        paths.dedup();
        paths.join(", ")
    }

    fn look(&mut self) -> Vec<Option<Stamp>> {
        let paths: Vec<String> = self.files.iter().flat_map(|files| files.paths.clone()).collect();
        paths.iter().map(|path| self.stamp(Path::new(path))).collect()
    }

    fn stamp(&mut self, path: &Path) -> Option<Stamp> {
        match fs::metadata(path) {
            Ok(metadata) => Some(Stamp::of(&metadata)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let opener = self.opener.as_ref()?;
                self.needs_opener = true;
                let opened = opener(path).and_then(|file| file.metadata());
                opened.ok().map(|metadata| Stamp::of(&metadata))
            }
            Err(_) => None,
        }
    }

    fn load(&self) -> Result<Vec<Arc<CertifiedKey>>, String> {
        let mut found = Vec::new();
        for files in &self.files {
            let loaded = files.load(&|path| self.read(path));
            found.extend(loaded.map_err(|e| format!("{}: {e}", files.parameter))?);
        }
        Ok(found)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let of = |e: io::Error| format!("open {path}: {e}");
        let file = match (File::open(path), &self.opener) {
            (Err(error), Some(opener)) if error.kind() == ErrorKind::PermissionDenied => {
                opener(Path::new(path))
            }
            (result, _) => result,
        };
        let mut bytes = Vec::new();
        file.map_err(of)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(of)?;
        match u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE) {
            true => Ok(bytes),
            false => Err(format!("{path}: too large for a file of keys and certificates")),
        }
    }
}
