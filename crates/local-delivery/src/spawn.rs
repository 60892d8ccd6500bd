//! spawn(8): for each connection a program, whose input and output the connection is: what inetd does.
//!
//! Contract: the program runs as the user of `user=`, who is neither root nor the mail system's own, never through a
//! shell, and no longer than its time limit. This process never reads or writes the connection.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use config::{Config, Diagnostic, Severity, param};
use ipc::check::Asked;
use ipc::log;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use service::{Connection, Fatal, Lifecycle, Service, Stream};
use sys::process::Confinement;

use crate::command::DEFAULT_PATH;
use crate::command_user::{CommandUsers, Unusable};
use crate::failure::describe;
use crate::local::settings::exported;
use crate::program::Place;

/// How often a running program is compared with the wishes of master.
const GLANCE: Duration = Duration::from_secs(1);

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// The program `spawn`.
///
/// # Errors
/// What master.cf says makes no sense, or the skeleton's.
pub fn run(service: Service) -> Result<(), Fatal> {
    let spawner = Spawner::new(&service.config, &service.name, &service.arguments)?;
    service.serve_sessions(move |lifecycle, connection| spawner.serve(lifecycle, &connection))
}

/// What is wrong with a service of this program.
#[must_use]
pub fn judge(asked: &Asked) -> Vec<Diagnostic> {
    let mut found = service::judge(&asked.config);
    let usable = Attributes::parse(&asked.arguments).map_err(Unusable::Forbidden).and_then(|attributes| {
        CommandUsers::new(&asked.config).find(&attributes.user, attributes.group.as_deref())?;
        Ok(missing_program(&asked.config, &attributes))
    });
    let (severity, text) = match usable {
        Ok(None) => return found,
        Ok(Some(text)) | Err(Unusable::Unknown(text)) => (Severity::Warning, text),
        Err(Unusable::Forbidden(text)) => (Severity::Error, text),
    };
    let file = asked.config.directory().join("master.cf");
    found.push(Diagnostic { severity, file, line: 0, text: format!("{}: {text}", asked.service) });
    found
}

/// That the program cannot be run.
fn missing_program(config: &Config, attributes: &Attributes) -> Option<String> {
    let (directory, environment): (PathBuf, _) = (config.get(param::QUEUE_DIRECTORY), exported(config));
    let place = Place { chroot: None, directory: &directory, environment: &environment };
    let text = place.trouble_with(attributes.command.first()?)?;
    Some(format!("{text}; until then connections are closed"))
}

/// What master.cf says behind `spawn`.
#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    user: String,
    group: Option<String>,
    command: Vec<String>,
}

impl Attributes {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut user, mut command) = (None, Vec::new());
        for (at, argument) in arguments.iter().enumerate() {
            match argument.split_once('=') {
                Some(("user", value)) if !value.is_empty() => user = Some(value),
                Some(("argv", value)) if !value.is_empty() => {
                    command.push(value.to_owned());
                    command.extend_from_slice(arguments.get(at + 1..).unwrap_or_default());
                    break;
                }
                _ => {
                    let known = "expected user=NAME or user=NAME:GROUP, then argv=COMMAND ARGUMENT...";
                    return Err(format!("unknown attribute \"{argument}\": {known}"));
                }
            }
        }
        let user = user.ok_or("user= is missing: expected user=NAME or user=NAME:GROUP")?;
        if command.is_empty() {
            return Err("argv= is missing: expected argv=COMMAND ARGUMENT..., after user=".to_owned());
        }
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group.to_owned())),
            None => (user, None),
        };
        Ok(Self { user: user.to_owned(), group, command })
    }
}

struct Spawner {
    service: String,
    attributes: Attributes,
    users: CommandUsers,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    time_limit: Duration,
}

impl Spawner {
    fn new(config: &Config, service: &str, arguments: &[String]) -> Result<Self, Fatal> {
        let attributes = Attributes::parse(arguments)
            .map_err(|text| Fatal::new(format!("master.cf: service {service}: {text}")))?;
        Ok(Self {
            service: service.to_owned(),
            attributes,
            users: CommandUsers::new(config),
            environment: exported(config),
            directory: config.get(param::QUEUE_DIRECTORY),
            time_limit: config.for_transport(service, "_time_limit", param::COMMAND_TIME_LIMIT),
        })
    }

    /// Runs the program for a client, and sees it to its end.
    fn serve(&self, lifecycle: &Lifecycle, connection: &Connection) {
        let Some(program) = self.attributes.command.first() else { return };
        match self.start(&connection.stream) {
            Ok(mut child) => {
                // Nothing but the program holds the connection now; when it ends the client sees it.
                match self.watch(&mut child, &|| lifecycle.stopping()) {
                    Ok(status) => self.tell(program, status),
                    Err(error) => log::warning!("wait for command {program}: {}", describe(&error)),
                }
            }
            Err(text) => log::warning!("service {}: command {program}: {text}", self.service),
        }
        connection.stream.end();
    }

    fn start(&self, stream: &Stream) -> Result<Child, String> {
        let attributes = &self.attributes;
        let (uid, gid) =
            self.users.find(&attributes.user, attributes.group.as_deref()).map_err(|reason| {
                let (Unusable::Forbidden(text) | Unusable::Unknown(text)) = reason;
                text
            })?;
        let identity = self.users.instance.identity(uid, gid).map_err(|failure| failure.text)?;
        let said = |error: io::Error| describe(&error);
        let end = || stream.descriptor().map(Stdio::from).map_err(said);
        let mut command = Command::new(attributes.command.first().map_or("", String::as_str));
        command.args(attributes.command.get(1..).unwrap_or_default());
        command.env_clear().env("PATH", DEFAULT_PATH);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(end()?).stdout(end()?).stderr(end()?).process_group(0);
        let directory = folder(&self.directory).map_err(said)?;
        sys::process::confine(
            &mut command,
            Confinement { identity, directory: Some(directory), ..Confinement::default() },
        );
        command.spawn().map_err(said)
    }

    /// Waits for the end of the program, and brings it about when its time is over or the mail system stops.
    fn watch(&self, child: &mut Child, stopping: &dyn Fn() -> bool) -> io::Result<ExitStatus> {
        let id = i32::try_from(child.id()).map_err(io::Error::other)?;
        // Without a handle its end is seen a moment later.
        let handle = sys::process::handle_of(id);
        if let Err(error) = &handle {
            log::warning!("service {}: watch process id {id}: {}", self.service, describe(error));
        }
        let (mut deadline, mut signal) = (Instant::now() + self.time_limit, Signal::SIGKILL);
        loop {
            if let Some(status) = child.try_wait()? {
                // What it started and left goes with it.
                let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
                return Ok(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if signal == Signal::SIGKILL {
                    log::warning!("service {}: process id {id}: command time limit exceeded", self.service);
                }
                let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
                return child.wait();
            }
            if stopping() && signal == Signal::SIGKILL {
                signal = Signal::SIGTERM;
                let _ = killpg(Pid::from_raw(id), signal);
                deadline = deadline.min(Instant::now() + GRACE);
            }
            let timeout = PollTimeout::try_from(left.min(GLANCE)).unwrap_or(PollTimeout::ZERO);
            let watched = handle.iter().map(|handle| PollFd::new(handle.as_fd(), PollFlags::POLLIN));
            let _ = poll(&mut watched.collect::<Vec<_>>(), timeout);
        }
    }

    fn tell(&self, program: &str, status: ExitStatus) {
        if let Some(code) = status.code().filter(|code| *code != 0) {
            log::warning!("service {}: command {program} exit status {code}", self.service);
        } else if let Some(signal) = status.signal() {
            log::warning!("service {}: command {program} killed by signal {signal}", self.service);
        }
    }
}

fn folder(path: &Path) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::rights::{Instance, SystemUsers};

    fn parse(text: &str) -> Result<Attributes, String> {
        Attributes::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn attributes_are_user_and_argv() {
        let read = parse("user=nobody:mail argv=/bin/cat -u argv=x").unwrap();
        assert_eq!((read.user.as_str(), read.group.as_deref()), ("nobody", Some("mail")));
        assert_eq!(read.command, ["/bin/cat", "-u", "argv=x"]);
        for (text, wanted) in [
            ("argv=/bin/cat", "user= is missing"),
            ("user=x", "argv= is missing"),
            ("user=x argv=", "unknown attribute \"argv=\""),
            ("flags=D user=x argv=y", "unknown attribute \"flags=D\""),
        ] {
            assert!(parse(text).unwrap_err().contains(wanted), "{text}");
        }
    }

    fn spawner(argv: &str, time_limit: u64) -> Spawner {
        let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        let user = if own.uid.is_root() { "nobody".to_owned() } else { own.name };
        Spawner {
            service: "policy".into(),
            attributes: parse(&format!("user={user} argv={argv}")).unwrap(),
            users: CommandUsers {
                users: SystemUsers::default(),
                instance: Instance::current(),
                mail_owner: "daemon".into(),
                submission_group: "mail".into(),
            },
            environment: vec![("LANG".to_owned(), "C".to_owned())],
            directory: "/".into(),
            time_limit: Duration::from_secs(time_limit),
        }
    }

    #[test]
    fn the_connection_is_the_programs_input_and_output() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let spawner = spawner("/usr/bin/tr a-z A-Z", 10);
        let stream = Stream::Unix(server);
        let mut child = spawner.start(&stream).unwrap();
        drop(stream);
        client.write_all(b"request=smtpd_access_policy\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "REQUEST=SMTPD_ACCESS_POLICY\n");
        assert!(spawner.watch(&mut child, &|| false).unwrap().success());
    }

    #[test]
    fn a_program_ends_with_its_time_and_with_the_mail_system() {
        let began = Instant::now();
        let (_client, server) = UnixStream::pair().unwrap();
        let stream = Stream::Unix(server);
        let slow = spawner("/bin/sleep 60", 1);
        let mut child = slow.start(&stream).unwrap();
        assert_eq!(slow.watch(&mut child, &|| false).unwrap().signal(), Some(9));
        let patient = spawner("/bin/sleep 60", 60);
        let mut child = patient.start(&stream).unwrap();
        let stopping = Arc::new(AtomicBool::new(true));
        let status = patient.watch(&mut child, &|| stopping.load(Ordering::Relaxed)).unwrap();
        assert_eq!(status.signal(), Some(15));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let (_client, server) = UnixStream::pair().unwrap();
        let error = spawner("/no/such/program", 1).start(&Stream::Unix(server)).unwrap_err();
        assert_eq!(error, "No such file or directory");
    }
}
