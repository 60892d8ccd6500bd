//! The way of a submission out of `sendmail`: to a running pickup, where it is small; else into `maildrop/` where this process
//! may write there, else to postdrop.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mail::submission::{Head, LostBlock, MAX_HANDED, trailer};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::authorization::Decision;
use crate::failure::{Exit, Failure, warn};
use crate::handover::hand_over;
use crate::maildrop::{Maildrop, wake_pickup};
use crate::message::{CHUNK, Header};
use crate::sendmail::PROGRAM;
use crate::settings::Settings;

/// No more of what postdrop says is read.
const MAX_SAID: u64 = 16 * 1024;

/// The submission on its way out. A small one is a single write; what could go to pickup as a whole is held until then.
pub(crate) struct Outgoing<'a> {
    settings: &'a Settings,
    decision: Decision,
    /// This process is still wanted when the message is on its way.
    stays: bool,
    sink: Option<Sink>,
    /// What waits to be sent; the caller appends content.
    pub(crate) buffer: Vec<u8>,
    /// How much of the content was sent, less what is in `buffer`; the head does not count.
    content: u64,
    /// How much of `buffer` is the head.
    head: usize,
    lost: LostBlock,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(settings: &'a Settings, decision: Decision, head: &Head, header: &Header) -> Self {
        let mut buffer = head.encode();
        let head = buffer.len();
        buffer.reserve(header.bytes.len() + 1024);
        buffer.extend_from_slice(&header.bytes);
        let lost = LostBlock::default();
        Self { settings, decision, stays: false, sink: None, buffer, content: 0, head, lost }
    }

    /// Other messages follow this one: postdrop does not take this process's place, and what it says is in the [`Failure`].
    pub(crate) fn with_more_to_come(self) -> Self {
        Self { stays: true, ..self }
    }

    /// How much the buffer is to hold before it is sent.
    pub(crate) fn enough(&self) -> usize {
        if self.sink.is_some() { CHUNK } else { MAX_HANDED }
    }

    /// Sends what is in the buffer; there is more to come.
    pub(crate) fn transmit(&mut self) -> Result<(), Failure> {
        self.count()?;
        self.write(false)
    }

    /// Sends the rest, and returns when the message is safe on disk.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.count()?;
        self.buffer.extend_from_slice(&trailer(self.content));
        let may_be_handed = self.sink.is_none() && self.decision == Decision::Allowed;
        if may_be_handed && hand_over(&self.settings.queue_directory(), &self.buffer) {
            return Ok(());
        }
        self.write(true)?;
        match self.sink.take() {
            Some(sink) => sink.finish(self.settings),
            None => Ok(()),
        }
    }

    fn count(&mut self) -> Result<(), Failure> {
        if self.lost.is_in(&self.buffer) {
            return Err(full_of_zeros());
        }
        self.content += (self.buffer.len() - std::mem::take(&mut self.head)) as u64;
        match self.settings.message_size_limit() {
            Some(limit) if self.content > limit => Err(too_big()),
            _ => Ok(()),
        }
    }

    fn write(&mut self, is_last: bool) -> Result<(), Failure> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            None => {
                let own = Sink::maildrop(self.settings, self.decision)?;
                if own.is_none() && is_last && !self.stays {
                    become_postdrop(self.settings, &self.buffer)?;
                }
                let postdrop = || Sink::postdrop(self.settings, self.stays);
                self.sink.insert(own.map_or_else(postdrop, Ok)?)
            }
        };
        let result = sink.write_all(&self.buffer);
        self.buffer.clear();
        match (result, self.sink.take()) {
            (Ok(()), sink) => {
                self.sink = sink;
                Ok(())
            }
            // postdrop has ended, and said why.
            (Err(error), Some(Sink::Postdrop(child))) if error.kind() == ErrorKind::BrokenPipe => {
                Err(ended(child).err().unwrap_or_else(|| Failure::new(Exit::Software, "postdrop left early")))
            }
            (Err(error), _) => Err(file_failed("write", &self.settings.queue_directory(), &error)),
        }
    }
}

/// What a message beyond `message_size_limit` is refused with.
pub(crate) fn too_big() -> Failure {
    Failure::new(Exit::Unavailable, "message file too big")
}

/// What a message is refused with that pickup would take for a torn one.
pub(crate) fn full_of_zeros() -> Failure {
    Failure::new(Exit::Data, "thousands of zero bytes in a row are no message")
}

/// Who writes the file.
enum Sink {
    /// This process, which runs as the owner of the queue or as root.
    Maildrop(Maildrop),
    /// postdrop, which has the group's rights.
    Postdrop(Postdrop),
}

/// postdrop at work. It takes nothing whose end it has not seen.
struct Postdrop(Child);

impl Drop for Postdrop {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Sink {
    /// `None` where this process may not, or postdrop is to say whether the user may.
    fn maildrop(settings: &Settings, decision: Decision) -> Result<Option<Self>, Failure> {
        if decision != Decision::Allowed {
            return Ok(None);
        }
        let queue = settings.queue_directory();
        match Maildrop::create(&queue) {
            Ok(file) => Ok(Some(Self::Maildrop(file))),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(create_failed(&queue, &error)),
        }
    }

    /// `hears`: what it has to say is kept for whoever is told of a failure.
    fn postdrop(settings: &Settings, hears: bool) -> Result<Self, Failure> {
        let mut command = postdrop(settings);
        if hears {
            command.stderr(Stdio::piped());
        }
        let child = command.stdin(Stdio::piped()).spawn().map_err(|error| cannot_run(&command, &error))?;
        Ok(Self::Postdrop(Postdrop(child)))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Maildrop(file) => file.write_all(bytes),
            Self::Postdrop(Postdrop(child)) => match &mut child.stdin {
                Some(pipe) => pipe.write_all(bytes),
                None => Err(ErrorKind::BrokenPipe.into()),
            },
        }
    }

    /// Returns when the message is durable.
    fn finish(self, settings: &Settings) -> Result<(), Failure> {
        match self {
            Self::Maildrop(file) => commit(PROGRAM, file, &settings.queue_directory()),
            Self::Postdrop(child) => ended(child),
        }
    }
}

fn postdrop(settings: &Settings) -> Command {
    let mut command = Command::new(settings.command("postdrop"));
    // It trusts nothing of the environment anyway; TZ and the like would only be a surprise in its log lines.
    command.arg("-r").env_clear().env("MAIL_CONFIG", settings.directory());
    command
}

fn cannot_run(command: &Command, error: &io::Error) -> Failure {
    let program = Path::new(command.get_program());
    Failure::new(Exit::System, format!("run {}: {error}", program.display()))
}

/// Leaves a small submission in a pipe and becomes postdrop, which reads it: one process instead of two that wait for
/// each other. Returns `Ok` if the submission does not fit into a pipe.
fn become_postdrop(settings: &Settings, submission: &[u8]) -> Result<(), Failure> {
    let Ok((reader, writer)) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) else { return Ok(()) };
    if nix::unistd::write(&writer, submission) != Ok(submission.len()) {
        return Ok(());
    }
    drop(writer);
    // Nobody waits for postdrop here, so its reads may not return early either; the flags belong to the pipe's end.
    if fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).is_err() {
        return Ok(());
    }
    let mut command = postdrop(settings);
    let error = command.stdin(reader).exec();
    Err(cannot_run(&command, &error))
}

/// Makes a maildrop file durable and tells pickup.
///
/// # Errors
/// That it could not be made durable; a pickup that is not there is only worth a warning.
pub(crate) fn commit(program: &str, file: Maildrop, queue: &Path) -> Result<(), Failure> {
    file.commit().map_err(|error| file_failed("sync", queue, &error))?;
    if let Err(error) = wake_pickup(queue) {
        let socket = queue.join("public/pickup");
        warn(
            program,
            &format!(
                "mail system is down: connect to {}: {error}; the message is queued for later",
                socket.display()
            ),
        );
    }
    Ok(())
}

/// What is said where `maildrop/` does not take a file.
pub(crate) fn create_failed(queue: &Path, error: &io::Error) -> Failure {
    let mut failure = file_failed("create", queue, error);
    if error.kind() == io::ErrorKind::PermissionDenied {
        failure.text +=
            "; postdrop must be installed with setgid_group as its group and the set-group-id bit";
    }
    failure
}

/// What is said where an operation on a file there fails.
pub(crate) fn file_failed(operation: &str, queue: &Path, error: &io::Error) -> Failure {
    let folder = queue.join("maildrop");
    Failure::new(Exit::Temporary, format!("{operation} a file in {}: {error}", folder.display()))
}

/// Waits for postdrop, which reports its own failures: its exit code is passed on.
fn ended(mut postdrop: Postdrop) -> Result<(), Failure> {
    let Postdrop(child) = &mut postdrop;
    drop(child.stdin.take());
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is in the mail log, too.
        let _ = stderr.take(MAX_SAID).read_to_end(&mut said);
    }
    let status =
        child.wait().map_err(|error| Failure::new(Exit::System, format!("wait for postdrop: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Software);
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().last().unwrap_or_default();
    Err(match last.strip_prefix("postdrop: fatal: ") {
        Some(why) => Failure::new(exit, why),
        None => Failure::new(exit, format!("postdrop did not take the message: {status}")),
    })
}
