//! `postdrop`: puts a submission from standard input into `maildrop/` for those who may not do it themselves.
//!
//! It is set-gid, so its user chose its arguments, environment, descriptors, limits and signals, and may end it at any
//! moment. It looks at the environment for one thing, the configuration directory, and uses that only if the default
//! main.cf lists it; otherwise it gives its rights up first. It runs no other program. What arrives is checked here
//! for its form and size and once more by pickup; whose it is, the file's owner says, which is the real user.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mail::submission::{Head, LostBlock, MAX_HEAD, SubmissionError, TRAILER_LENGTH, content_length};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, getgid, getuid, setresgid, setresuid};

use crate::authorization;
use crate::failure::{Exit, Failure, warn};
use crate::invoker::Invoker;
use crate::maildrop::Maildrop;
use crate::message::CHUNK;
use crate::outgoing::{commit, create_failed, file_failed, full_of_zeros, too_big};
use crate::settings::{Settings, chosen_directory, default_directory, is_trusted_directory};

const PROGRAM: &str = "postdrop";

/// `postdrop`. Its messages do not repeat the name it was called by, which is its user's choice.
#[must_use]
pub fn postdrop() -> ExitCode {
    match act(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(PROGRAM).into(),
    }
}

fn act(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    shed_inheritance()?;
    let directory = chosen_directory(parse(arguments)?);
    give_up_rights_for(&directory)?;
    let settings = Settings::load(&directory)?;
    authorization::check(&Invoker::default(), &settings)?;
    take(&settings, io::stdin().lock())
}

/// What a parent process left open or set. Standard input, output and error are there in any case: the Rust runtime
/// opens /dev/null where one is missing, so that no file of ours gets such a number.
fn shed_inheritance() -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| Failure::new(Exit::System, format!("{what}: {error}"));
    sys::descriptors::close_inherited(3).map_err(|error| failed("close inherited descriptors", error))?;
    // The mode of the file is set without regard to the umask; nothing else is made.
    umask(Mode::from_bits_truncate(0o077));
    // A core file would belong to the user and have what the group may read in it.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| failed("forbid core files", error.into()))
}

/// `-c DIR`; `-r` is the only way to work and needs not be said, `-v` changes nothing.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<PathBuf>, Failure> {
    let mut directory = None;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-r" | "-v" | "-rv" | "-vr") => {}
            Some("-c") => directory = Some(arguments.next().map(PathBuf::from).ok_or_else(usage)?),
            Some(text) if text.len() > 2 && text.starts_with("-c") => {
                directory = Some(PathBuf::from(&text[2..]))
            }
            _ => return Err(usage()),
        }
    }
    Ok(directory)
}

fn usage() -> Failure {
    Failure::new(Exit::Usage, "usage: postdrop [-rv] [-c config_dir] <submission")
}

/// Another instance than the default main.cf knows of gets what its user may do, and no more.
fn give_up_rights_for(directory: &Path) -> Result<(), Failure> {
    let (uid, gid) = (getuid(), getgid());
    let has_rights_of_others = geteuid() != uid || getegid() != gid;
    if !has_rights_of_others || uid.is_root() || is_trusted_directory(directory) {
        return Ok(());
    }
    warn(
        PROGRAM,
        &format!(
            "{} is not among alternate_config_directories of {}: set-gid rights are given up",
            directory.display(),
            default_directory().join("main.cf").display()
        ),
    );
    let given_up = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
    given_up.map_err(|error| Failure::new(Exit::System, format!("give up set-gid rights: {error}")))
}

/// Copies the submission as it is.
fn take(settings: &Settings, input: impl Read) -> Result<(), Failure> {
    let queue = settings.queue_directory();
    let mut arriving = Arriving::new(input, settings.message_size_limit());
    arriving.read_head()?;
    let mut file = Maildrop::create(&queue).map_err(|error| create_failed(&queue, &error))?;
    loop {
        let is_more = arriving.read_content()?;
        file.write_all(&arriving.buffer).map_err(|error| file_failed("write", &queue, &error))?;
        if !is_more {
            break;
        }
        arriving.buffer.clear();
    }
    commit(PROGRAM, file, &queue)
}

/// A submission while it is checked.
struct Arriving<R> {
    input: R,
    buffer: Vec<u8>,
    limit: Option<u64>,
    /// How long head, content and trailer are so far.
    total: u64,
    content_start: u64,
    /// The last bytes, which may be the trailer.
    tail: Vec<u8>,
    lost: LostBlock,
}

impl<R: Read> Arriving<R> {
    fn new(input: R, limit: Option<u64>) -> Self {
        let tail = Vec::with_capacity(2 * TRAILER_LENGTH);
        Self {
            input,
            buffer: Vec::with_capacity(CHUNK),
            limit,
            total: 0,
            content_start: 0,
            tail,
            lost: LostBlock::default(),
        }
    }

    /// Reads until the head is there and understood.
    fn read_head(&mut self) -> Result<(), Failure> {
        let mut attempt_at = 1;
        loop {
            let has_more = self.read_some()?;
            // Each attempt looks at all there is: only when it has doubled, or is all.
            if self.buffer.len() < attempt_at && has_more && self.buffer.len() < MAX_HEAD {
                continue;
            }
            attempt_at = 2 * self.buffer.len();
            match Head::decode(&self.buffer) {
                Ok(Some((_, content_start))) => {
                    self.content_start = content_start as u64;
                    return Ok(());
                }
                Ok(None) if has_more => {}
                Ok(None) => return Err(cut_short()),
                Err(error) => return Err(malformed(&error)),
            }
        }
    }

    /// Reads up to [`CHUNK`] bytes; `false` at the end of a whole submission.
    fn read_content(&mut self) -> Result<bool, Failure> {
        while self.buffer.len() < CHUNK {
            if !self.read_some()? {
                return self.check_trailer().map(|()| false);
            }
        }
        Ok(true)
    }

    fn check_trailer(&self) -> Result<(), Failure> {
        let promised = content_length(&self.tail).ok_or_else(cut_short)?;
        let found = self.total.checked_sub(self.content_start + TRAILER_LENGTH as u64);
        if found == Some(promised) { Ok(()) } else { Err(cut_short()) }
    }

    /// One read; `false` at the end of the input.
    fn read_some(&mut self) -> Result<bool, Failure> {
        let start = self.buffer.len();
        self.buffer.resize(start + CHUNK, 0);
        let result = loop {
            match self.input.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(start + result.as_ref().copied().unwrap_or_default());
        let read =
            result.map_err(|error| Failure::new(Exit::Data, format!("read standard input: {error}")))?;
        self.total += read as u64;
        let new = &self.buffer[start..];
        if self.lost.is_in(new) {
            return Err(full_of_zeros());
        }
        self.tail.extend_from_slice(&new[new.len().saturating_sub(TRAILER_LENGTH)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TRAILER_LENGTH));
        let most = self.limit.map(|limit| limit.saturating_add((MAX_HEAD + TRAILER_LENGTH) as u64));
        if most.is_some_and(|most| self.total > most) {
            return Err(too_big());
        }
        Ok(read > 0)
    }
}

fn cut_short() -> Failure {
    Failure::new(Exit::Data, "the submission ended before its trailer; nothing was taken")
}

fn malformed(error: &SubmissionError) -> Failure {
    Failure::new(Exit::Data, format!("malformed submission: {error}"))
}

#[cfg(test)]
mod tests {
    use mail::submission::trailer;
    use mail::{Address, Recipient};

    use super::*;

    fn submission(content: &[u8]) -> Vec<u8> {
        let mut head = Head::new(Address::new("joe").unwrap());
        head.recipients.push(Recipient::new(Address::new("jane").unwrap()));
        [&head.encode(), content, &trailer(content.len() as u64)].concat()
    }

    fn copied(input: &[u8], limit: Option<u64>) -> Result<Vec<u8>, Failure> {
        let mut arriving = Arriving::new(input, limit);
        arriving.read_head()?;
        let mut out = Vec::new();
        loop {
            let is_more = arriving.read_content()?;
            out.append(&mut arriving.buffer);
            if !is_more {
                return Ok(out);
            }
        }
    }

    #[test]
    fn a_whole_submission_is_copied_as_it_is() {
        for size in [0, 1, CHUNK - 1, CHUNK, 5 * CHUNK + 3] {
            let bytes = submission(&vec![b'x'; size]);
            assert!(copied(&bytes, None).unwrap() == bytes, "{size}");
        }
    }

    #[test]
    fn nothing_shorter_is_taken() {
        let bytes = submission(b"Subject: x\n\nbody\n");
        for length in 0..bytes.len() {
            assert_eq!(copied(&bytes[..length], None).unwrap_err().exit, Exit::Data, "{length}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(copied(&longer, None).is_err());
    }

    #[test]
    fn what_would_be_taken_for_a_torn_submission_is_refused() {
        assert!(copied(&submission(&[0; 4094]), None).is_ok());
        assert_eq!(copied(&submission(&[0; 4096]), None).unwrap_err().exit, Exit::Data);
    }

    #[test]
    fn garbage_and_too_much_are_refused() {
        assert!(copied(b"From: x\n\n", None).unwrap_err().text.contains("malformed"));
        let endless = io::repeat(b'x');
        let mut arriving = Arriving::new(endless, None);
        assert!(arriving.read_head().is_err());
        let bytes = submission(&vec![b'x'; MAX_HEAD + 5000]);
        assert_eq!(copied(&bytes, Some(1000)).unwrap_err(), too_big());
    }
}
