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

/// How long master waits for a child that does not read, or that began to say something and stopped: a child that is
/// stuck must not stop the others.
const PATIENCE: Duration = Duration::from_millis(500);

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
        control.set_read_timeout(Some(PATIENCE))?;
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

    /// What the child says, when its descriptor is readable; `None` where that is nothing. A wish for a file has been answered.
    pub(crate) fn hear(&mut self) -> Option<ToMaster> {
        let said = match self.receiver.next_message(&self.control) {
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

    /// Asks how it is going, and waits a moment for the answer.
    pub(crate) fn ask(&mut self) -> Option<ToMaster> {
        self.say(&ToChild::Ask, None);
        loop {
            match self.hear()? {
                ToMaster::Ready => self.ready = true,
                ToMaster::Open(_) => {}
                status @ ToMaster::Status { .. } => return Some(status),
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
