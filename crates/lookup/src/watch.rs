//! Tables that live in a file, and notice when the file has changed.
//!
//! The file is looked at (one `stat`) when a lookup comes and the last look is 10 milliseconds old. A changed file is
//! read anew; if that fails, the last good content stays in use and the log says so once, because yesterday's aliases
//! are better than none. Postfix instead lets a daemon end when an indexed table has changed, and does not notice a
//! changed text file at all: an operator who edits a `texthash:` or `regexp:` table is then refused by a rule that is no
//! longer in the file until somebody remembers to reload.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::table::OpenError;
use crate::warning::warn;

/// How long a look at the file is good for.
const LOOK_EVERY_MS: u64 = 10;

/// File systems stamp times with the granularity of a clock tick. A file that was changed this short a time before it
/// was read may change again without getting another time.
const TIME_STAMP_GRANULARITY: Duration = Duration::from_millis(20);

type Load<T> = dyn Fn(&File) -> Result<T, OpenError> + Send + Sync;

/// The content of a table, and the file that it comes from.
pub(crate) struct Watched<T> {
    current: RwLock<Arc<T>>,
    /// `None` for content that came with the table's name.
    file: Option<WatchedFile<T>>,
}

struct WatchedFile<T> {
    path: PathBuf,
    load: Box<Load<T>>,
    next_look: AtomicU64,
    /// What was last seen of the file. Held while it is read, so that one thread reads and the others use what is there.
    seen: Mutex<Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    complaint: Option<String>,
}

/// What tells two states of a file apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Watched<T> {
    /// Content that never changes.
    pub(crate) fn fixed(content: T) -> Self {
        Self { current: RwLock::new(Arc::new(content)), file: None }
    }

    /// The content of the file at `path`, as `load` makes it of the open file.
    ///
    /// # Errors
    /// The file cannot be opened, or `load` fails.
    pub(crate) fn open(
        path: PathBuf,
        load: impl Fn(&File) -> Result<T, OpenError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let (content, stamp) = read(&path, &load)?;
        let file = WatchedFile {
            path,
            load: Box::new(load),
            next_look: AtomicU64::new(coarse_milliseconds() + LOOK_EVERY_MS),
            seen: Mutex::new(Seen { stamp, complaint: None }),
        };
        Ok(Self { current: RwLock::new(Arc::new(content)), file: Some(file) })
    }

    /// What the file holds, as of at most 10 milliseconds ago.
    pub(crate) fn current(&self) -> Arc<T> {
        if let Some(file) = &self.file
            && file.look_is_due()
        {
            self.look(file);
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, file: &WatchedFile<T>) {
        // Somebody else is reading the file: what is in use is good enough meanwhile.
        let Ok(mut seen) = file.seen.try_lock() else { return };
        let now = std::fs::metadata(&file.path).ok().map(|metadata| Stamp::of(&metadata));
        if now.is_some() && now == seen.stamp {
            return;
        }
        match read(&file.path, &file.load) {
            Ok((content, stamp)) => {
                *seen = Seen { stamp, complaint: None };
                let content = Arc::new(content);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = content;
            }
            Err(error) => {
                seen.stamp = None;
                let complaint = error.to_string();
                if seen.complaint.as_ref() != Some(&complaint) {
                    warn(format_args!("{complaint}; keeping what was read from it before"));
                    seen.complaint = Some(complaint);
                }
            }
        }
    }
}

impl<T> WatchedFile<T> {
    /// Whether this thread is the one to look at the file.
    fn look_is_due(&self) -> bool {
        let now = coarse_milliseconds();
        let due = self.next_look.load(Ordering::Relaxed);
        now >= due
            && self
                .next_look
                .compare_exchange(due, now + LOOK_EVERY_MS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads the file. The stamp is taken before, so that a change while it is read shows at the next look; it is `None`
/// where the file is so young that a further change could hide in the same tick of the clock.
fn read<T>(
    path: &Path,
    load: &(impl Fn(&File) -> Result<T, OpenError> + ?Sized),
) -> Result<(T, Option<Stamp>), OpenError> {
    let file = File::open(path).map_err(|e| OpenError::io("open", path, &e))?;
    let metadata = file.metadata().map_err(|e| OpenError::io("stat", path, &e))?;
    let content = load(&file)?;
    let settled = metadata
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age > TIME_STAMP_GRANULARITY);
    Ok((content, settled.then(|| Stamp::of(&metadata))))
}

/// Milliseconds of a clock that costs a few nanoseconds to read.
fn coarse_milliseconds() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| {
        let duration = Duration::from(time);
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
    })
}
