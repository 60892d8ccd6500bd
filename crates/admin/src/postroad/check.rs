//! `postroad check`: the configuration, the tables it names, the folders it needs.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use config::{Config, Diagnostic, Severity, Snapshot, param};
use nix::errno::Errno;
use nix::unistd::{Group, Uid, User};
use queue::{Owner, Root};

use super::Failure;

/// Checks, and makes what is missing of the folders. Gives the remarks that are no errors.
pub(super) fn check(directory: &Path) -> Result<Vec<String>, Failure> {
    let (snapshot, mut problems) = Snapshot::read_to_run(directory).map_err(|problems| lines(&problems))?;
    let (config, more) =
        Config::from_snapshot(directory, &snapshot, &[]).map_err(|problems| lines(&problems))?;
    problems.extend(more);
    match ipc::check::ask_all(&config, &snapshot) {
        Ok(found) => problems.extend(found),
        Err(error) => return Err(vec![format!("error: {error}")]),
    }
    problems.retain(|problem| problem.severity > Severity::Note);
    let is_wrong = problems.iter().any(|problem| problem.severity == Severity::Error);
    let mut told = lines(&problems);
    if let Err(error) = folders(&config).and_then(|()| log_file(&config)) {
        told.push(format!("error: {error}"));
        return Err(told);
    }
    if is_wrong { Err(told) } else { Ok(told) }
}

/// Whether lines can be written where master will write them.
fn log_file(config: &Config) -> Result<(), String> {
    let path: PathBuf = config.get(param::MAILLOG_FILE);
    if path.as_os_str().is_empty() || path.starts_with("/dev") {
        return Ok(());
    }
    match std::fs::OpenOptions::new().append(true).open(&path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(about(config, "maillog_file", format!("open {}: {error}", path.display()))),
    }
    let folder = path.parent().unwrap_or(&path);
    match nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => {
            Err(about(config, "maillog_file", format!("there is no folder {}", folder.display())))
        }
        Err(error) => {
            Err(about(config, "maillog_file", format!("write to {}: {}", folder.display(), error.desc())))
        }
    }
}

/// What is wrong with the value of a parameter, with the line that sets it.
fn about(config: &Config, parameter: &str, text: impl Display) -> String {
    let file = config.directory().join("main.cf");
    let line = config.line_of(parameter).unwrap_or(0);
    let text = format!("{parameter}: {text}");
    Diagnostic { severity: Severity::Error, file, line, text }.to_string()
}

fn lines(problems: &[config::Diagnostic]) -> Vec<String> {
    problems.iter().map(Diagnostic::told).collect()
}

fn folders(config: &Config) -> Result<(), String> {
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let data_directory: PathBuf = config.get(param::DATA_DIRECTORY);
    let owner = if Uid::effective().is_root() { Some(owner(config)?) } else { None };
    let made = match std::fs::metadata(&data_directory) {
        Ok(found) if found.is_dir() => Ok(()),
        // Whoever cannot look would say that there is such a file.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(&data_directory),
    };
    made.map_err(|e| about(config, "data_directory", format!("create {}: {e}", data_directory.display())))?;
    if let Some(owner) = owner {
        std::os::unix::fs::chown(&data_directory, Some(owner.uid), Some(owner.gid)).map_err(|e| {
            about(config, "data_directory", format!("chown {}: {e}", data_directory.display()))
        })?;
    }
    Root::prepare(&queue_directory, owner).map(drop).map_err(|error| about(config, "queue_directory", error))
}

/// The users that master.cf's programs become.
fn owner(config: &Config) -> Result<Owner, String> {
    let name = config.get(param::MAIL_OWNER);
    let wrong = |text: String| about(config, "mail_owner", text);
    let user = User::from_name(&name).map_err(|e| wrong(format!("look up {name}: {e}")))?;
    let user = user.ok_or_else(|| wrong(format!("there is no user {name}; create it or name another")))?;
    let name = config.get(param::SETGID_GROUP);
    let wrong = |text: String| about(config, "setgid_group", text);
    let group = Group::from_name(&name).map_err(|e| wrong(format!("look up {name}: {e}")))?;
    let group = group.ok_or_else(|| wrong(format!("there is no group {name}; create it or name another")))?;
    Ok(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw(), submission_gid: group.gid.as_raw() })
}
