//! Delivery into a file of the mbox format, and into things like `/dev/null`.
//!
//! Contract: runs with the rights of whoever the delivery is for. Readers never see a part of a message while they
//! honour the locks; a failed write is taken back by truncating the file to its former length. The message and, for a
//! new file, its name survive a power cut after `Ok`. What a crash leaves of a message is seen until the message is
//! delivered again, and is then cut off (`torn`): it is synced in the queue before anything of it is written.
//!
//! A mailbox is not followed through a symbolic link (but for one that root made), is not written when it has a second
//! hard link, and, with `strict_mailbox_ownership`, is not written when it is somebody else's: each would let a user
//! direct mail, and with it bytes of the sender's choice, into another's file.

mod torn;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use mail::Dsn;
use memchr::memmem;
use nix::libc;

use crate::failure::{Failure, describe};
use crate::letter::{Letter, Preamble};
use crate::lock::{self, LockFile, Locked, Locking};

/// How many times a mailbox that is replaced under our hands is opened anew.
const MAX_REOPENS: usize = 10;

/// What is asked of the target besides being writable.
#[derive(Clone, Debug)]
pub(crate) struct Rules<'a> {
    /// How it is locked.
    pub(crate) locking: &'a Locking,
    /// `strict_mailbox_ownership`: the uid it must belong to.
    pub(crate) owner: Option<u32>,
    /// Whether it must be a regular file: a mailbox must, the `/dev/null` of an alias need not.
    pub(crate) regular_only: bool,
    /// An executable file is refused: mail in it could be run.
    pub(crate) refuse_executable: bool,
    /// An alias or `.forward` names it: a lock file that cannot be made is done without, and what cannot be opened will
    /// not be opened later.
    pub(crate) named_by_user: bool,
    /// The owner and group that a file made by root is given.
    pub(crate) chown: Option<(u32, u32)>,
    /// The largest size of the file in bytes, 0 for none.
    pub(crate) limit: u64,
}

/// Appends one message to the file at `path`, which is made where it is missing.
///
/// # Errors
/// [`Failure`]; nothing was delivered then.
pub(crate) fn deliver(
    path: &Path,
    letter: &Letter<'_>,
    preamble: &Preamble<'_>,
    rules: &Rules<'_>,
) -> Result<(), Failure> {
    let is_device = std::fs::metadata(path).is_ok_and(|stat| !stat.is_file());
    let _lock_file = if is_device { None } else { take_lock_file(path, rules)? };
    let (file, created) = open_locked(path, rules)?;
    let headers = preamble.mbox_headers(&ipc::log::now());
    let stat = file.metadata().map_err(|error| Failure::from_io(&error, "fstat"))?;
    let append = || write_message(letter, &headers, |bytes| (&*file).write_all(bytes));
    if !stat.is_file() {
        return append().map_err(|error| Failure::from_io(&error, "error writing message"));
    }
    let end = cut_off_torn(&file, path, stat.len(), letter, &headers)?;
    if rules.limit > 0 && end + headers.len() as u64 + letter.size() > rules.limit {
        let text = format!("error writing message: the file would exceed the limit of {} bytes", rules.limit);
        return Err(Failure::bounce(Dsn::new(5, 2, 2), text));
    }
    // A part that a power cut leaves is cut off when the message comes again, which must not go with it.
    letter.sync().map_err(|error| Failure::from_io(&error, "sync the queue file"))?;
    let written = append()
        .and_then(|()| file.sync_data())
        .and_then(|()| if created { sync_name(&file, path) } else { Ok(()) });
    written.map_err(|error| {
        let mut failure = Failure::from_io(&error, "error writing message");
        if let Err(error) = file.set_len(end) {
            failure.text += &format!("; truncate to the former length: {}", describe(&error));
        }
        failure
    })
}

/// Cuts off what a crash has left of an earlier attempt at this message, and says where the mailbox ends then.
///
/// A mailbox that its user may write and not read takes mail all the same.
fn cut_off_torn(
    file: &File,
    path: &Path,
    size: u64,
    letter: &Letter<'_>,
    headers: &[u8],
) -> Result<u64, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let end = options.open(path).and_then(|mailbox| {
        let (opened, locked) = (mailbox.metadata()?, file.metadata()?);
        let is_same = (opened.dev(), opened.ino()) == (locked.dev(), locked.ino());
        let end = if is_same { torn::whole_end(&mailbox, size, letter, headers)? } else { size };
        if end < size {
            file.set_len(end)?;
        }
        Ok(end)
    });
    match end {
        Err(error) if is_denied(&error) => Ok(size),
        end => end.map_err(|error| Failure::from_io(&error, "error reading the end of the mailbox")),
    }
}

fn take_lock_file(path: &Path, rules: &Rules<'_>) -> Result<Option<LockFile>, Failure> {
    if !rules.locking.dotlock {
        return Ok(None);
    }
    match rules.locking.make_lock_file(path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error)
            if rules.named_by_user && (is_denied(&error) || error.kind() == io::ErrorKind::NotFound) =>
        {
            Ok(None)
        }
        Err(error) => {
            let text = format!("unable to create lock file {}.lock: {}", path.display(), describe(&error));
            Err(Failure::defer(Dsn::new(4, 2, 0), text))
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Opens and locks the file, and does so again while somebody replaces it in between.
fn open_locked(path: &Path, rules: &Rules<'_>) -> Result<(Locked, bool), Failure> {
    for _ in 0..MAX_REOPENS {
        let (file, created) = open(path, rules)?;
        check(&file, path, rules)?;
        let stat = file.metadata().map_err(|error| Failure::from_io(&error, "fstat"))?;
        if !stat.is_file() {
            return Ok((Locked::without_lock(file), created));
        }
        let file = rules.locking.lock_file(file).map_err(|error| {
            let text = format!("unable to lock for exclusive access: {}", describe(&error));
            Failure::defer(Dsn::new(4, 2, 0), text)
        })?;
        if lock::is_still_named(&file, path).map_err(|error| Failure::from_io(&error, "fstat"))? {
            return Ok((file, created));
        }
    }
    Err(Failure::defer(Dsn::new(4, 2, 0), "unable to lock: the file is being replaced all the time"))
}

fn open(path: &Path, rules: &Rules<'_>) -> Result<(File, bool), Failure> {
    let existing = || {
        let mut options = OpenOptions::new();
        // A FIFO without a reader must not hold the delivery up.
        options.append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
        options.open(path)
    };
    let opened = match existing() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => existing().map(|f| (f, false)),
                result => result.and_then(|file| {
                    give_away(&file, path, rules)?;
                    Ok((file, true))
                }),
            }
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => follow(path).map(|file| (file, false)),
        result => result.map(|file| (file, false)),
    };
    let opening = format_args!("open {}", path.display());
    opened.map_err(|error| match rules.named_by_user {
        true => Failure::of_named_file(&error, opening),
        false => Failure::from_io(&error, opening),
    })
}

/// Gives a file that root has made to its user. One that stayed root's would never be the recipient's again.
fn give_away(file: &File, path: &Path, rules: &Rules<'_>) -> io::Result<()> {
    let Some((uid, gid)) = rules.chown else { return Ok(()) };
    std::os::unix::fs::fchown(file, Some(uid), Some(gid)).inspect_err(|_| drop(std::fs::remove_file(path)))
}

/// Follows a symbolic link if root made it, in a folder where only root can replace it.
fn follow(path: &Path) -> io::Result<File> {
    let link = std::fs::symlink_metadata(path)?;
    let folder = path.parent().map_or_else(|| std::fs::metadata("/"), std::fs::metadata)?;
    let folder_is_safe = folder.uid() == 0 && (folder.mode() & 0o022 == 0 || folder.mode() & 0o1000 != 0);
    if link.uid() != 0 || !folder_is_safe {
        return Err(io::Error::other("file is a symbolic link that is not root's"));
    }
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path)
}

fn check(file: &File, path: &Path, rules: &Rules<'_>) -> Result<(), Failure> {
    let stat = file.metadata().map_err(|error| Failure::from_io(&error, "fstat"))?;
    let name = path.display();
    if stat.file_type().is_dir()
        || (rules.regular_only && !stat.is_file())
        || stat.file_type().is_block_device()
    {
        let text = format!("destination {name} is not a regular file");
        return Err(Failure::bounce(Dsn::new(5, 2, 0), text));
    }
    if !stat.is_file() {
        return Ok(());
    }
    if stat.nlink() > 1 {
        let text = format!("destination {name} has {} hard links", stat.nlink());
        return Err(Failure::defer(Dsn::new(4, 2, 0), text));
    }
    if rules.refuse_executable && stat.mode() & 0o111 != 0 {
        return Err(Failure::bounce(Dsn::new(5, 7, 0), "file is executable"));
    }
    // A file that root has made for the user a moment ago is his already: chown came first.
    if rules.owner.is_some_and(|owner| owner != stat.uid()) {
        let text = format!("destination {name} is not owned by recipient");
        return Err(Failure::defer(Dsn::new(4, 2, 0), text));
    }
    Ok(())
}

/// Gives the message piece by piece, as it stands in a mailbox.
fn write_message(
    letter: &Letter<'_>,
    headers: &[u8],
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Vec::with_capacity(headers.len() + 8192);
    out.extend_from_slice(headers);
    let mut quoting = Quoting::default();
    letter.for_each_chunk(|chunk| {
        quoting.push(&mut out, chunk);
        write(&out)?;
        out.clear();
        Ok(())
    })?;
    quoting.finish(&mut out);
    out.extend_from_slice(if letter.ends_with_newline()? { b"\n" } else { b"\n\n" });
    write(&out)
}

fn sync_name(file: &File, path: &Path) -> io::Result<()> {
    if sys::fs::name_survives_fsync(file)? {
        return Ok(());
    }
    match path.parent().map(sys::fs::sync_directory) {
        Some(Err(error)) if !is_denied(&error) && error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Puts `>` before lines that begin with `From `, over the borders of chunks.
#[derive(Debug)]
struct Quoting {
    /// The beginning of a line that may yet become `From `: it was held back.
    held: Vec<u8>,
    at_line_start: bool,
}

impl Default for Quoting {
    fn default() -> Self {
        Self { held: Vec::new(), at_line_start: true }
    }
}

const FROM: &[u8] = b"From ";

impl Quoting {
    fn push(&mut self, out: &mut Vec<u8>, chunk: &[u8]) {
        let joined;
        let mut rest = chunk;
        if !self.held.is_empty() {
            joined = [std::mem::take(&mut self.held).as_slice(), chunk].concat();
            rest = &joined;
            self.at_line_start = true;
        }
        if self.at_line_start && rest.starts_with(FROM) {
            out.push(b'>');
        }
        while let Some(at) = memmem::find(rest, b"\nFrom ") {
            out.extend_from_slice(&rest[..=at]);
            out.push(b'>');
            rest = &rest[at + 1..];
            // Past the word, so that the search moves on.
            out.extend_from_slice(&rest[..FROM.len()]);
            rest = &rest[FROM.len()..];
            self.at_line_start = false;
        }
        self.hold_back(out, rest);
    }

    /// Copies `rest` but for a last line that is a proper prefix of `From `.
    fn hold_back(&mut self, out: &mut Vec<u8>, rest: &[u8]) {
        let line = match memchr::memrchr(b'\n', rest) {
            Some(at) => Some(at + 1),
            None if self.at_line_start => Some(0),
            None => None,
        };
        match line {
            Some(at) if rest[at..].len() < FROM.len() && FROM.starts_with(&rest[at..]) => {
                out.extend_from_slice(&rest[..at]);
                self.held = rest[at..].to_vec();
                self.at_line_start = true;
            }
            _ => {
                out.extend_from_slice(rest);
                self.at_line_start = false;
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

#[cfg(test)]
mod tests;
