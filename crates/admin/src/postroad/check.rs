//! `postroad check`: the configuration, the tables it names, the folders it needs.

use std::path::{Path, PathBuf};

use config::{Config, Severity, param};
use nix::unistd::{Group, Uid, User};
use queue::{Owner, Root};

use super::Failure;

/// Checks, and makes what is missing of the folders. Gives the remarks that are no errors.
pub(super) fn check(directory: &Path) -> Result<Vec<String>, Failure> {
    let (config, problems) = Config::load(directory).map_err(|problems| lines(&problems))?;
    let mut remarks =
        lines(&problems.into_iter().filter(|p| p.severity == Severity::Warning).collect::<Vec<_>>());
    let mut errors = Vec::new();
    tables(&config, &mut remarks);
    if let Err(error) = folders(&config) {
        errors.push(error);
    }
    if errors.is_empty() {
        Ok(remarks)
    } else {
        errors.extend(remarks);
        Err(errors)
    }
}

fn lines(problems: &[config::Diagnostic]) -> Vec<String> {
    let word = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    problems.iter().map(|problem| format!("{}: {problem}", word(problem.severity))).collect()
}

/// Opens every table that a set parameter names, as the daemons will.
fn tables(config: &Config, remarks: &mut Vec<String>) {
    // These two list the tables of others, where Postfix's proxymap may go.
    let names_tables = |name: &str| name.ends_with("_maps") && !name.starts_with("proxy_");
    for parameter in config::PARAMETERS.iter().filter(|p| p.implemented && names_tables(p.name)) {
        let items = config.text(parameter.name).unwrap_or_default();
        for spec in config::split_list(&items) {
            if let Err(error) = lookup::open(&spec) {
                remarks.push(format!("warning: {}: {error}", parameter.name));
            }
        }
    }
}

fn folders(config: &Config) -> Result<(), String> {
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let data_directory: PathBuf = config.get(param::DATA_DIRECTORY);
    let owner = if Uid::effective().is_root() { Some(owner(config)?) } else { None };
    std::fs::create_dir_all(&data_directory)
        .map_err(|e| format!("create {}: {e}", data_directory.display()))?;
    if let Some(owner) = owner {
        std::os::unix::fs::chown(&data_directory, Some(owner.uid), Some(owner.gid))
            .map_err(|e| format!("chown {}: {e}", data_directory.display()))?;
    }
    Root::prepare(&queue_directory, owner).map(drop).map_err(|error| error.to_string())
}

/// The users that master.cf's programs become.
fn owner(config: &Config) -> Result<Owner, String> {
    let name = config.get(param::MAIL_OWNER);
    let user = User::from_name(&name).map_err(|e| format!("look up mail_owner {name}: {e}"))?;
    let user =
        user.ok_or_else(|| format!("main.cf: mail_owner = {name}: no such user; create it or name another"))?;
    let name = config.get(param::SETGID_GROUP);
    let group = Group::from_name(&name).map_err(|e| format!("look up setgid_group {name}: {e}"))?;
    let group = group
        .ok_or_else(|| format!("main.cf: setgid_group = {name}: no such group; create it or name another"))?;
    Ok(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw(), submission_gid: group.gid.as_raw() })
}
