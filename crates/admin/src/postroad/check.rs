//! `postroad check`: the configuration, the tables it names, the folders it needs.

use std::fmt::Display;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use config::{Config, Diagnostic, Severity, Snapshot, param};
use nix::errno::Errno;
use nix::unistd::{Group, Uid, User};
use queue::{Mended, Owner, Root};

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
    let mended = folders(&config);
    told.extend(mended.iter().flatten().map(put_right));
    if let Err(error) = mended.and_then(|_| log_file(&config)) {
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

/// Makes what is missing of the folders, and gives them the owners and modes that they must have: what was put right.
fn folders(config: &Config) -> Result<Vec<Mended>, String> {
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let data_directory: PathBuf = config.get(param::DATA_DIRECTORY);
    let owner = if Uid::effective().is_root() { Some(owner(config)?) } else { None };
    let wrong =
        |what: &str, e| about(config, "data_directory", format!("{what} {}: {e}", data_directory.display()));
    let is_new = match std::fs::metadata(&data_directory) {
        Ok(found) if found.is_dir() => false,
        // Whoever cannot look would say that there is such a file.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(wrong("create", error)),
        _ => std::fs::create_dir_all(&data_directory).map(|()| true).map_err(|e| wrong("create", e))?,
    };
    let mut mended = Vec::new();
    if let Some(owner) = owner {
        let found = std::fs::metadata(&data_directory).map_err(|e| wrong("look at", e))?;
        let [before, now] = [(found.uid(), found.gid()), (owner.uid, owner.gid)];
        chown(&data_directory, Some(owner.uid), Some(owner.gid)).map_err(|e| wrong("chown", e))?;
        if !is_new && before != now {
            mended.push(Mended { path: data_directory.clone(), owner: Some([before, now]), mode: None });
        }
    }
    let queue =
        Root::mend(&queue_directory, owner).map_err(|error| about(config, "queue_directory", error))?;
    mended.extend(queue.1);
    Ok(mended)
}

/// What was put right of a folder, in the words of ls(1) and chmod(1).
fn put_right(mended: &Mended) -> String {
    let owner = mended.owner.map(|owners| {
        let [before, now] = owners.map(|(uid, gid)| {
            let user = User::from_uid(uid.into()).ok().flatten().map_or(uid.to_string(), |user| user.name);
            let group =
                Group::from_gid(gid.into()).ok().flatten().map_or(gid.to_string(), |group| group.name);
            format!("{user}:{group}")
        });
        format!("owner {before} is now {now}")
    });
    let mode = mended.mode.map(|[before, now]| format!("mode {before:04o} is now {now:04o}"));
    let changes: Vec<String> = [owner, mode].into_iter().flatten().collect();
    format!("note: {}: put right: {}", mended.path.display(), changes.join(", "))
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
