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
    /// Why there is no content: its file was overwritten in place, and what is there now is no good.
    current: RwLock<Result<Arc<T>, OpenError>>,
    /// `None` for content that came with the table's name.
    file: Option<WatchedFile<T>>,
}

struct WatchedFile<T> {
    path: PathBuf,
    load: Box<Load<T>>,
    survives_overwriting: fn(&T) -> bool,
    next_look: AtomicU64,
    /// What was last seen of the file. Held while it is read, so that one thread reads and the others use what is there.
    seen: Mutex<Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    /// Device and inode of the file that the content in use comes from.
    file: (u64, u64),
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
        Self { current: RwLock::new(Ok(Arc::new(content))), file: None }
    }

    /// The content of the file at `path`, as `load` makes it of the open file. `survives_overwriting` says whether the
    /// content may still be used when the file that it came from has been changed in place.
    ///
    /// # Errors
    /// The file cannot be opened, or `load` fails.
    pub(crate) fn open(
        path: PathBuf,
        load: impl Fn(&File) -> Result<T, OpenError> + Send + Sync + 'static,
        survives_overwriting: fn(&T) -> bool,
    ) -> Result<Self, OpenError> {
        let (content, seen) = read(&path, &load)?;
        let file = WatchedFile {
            path,
            load: Box::new(load),
            survives_overwriting,
            next_look: AtomicU64::new(coarse_milliseconds() + LOOK_EVERY_MS),
            seen: Mutex::new(seen),
        };
        Ok(Self { current: RwLock::new(Ok(Arc::new(content))), file: Some(file) })
    }

    /// What the file holds, as of at most 10 milliseconds ago.
    ///
    /// # Errors
    /// The content that was in use is gone, and there is no other.
    pub(crate) fn current(&self) -> Result<Arc<T>, OpenError> {
        if let Some(file) = &self.file
            && file.look_is_due()
        {
            self.look(file);
        }
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, file: &WatchedFile<T>) {
        // Somebody else is reading the file: what is in use is good enough meanwhile.
        let Ok(mut seen) = file.seen.try_lock() else { return };
        let stamp = std::fs::metadata(&file.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && stamp == seen.stamp {
            return;
        }
        match read(&file.path, &file.load) {
            Ok((content, now)) => {
                *seen = now;
                self.replace(Ok(Arc::new(content)));
            }
            Err(error) => {
                seen.stamp = None;
                let overwritten = stamp.is_some_and(|stamp| (stamp.device, stamp.inode) == seen.file);
                self.complain(file, &mut seen, error, overwritten);
            }
        }
    }

    /// The file has changed and cannot be read: says so, once for each reason.
    fn complain(&self, file: &WatchedFile<T>, seen: &mut Seen, error: OpenError, overwritten: bool) {
        let complaint = error.to_string();
        let survives = match &*self.current.read().unwrap_or_else(PoisonError::into_inner) {
            Ok(content) => !overwritten || (file.survives_overwriting)(content),
            Err(_) => false,
        };
        if seen.complaint.as_ref() != Some(&complaint) {
            let consequence = if survives { "keeping what it held before" } else { "lookups in it fail" };
            warn(format_args!("{complaint}; {consequence}"));
            seen.complaint = Some(complaint);
        }
        if !survives {
            self.replace(Err(error));
        }
    }

    fn replace(&self, content: Result<Arc<T>, OpenError>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = content;
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
) -> Result<(T, Seen), OpenError> {
    let file = File::open(path).map_err(|e| OpenError::io("open", path, &e))?;
    let metadata = file.metadata().map_err(|e| OpenError::io("stat", path, &e))?;
    let content = load(&file)?;
    let settled = metadata
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age > TIME_STAMP_GRANULARITY);
    let stamp = settled.then(|| Stamp::of(&metadata));
    Ok((content, Seen { stamp, file: (metadata.dev(), metadata.ino()), complaint: None }))
}

/// Milliseconds of a clock that costs a few nanoseconds to read.
fn coarse_milliseconds() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| {
        let duration = Duration::from(time);
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
    })
}
