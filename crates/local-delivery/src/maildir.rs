//! Delivery into a Maildir: the message has no name before it is whole, and is safe from a power cut before it is said
//! to be done.
//!
//! Contract: runs as the mailbox's owner (the caller's [`AsUser`](sys::credentials::AsUser) guard). After `Err`, and
//! after a crash at any point, `new/` holds either the whole message or nothing of it: the data is on the disk before the
//! name appears ([`NewFile`]). After `Ok` the mail is not lost in a power cut, for one of two reasons ([`Lasting`]):
//!
//! - [`Lasting::Synced`]: the message and its name in `new/` are durable. A small message takes eleven system calls:
//!   create, fstat, open and fstat `new/`, writev, fdatasync, link, fsync of the folder (shared, see [`FolderSync`]), two
//!   closes, and the read of the queue file. Two commits of a journal in a row are waited for, and more where folders are made.
//! - [`Lasting::Ordered`]: a power cut that takes the name in `new/` back takes back, too, what the queue manager does when
//!   it hears of the delivery, because both are in one journal, the name comes first, and of two changes of names or
//!   lengths the journal never keeps the later one alone. What the queue manager does is to remove the queue file, or to
//!   make it longer by the mark that the recipient has the message ([`queue::Message::append`]). The data is written out
//!   before the name is made. Nothing is waited for but that data, and mail that a power cut would deliver twice is
//!   little: mostly the name in `new/` and the end of the queue file are committed together.
//!
//! Who delivers to many begins several deliveries before the first is finished ([`begin`], [`Begun::finish`]), so that the disk
//! is at all of them at a time.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Config, param};
use mail::Dsn;
use nix::libc;
use queue::Folder;

use crate::failure::{Delivered, Failure};
use crate::folder_sync::FolderSync;
use crate::letter::{Letter, Preamble};
use new_file::{NewFile, Unmade};

mod new_file;

/// Names that are tried before the folder is believed to be full of them.
const MAX_NAMES: usize = 10;

static FOLDER_SYNC: LazyLock<FolderSync> = LazyLock::new(FolderSync::default);

/// What a delivery that is done relies on. The device, of the queue's file system, is one whose journal keeps changes of
/// names in their order ([`sys::fs::ordering_device`]); a Maildir elsewhere is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// Everything is synced.
    Synced,
    /// The mail is in the mailbox before the queue knows that it is.
    Ordered(u64),
}

impl Lasting {
    /// What deliveries of this process may rely on.
    pub(crate) fn from_config(config: &Config) -> Self {
        let queue: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let trusts = config.get(param::MAILDIR_TRUSTS_JOURNAL);
        let device = trusts.then(|| sys::fs::ordering_device(&queue.join(Folder::Active.as_str())));
        // What cannot be found out is not relied on.
        device.and_then(Result::ok).flatten().map_or(Self::Synced, Self::Ordered)
    }

    /// The same for this folder.
    fn within(self, folder: &Metadata) -> Self {
        match self {
            Self::Ordered(device) if device == folder.dev() => self,
            _ => Self::Synced,
        }
    }
}

/// Delivers one message into the Maildir at `folder`, which is made, with its parents, where it is missing. `limit` is
/// the largest message in bytes, 0 for none.
///
/// # Errors
/// [`Failure`]; nothing was delivered then.
pub(crate) fn deliver(
    folder: &Path,
    letter: &Letter<'_>,
    preamble: &Preamble<'_>,
    limit: u64,
    lasting: Lasting,
) -> Delivered {
    begin(folder, letter, preamble, limit, lasting)?.finish(letter)
}

/// A message that is written, and neither on the disk for sure nor seen by anybody. Dropped, it is gone.
pub(crate) struct Begun<'a> {
    folder: &'a Path,
    file: NewFile<'a>,
    headers: Vec<u8>,
    /// What deliveries of this process may rely on.
    lasting: Lasting,
    /// `new/`, where it is to be synced when it has the message.
    new: Option<(File, Metadata)>,
}

/// The first part of [`deliver`]: all but the waiting for the disk.
///
/// # Errors
/// As [`deliver`].
pub(crate) fn begin<'a>(
    folder: &'a Path,
    letter: &Letter<'_>,
    preamble: &Preamble<'_>,
    limit: u64,
    lasting: Lasting,
) -> Result<Begun<'a>, Failure> {
    let headers = preamble.headers();
    if limit > 0 && letter.size() + headers.len() as u64 > limit {
        let text =
            format!("maildir delivery failed: message is larger than the mailbox limit of {limit} bytes");
        return Err(Failure::bounce(Dsn::new(5, 2, 2), text));
    }
    create(folder, lasting, NewFile::make)
        .and_then(|file| Begun::write(folder, file, letter, headers, lasting))
        .map_err(in_maildir)
}

fn in_maildir(failure: Failure) -> Failure {
    failure.within("maildir delivery failed: ")
}

fn writing_failed(error: &io::Error) -> Failure {
    Failure::from_io(error, "error writing message")
}

impl<'a> Begun<'a> {
    fn write(
        folder: &'a Path,
        mut file: NewFile<'a>,
        letter: &Letter<'_>,
        headers: Vec<u8>,
        lasting: Lasting,
    ) -> Result<Self, Failure> {
        // A file moves within its file system only: that of `new/` is the same.
        let of_file = lasting.within(&file.file.metadata().map_err(|error| writing_failed(&error))?);
        let new = match of_file {
            Lasting::Synced => Some(open_new(folder, of_file)?),
            Lasting::Ordered(_) => None,
        };
        letter.write_to(&mut file.file, &headers).map_err(|error| writing_failed(&error))?;
        Ok(Self { folder, file, headers, lasting, new })
    }

    /// Has the disk begin with it, for who begins others before this one is finished.
    ///
    /// # Errors
    /// As [`deliver`].
    pub(crate) fn write_out(&self) -> Result<(), Failure> {
        sys::fs::begin_write_out(&self.file.file).map_err(|error| in_maildir(writing_failed(&error)))
    }

    /// The second part of [`deliver`]: waits for the disk, and gives the message its place in `new/`.
    ///
    /// # Errors
    /// As [`deliver`].
    pub(crate) fn finish(self, letter: &Letter<'_>) -> Delivered {
        self.publish_anyhow(letter).map_err(in_maildir)?;
        Ok("delivered to maildir".to_owned())
    }

    fn publish_anyhow(mut self, letter: &Letter<'_>) -> Result<(), Failure> {
        if self.publish()? {
            return Ok(());
        }
        let file = create(self.folder, self.lasting, NewFile::in_tmp)?;
        Self::write(self.folder, file, letter, self.headers, self.lasting)?.publish().map(drop)
    }

    /// That is false where a file needs a name in `tmp/` to get there.
    fn publish(&mut self) -> Result<bool, Failure> {
        let file = &mut self.file;
        let written = if self.new.is_some() { file.file.sync_data() } else { sys::fs::write_out(&file.file) };
        written.map_err(|error| writing_failed(&error))?;
        let new = self.new.as_ref().map(|(new, _)| new.as_fd());
        let published = match file.publish(new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_in_tmp() => {
                make_folders(self.folder, self.lasting)?;
                file.publish(new)
            }
            result => result,
        };
        match published {
            Ok(()) => {}
            Err(error) if file.needs_tmp(&error) => return Ok(false),
            Err(error) => {
                let place = file.place();
                let text = format_args!("move maildir file to {}", place.display());
                return Err(Failure::from_io(&error, text));
            }
        }
        let durable = self.new.as_ref().map(|(new, stat)| make_durable(new, stat, &file.place()));
        durable.unwrap_or(Ok(())).map(|()| true)
    }
}

/// Opens `new/` before anything is delivered: a folder that cannot be synced later takes no mail now.
fn open_new(folder: &Path, lasting: Lasting) -> Result<(File, Metadata), Failure> {
    let path = folder.join("new");
    let open = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&path);
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(folder, lasting)?;
            open()
        }
        result => result,
    };
    opened
        .and_then(|new| new.metadata().map(|stat| (new, stat)))
        .map_err(|error| Failure::from_io(&error, format_args!("open {}", path.display())))
}

fn make_folders(folder: &Path, lasting: Lasting) -> Result<(), Failure> {
    let there = folder.ancestors().position(Path::exists);
    for name in ["tmp", "cur", "new"] {
        let path = folder.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| {
            Failure::from_io(&error, format_args!("create maildir folder {}", path.display()))
        })?;
    }
    // The names of the folders must last as long as the mail in them: every folder that holds a new one is synced, unless
    // all are before the mail in one journal. One that this user may not even open cannot have got a new name from him.
    let holder = there.and_then(|depth| folder.ancestors().nth(depth)?.metadata().ok());
    if holder.is_some_and(|holder| lasting.within(&holder) != Lasting::Synced) {
        return Ok(());
    }
    for holder in folder.ancestors().take(there.map_or(usize::MAX, |depth| depth + 1)) {
        let _ = sys::fs::sync_directory(holder);
    }
    Ok(())
}

/// Makes the file, and the folders where they are missing.
fn create<'a>(
    folder: &'a Path,
    lasting: Lasting,
    make: impl Fn(&'a Path, String) -> Result<NewFile<'a>, Unmade>,
) -> Result<NewFile<'a>, Failure> {
    let mut made_folders = false;
    let mut tries = 0;
    loop {
        tries += 1;
        match make(folder, unique_name()) {
            Ok(file) => return Ok(file),
            Err(error) if error.why.kind() == io::ErrorKind::AlreadyExists && tries < MAX_NAMES => {}
            Err(error) if error.why.kind() == io::ErrorKind::NotFound && !made_folders => {
                made_folders = true;
                make_folders(folder, lasting)?;
            }
            Err(error) => {
                let within = folder.join(error.folder);
                let text = format_args!("create maildir file in {}", within.display());
                return Err(Failure::from_io(&error.why, text));
            }
        }
    }
}

/// `seconds.MmicrosecondsPpidQcounter.host`: unique among threads, processes and hosts.
fn unique_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        host.unwrap_or_default().replace(|c: char| !c.is_ascii_graphic() || "/:,".contains(c), "_")
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}.M{}P{}Q{count}.{}", now.as_secs(), now.subsec_micros(), *PROCESS, *HOST)
}

/// Syncs `new/`. Where the folder's file system knows no such thing (`EINVAL`) its names are as durable as they get;
/// on any other error the mail is taken back, as it will be delivered again.
fn make_durable(new: &File, stat: &Metadata, delivered: &Path) -> Result<(), Failure> {
    match FOLDER_SYNC.sync(new, (stat.dev(), stat.ino())) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
            let _ = std::fs::remove_file(delivered);
            Err(Failure::from_io(&error, format_args!("sync the folder of {}", delivered.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use mail::Address;

    use super::*;

    const TEXT: &[u8] = b"Subject: hello\n\nbody\n";

    fn deliver_to(folder: &Path, limit: u64) -> Delivered {
        deliver_lasting(folder, limit, Lasting::Synced)
    }

    fn deliver_lasting(folder: &Path, limit: u64, lasting: Lasting) -> Delivered {
        let sender = Address::new("s@example.org").unwrap();
        let (original, delivered) = (Address::new("o@x").unwrap(), Address::new("d@x").unwrap());
        let preamble = Preamble { sender: &sender, original: Some(&original), delivered: Some(&delivered) };
        deliver(folder, &Letter::open(&TEXT).unwrap(), &preamble, limit, lasting)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn missing_folders_are_made_and_the_message_is_whole() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("mail/nested/Maildir");
        assert_eq!(deliver_to(&folder, 0).unwrap(), "delivered to maildir");
        let [file] = files(&folder.join("new")).try_into().unwrap();
        let text = std::fs::read(&file).unwrap();
        let head = b"Return-Path: <s@example.org>\nX-Original-To: o@x\nDelivered-To: d@x\n";
        assert_eq!(text, [head.as_slice(), TEXT].concat());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(files(&folder.join("tmp")).is_empty() && folder.join("cur").is_dir());
    }

    #[test]
    fn a_delivery_that_a_journal_keeps_safe_is_the_same_to_who_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("Maildir");
        let device = home.path().metadata().unwrap().dev();
        let ways = [Lasting::Ordered(device), Lasting::Synced, Lasting::Ordered(device + 1)];
        for lasting in ways {
            deliver_lasting(&folder, 0, lasting).unwrap();
        }
        let texts: Vec<Vec<u8>> =
            files(&folder.join("new")).iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(texts.len() == 3 && texts.iter().all(|text| *text == texts[0] && text.ends_with(TEXT)));
        assert!(files(&folder.join("tmp")).is_empty());
    }

    #[test]
    fn what_was_begun_and_not_finished_is_no_mail() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("Maildir");
        let (sender, address) = (Address::null(), Address::new("d@x").unwrap());
        let preamble = Preamble { sender: &sender, original: None, delivered: Some(&address) };
        let letter = Letter::open(&TEXT).unwrap();
        for lasting in [Lasting::Synced, Lasting::Ordered(home.path().metadata().unwrap().dev())] {
            let begun = [(); 3].map(|()| begin(&folder, &letter, &preamble, 0, lasting).unwrap());
            begun.iter().for_each(|one| one.write_out().unwrap());
            let [first, second, third] = begun;
            assert!(files(&folder.join("new")).is_empty());
            second.finish(&letter).unwrap();
            drop(first);
            third.finish(&letter).unwrap();
            let finished = files(&folder.join("new"));
            assert_eq!(finished.len(), 2);
            finished.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
            assert!(files(&folder.join("tmp")).is_empty());
        }
    }

    #[test]
    fn names_differ_among_threads() {
        let names: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).map(|_| unique_name()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 4000);
        assert!(names.iter().all(|name| !name.contains(['/', ':'])));
    }

    #[test]
    fn a_message_over_the_limit_bounces_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let failure = deliver_to(&home.path().join("Maildir"), 30).unwrap_err();
        assert_eq!(failure.dsn, Dsn::new(5, 2, 2));
        assert!(files(home.path()).is_empty());
    }

    #[test]
    fn a_file_where_the_maildir_should_be_defers() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("Maildir"), "").unwrap();
        let failure = deliver_to(&home.path().join("Maildir"), 0).unwrap_err();
        assert!(
            failure.is_temporary() && failure.text.starts_with("maildir delivery failed: "),
            "{failure:?}"
        );
    }

    #[test]
    fn a_dangling_link_for_a_folder_defers_and_makes_nothing_outside() {
        let home = tempfile::tempdir().unwrap();
        let (folder, outside) = (home.path().join("Maildir"), home.path().join("outside"));
        std::fs::create_dir(&folder).unwrap();
        symlink(&outside, folder.join("new")).unwrap();
        for lasting in [Lasting::Synced, Lasting::Ordered(home.path().metadata().unwrap().dev())] {
            assert!(deliver_lasting(&folder, 0, lasting).unwrap_err().is_temporary());
            assert!(!outside.exists() && files(&folder.join("tmp")).is_empty());
        }
    }

    #[test]
    fn a_folder_that_is_missing_among_the_three_is_made() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("Maildir");
        for lasting in [Lasting::Synced, Lasting::Ordered(home.path().metadata().unwrap().dev())] {
            for name in ["tmp", "new"] {
                deliver_lasting(&folder, 0, lasting).unwrap();
                std::fs::remove_dir_all(folder.join(name)).unwrap();
            }
            deliver_lasting(&folder, 0, lasting).unwrap();
            assert_eq!(files(&folder.join("new")).len(), 1);
        }
    }
}
