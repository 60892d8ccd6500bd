//! Commands to a running master.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::{Config, param};
use ipc::master::{Answer, Request, ask, pid_file};
use ipc::queue_manager::{self, Word};

use super::{Failure, readable};

/// How long a stop may take: master itself ends what does not end after a few seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn stop(directory: &Path) -> Result<Vec<String>, Failure> {
    request(directory, Request::Stop)?;
    wait_until_gone(directory)
}

pub(super) fn abort(directory: &Path) -> Result<Vec<String>, Failure> {
    request(directory, Request::Abort)?;
    wait_until_gone(directory)
}

pub(super) fn reload(directory: &Path) -> Result<Vec<String>, Failure> {
    match ask(&readable(directory)?, Request::Reload) {
        Ok(Answer::Failed(mut lines)) => {
            lines.push("reload refused; the mail system goes on with the configuration it has".into());
            Err(lines)
        }
        Ok(Answer::Done(mut lines)) => {
            lines.push("reloaded".into());
            Ok(lines)
        }
        Err(error) => Err(not_running(&error)),
    }
}

pub(super) fn status(directory: &Path) -> Result<Vec<String>, Failure> {
    request(directory, Request::Status)
}

pub(super) fn reopen_log(directory: &Path) -> Result<Vec<String>, Failure> {
    request(directory, Request::ReopenLog)
}

/// As `postqueue -f`.
pub(super) fn flush(directory: &Path) -> Result<Vec<String>, Failure> {
    let (config, _) =
        Config::load(directory).map_err(|p| p.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let socket = ipc::socket_path(&queue_directory, false, &config.get(param::QUEUE_SERVICE_NAME));
    queue_manager::Client::new(socket).say(&Word::Flush).map_err(|e| not_running(&e))?;
    Ok(Vec::new())
}

fn request(directory: &Path, request: Request) -> Result<Vec<String>, Failure> {
    match ask(&readable(directory)?, request) {
        Ok(Answer::Done(lines)) => Ok(lines),
        Ok(Answer::Failed(lines)) => Err(lines),
        Err(error) => Err(not_running(&error)),
    }
}

fn not_running(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            vec!["the mail system is not running".into()]
        }
        io::ErrorKind::PermissionDenied => {
            vec!["talk to the mail system: permission denied; this is the business of who started it".into()]
        }
        _ => vec![format!("talk to the mail system: {error}")],
    }
}

fn wait_until_gone(directory: &Path) -> Result<Vec<String>, Failure> {
    let queue_directory: PathBuf = readable(directory)?.get(param::QUEUE_DIRECTORY);
    let pid_file = pid_file(&queue_directory);
    let give_up = Instant::now() + STOP_PATIENCE;
    while is_locked(&pid_file) {
        if Instant::now() > give_up {
            return Err(vec!["the mail system does not stop; `postroad abort` ends it at once".into()]);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(vec!["the mail system has stopped".into()])
}

/// Whether a master holds its lock.
fn is_locked(pid_file: &Path) -> bool {
    std::fs::File::open(pid_file).is_ok_and(|file| file.try_lock_shared().is_err())
}
