//! `postroad check`: the configuration, the tables it names, the folders it needs.

use std::path::{Path, PathBuf};

use config::{Config, Severity, Snapshot, param};
use lookup::OpenError;
use nix::unistd::{Group, Uid, User};
use queue::{Owner, Root};

use super::Failure;

/// Checks, and makes what is missing of the folders. Gives the remarks that are no errors.
pub(super) fn check(directory: &Path) -> Result<Vec<String>, Failure> {
    let (snapshot, mut problems) = Snapshot::read(directory).map_err(|problems| lines(&problems))?;
    let (config, more) =
        Config::from_snapshot(directory, &snapshot, &[]).map_err(|problems| lines(&problems))?;
    problems.extend(more);
    problems.retain(|problem| problem.severity == Severity::Warning);
    let mut found = Found { errors: Vec::new(), remarks: lines(&problems) };
    found.tables(&config);
    found.programs(&config, &snapshot);
    if let Err(error) = folders(&config) {
        found.errors.push(format!("error: {error}"));
    }
    if found.errors.is_empty() {
        return Ok(found.remarks);
    }
    found.errors.append(&mut found.remarks);
    Err(found.errors)
}

/// Lines for the operator.
struct Found {
    errors: Vec<String>,
    remarks: Vec<String>,
}

impl Found {
    /// Opens every list and table that a set parameter names, as the daemons will.
    fn tables(&mut self, config: &Config) {
        // These two list the tables of others, where Postfix's proxymap may go.
        let names_tables = |name: &str| name.ends_with("_maps") && !name.starts_with("proxy_");
        for parameter in config::PARAMETERS.iter().filter(|p| p.implemented && names_tables(p.name)) {
            let items = config.text(parameter.name).unwrap_or_default();
            for spec in config::split_list(&items) {
                if let Err(error) = lookup::open(&spec) {
                    self.unopened(&error, parameter.name);
                }
            }
        }
        let findings = lookup::check(config);
        findings.errors.iter().for_each(|error| self.unopened(error, "main.cf"));
        self.remarks.extend(findings.warnings.iter().map(|text| format!("warning: {text}")));
    }

    fn unopened(&mut self, error: &OpenError, place: &str) {
        let told = self.errors.iter().chain(&self.remarks).any(|line| line.contains(&error.to_string()));
        match error {
            _ if told => {}
            OpenError::Configuration(text) => self.errors.push(format!("error: {place}: {text}")),
            // It can be mended while the daemons run, who defer what depends on it until then.
            OpenError::Unavailable(text) => self.remarks.push(format!("warning: {place}: {text}")),
        }
    }

    /// Asks the programs what only they can judge.
    fn programs(&mut self, config: &Config, snapshot: &Snapshot) {
        match ipc::check::ask_all(config, snapshot) {
            Ok(answers) => {
                for answer in answers {
                    if answer.is_error {
                        self.errors.push(format!("error: {}", answer.text));
                    } else {
                        self.remarks.push(format!("warning: {}", answer.text));
                    }
                }
            }
            Err(error) => self.errors.push(format!("error: {error}")),
        }
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
