//! One running program of one service.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use config::{Config, ServiceEntry, param};
use ipc::control::{self, Birth, ToChild, ToMaster};
use ipc::frame::{self, Receiver};
use ipc::log;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::startup::Generation;

/// How long master waits for a child that does not read, and for all that it has asked together: a child that is stuck must
/// not stop the others.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// A program that runs.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) started: Instant,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// Something may yet come from it.
    pub(crate) speaks: bool,
    control: UnixStream,
    receiver: Receiver,
    /// What this child may have opened.
    key_files: Vec<PathBuf>,
}

impl Child {
    /// Starts the program of a service.
    pub(crate) fn start(
        entry: &ServiceEntry,
        generation: &Generation,
        listeners: &[&OwnedFd],
        log: Option<&File>,
        foreground: bool,
    ) -> io::Result<Self> {
        let program = generation.config.get(param::DAEMON_DIRECTORY).join(&entry.command);
        Self::start_program(&program, entry, generation, listeners, log, foreground)
            .map_err(|e| io::Error::new(e.kind(), format!("start {}: {e}", program.display())))
    }

    fn start_program(
        program: &Path,
        entry: &ServiceEntry,
        generation: &Generation,
        listeners: &[&OwnedFd],
        log: Option<&File>,
        foreground: bool,
    ) -> io::Result<Self> {
        let config = &generation.config;
        let (control, theirs) = UnixStream::pair()?;
        control.set_write_timeout(Some(PATIENCE))?;
        let birth = Birth {
            service: entry.name.clone(),
            config_directory: config.directory().to_owned(),
            snapshot: generation.snapshot.clone(),
            overrides: entry.overrides.clone(),
            arguments: entry.plain_args(),
            verbosity: entry.verbosity,
            wakeup: entry.wakeup.map(|wakeup| wakeup.every),
            max_sessions: entry.maxproc,
            unprivileged: entry.unprivileged,
            listeners: u32::try_from(listeners.len()).map_err(io::Error::other)?,
            log_file: log.is_some(),
        };
        let log = match log {
            Some(file) => file.try_clone()?,
            None => File::open("/dev/null")?,
        };
        let mut descriptors: Vec<OwnedFd> = vec![theirs.into(), log.into()];
        for listener in listeners {
            descriptors.push(listener.try_clone()?);
        }
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(if foreground { Stdio::inherit() } else { Stdio::null() });
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C")
            // A thread for each session would otherwise have glibc keep an arena for each of the first dozens of them.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir(config.get(param::QUEUE_DIRECTORY));
        if let Some(zone) = std::env::var_os("TZ") {
            command.env("TZ", zone);
        }
        // A group of its own: an interrupt from master's terminal is master's to handle.
        command.process_group(0);
        let process = sys::process::spawn_with_descriptors(&mut command, &descriptors)?;
        let pid = Pid::from_raw(i32::try_from(process.id()).map_err(io::Error::other)?);
        let child = Self {
            pid,
            started: Instant::now(),
            ready: false,
            draining: false,
            speaks: true,
            control,
            receiver: Receiver::new(),
            key_files: key_files(entry, generation),
        };
        frame::send(&child.control, &birth, None)?;
        Ok(child)
    }

    /// The descriptor that becomes readable when the child says something.
    pub(crate) fn control(&self) -> &UnixStream {
        &self.control
    }

    /// Says something to the child; one that is gone is noticed by its end.
    pub(crate) fn say(&self, word: &ToChild, file: Option<&File>) {
        let _ = frame::send(&self.control, word, file.map(AsFd::as_fd));
    }

    /// Has the child finish what it does and end.
    pub(crate) fn drain(&mut self, word: &ToChild) {
        self.draining = true;
        self.say(word, None);
    }

    /// Takes what the child has said, when its descriptor is readable; nothing is waited for, be it the rest of a word. `true`
    /// where it is ready by that.
    pub(crate) fn hear(&mut self) -> bool {
        let now = Instant::now();
        let mut ready = false;
        loop {
            // An answer that comes too late is nobody's.
            ready |= self.hear_by(now) == Some(ToMaster::Ready);
            if !self.receiver.has_frame() {
                return ready;
            }
        }
    }

    /// The next word of the child, if it is whole by then; a wish for a file has been answered.
    fn hear_by(&mut self, deadline: Instant) -> Option<ToMaster> {
        let said = match self.receiver.next_message_by(&self.control, deadline) {
            Ok(said) => {
                // One that has closed is about to end; until then its descriptor is readable all the time.
                self.speaks = said.is_some();
                said
            }
            Err(error) => {
                self.misunderstand(&error);
                None
            }
        };
        if let Some(ToMaster::Open(path)) = &said {
            match self.open(path) {
                Ok(file) => self.say(&ToChild::Opened(Ok(())), Some(&file)),
                Err(error) => self.say(&ToChild::Opened(Err(error.to_string())), None),
            }
        }
        said
    }

    fn misunderstand(&mut self, error: &io::Error) {
        match error.kind() {
            // The rest of what it began to say may come.
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
            ErrorKind::InvalidData => {
                self.speaks = false;
                log::warning!("process {}: {error}, as no program of ours makes; it is ended", self.pid);
                self.kill();
            }
            _ => self.speaks = false,
        }
    }

    /// Opens a file that the child's configuration names as one with keys; no other, whatever the child says.
    fn open(&self, path: &Path) -> io::Result<File> {
        if !self.key_files.iter().any(|known| known == path) {
            return Err(io::Error::other("the configuration does not name this file"));
        }
        // A pipe or a device would keep everybody waiting.
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    /// What the child has answered to [`ToChild::Ask`] by then.
    pub(crate) fn status_by(&mut self, deadline: Instant) -> Option<ToMaster> {
        loop {
            match self.hear_by(deadline)? {
                ToMaster::Ready => self.ready = true,
                ToMaster::Open(_) => {}
                status @ ToMaster::Status { .. } => return Some(status),
            }
            if Instant::now() > deadline {
                return None;
            }
        }
    }

    /// Ends the child and whatever it started, at once.
    pub(crate) fn kill(&self) {
        let group = Pid::from_raw(-self.pid.as_raw());
        let _ = kill(group, Signal::SIGKILL);
    }
}

/// The key files of the service's own configuration, its `-o` settings included.
fn key_files(entry: &ServiceEntry, generation: &Generation) -> Vec<PathBuf> {
    let directory = generation.config.directory();
    let config = Config::from_snapshot(directory, &generation.snapshot, &entry.overrides);
    config.map(|(config, _)| control::key_files(&config, &entry.command)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A child whose words come over the other end.
    fn child() -> (Child, UnixStream) {
        let (control, theirs) = UnixStream::pair().unwrap();
        let child = Child {
            pid: Pid::from_raw(i32::MAX),
            started: Instant::now(),
            ready: false,
            draining: false,
            speaks: true,
            control,
            receiver: Receiver::new(),
            key_files: Vec::new(),
        };
        (child, theirs)
    }

    fn words(said: &[ToMaster]) -> Vec<u8> {
        let mut bytes = Vec::new();
        said.iter().for_each(|word| frame::push_message(&mut bytes, word).unwrap());
        bytes
    }

    #[test]
    fn a_child_that_speaks_byte_by_byte_is_never_waited_for() {
        let (mut child, mut theirs) = child();
        let bytes = words(&[ToMaster::Status { busy: 1, text: "x".repeat(100) }, ToMaster::Ready]);
        let (last, first) = bytes.split_last().unwrap();
        for byte in first {
            theirs.write_all(&[*byte]).unwrap();
            assert!(!child.hear() && child.speaks);
        }
        theirs.write_all(&[*last]).unwrap();
        assert!(child.hear());
    }

    #[test]
    fn words_that_come_together_are_all_heard() {
        let (mut child, mut theirs) = child();
        theirs.write_all(&words(&[ToMaster::Open("/etc/shadow".into()), ToMaster::Ready])).unwrap();
        assert!(child.hear());
        let answer: ToChild = Receiver::new().next_message(&theirs).unwrap().unwrap();
        assert!(matches!(answer, ToChild::Opened(Err(_))), "{answer:?}");
    }

    #[test]
    fn an_answer_that_never_becomes_whole_has_one_deadline() {
        let (mut child, mut theirs) = child();
        theirs.write_all(&words(&[ToMaster::Ready])).unwrap();
        let long = words(&[ToMaster::Status { busy: 1, text: "x".repeat(10_000) }]);
        let slow = std::thread::spawn(move || {
            let sent = long.iter().take_while(|byte| {
                std::thread::sleep(Duration::from_millis(5));
                theirs.write_all(&[**byte]).is_ok()
            });
            sent.count()
        });
        assert_eq!(child.status_by(Instant::now() + Duration::from_millis(100)), None);
        assert!(child.ready);
        drop(child);
        assert!(slow.join().unwrap() < 10_000);
    }
}
