//! `postroad start` and `start-fg`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::{Config, param};
use ipc::master::{Request, ask};

use super::{Failure, check};

/// Starts master in the background and waits until it serves or has said why not.
pub(super) fn start(directory: &Path) -> Result<Vec<String>, Failure> {
    let (mut command, mut remarks) = prepare(directory)?;
    let (mut report, theirs) = io::pipe().map_err(|error| vec![format!("pipe: {error}")])?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::process::detach(&mut command);
    let child = sys::process::spawn_with_descriptors(&mut command, &[theirs.into()]);
    let child = child.map_err(|error| vec![format!("start {}: {error}", command.get_program().display())])?;
    let mut reason = String::new();
    // Master closes its end when it serves; what it writes before is why it does not.
    report.read_to_string(&mut reason).map_err(|error| vec![format!("wait for master: {error}")])?;
    if !reason.is_empty() {
        return Err(reason.lines().map(str::to_owned).collect());
    }
    let config = super::readable(directory)?;
    ask(&config, Request::Status).map_err(|error| {
        let queue: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let socket = ipc::socket_path(&queue, true, ipc::master::SOCKET);
        vec![format!(
            "ask master at {}: {error}; if it ended while it started, the log says why",
            socket.display()
        )]
    })?;
    remarks.push(format!("the mail system is started, master pid {}", child.id()));
    Ok(remarks)
}

/// Becomes master.
pub(super) fn start_in_foreground(directory: &Path) -> Result<Vec<String>, Failure> {
    let (mut command, _) = prepare(directory)?;
    command.arg("-f");
    let error = command.exec();
    Err(vec![format!("start {}: {error}", command.get_program().display())])
}

/// Checks, makes the folders, and gives the command that runs master, with the check's remarks.
fn prepare(directory: &Path) -> Result<(Command, Vec<String>), Failure> {
    // Master changes to its queue directory, and its children are told where the configuration is.
    let directory = fs::canonicalize(directory).map_err(|error| {
        let directory = directory.display();
        vec![format!("configuration directory {directory}: {error}; -c or MAIL_CONFIG names another")]
    })?;
    let remarks = check::check(&directory)?;
    let (config, _) =
        Config::load(&directory).map_err(|p| p.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let daemons: PathBuf = config.get(param::DAEMON_DIRECTORY);
    let program = daemons.join("master");
    ipc::check::find_program(&program).map_err(|text| vec![format!("error: {text}")])?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&directory);
    Ok((command, remarks))
}
