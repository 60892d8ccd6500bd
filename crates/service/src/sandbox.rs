//! Phase 2, the part that is for good: what a program can reach is what its row of the [`table`] says, by the kernel's
//! word and not by the program's.
//!
//! It comes in two steps. Files, ports and capabilities are laid down before the first thread is started, because they
//! hold for a thread and those that it starts; what a daemon opens with root's rights lies within its row as well. The
//! filter of system calls comes last, when the process has become `mail_owner`, and reaches all threads.
//!
//! What the kernel does not have is left out and told (`postroad status`); what it refuses ends the program. `sandbox` in
//! main.cf or master.cf leaves parts out, loudly.

mod reach;
pub mod table;

use std::path::PathBuf;
use std::sync::OnceLock;

use config::{Config, Snapshot, param};
use nix::errno::Errno;
use sys::sandbox::capabilities::{self, Capability};
use sys::sandbox::files::{self, Enforced, Reach};
use sys::sandbox::{calls, do_without};

use crate::Fatal;
use reach::Texts;
use table::{Hold, Row};

/// What a process that will become `mail_owner` keeps of root's power until then.
const UNTIL_DROP: &[Capability] = &[Capability::DacReadSearch, Capability::Setgid, Capability::Setuid];

/// What a service whose program could do without has of root's power, where master.cf says that it keeps root.
const ROOT_BY_CHOICE: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Setgid,
    Capability::Setuid,
];

/// What one process is held to.
#[derive(Debug)]
pub struct Sandbox {
    row: &'static Row,
    unprivileged: bool,
    parts: Parts,
    /// Where no part of it is laid down: the program starts a command of the operator's.
    released: Option<String>,
    reach: Option<Reach>,
    directory: PathBuf,
    overrides: Vec<(String, String)>,
    /// What the kernel made of it.
    enforced: OnceLock<Enforced>,
    filtered: OnceLock<bool>,
}

/// `sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    files: bool,
    ports: bool,
    calls: bool,
}

impl Parts {
    fn new(config: &Config) -> Self {
        let words: Vec<String> = config.get(param::SANDBOX);
        let has = |part: &str| words.iter().any(|word| word == part || word == "yes");
        Self { files: has("files"), ports: has("ports"), calls: has("calls") }
    }

    /// What is missing for all.
    fn missing(self) -> Vec<&'static str> {
        let parts = [(self.files, "files"), (self.ports, "ports"), (self.calls, "system calls")];
        parts.into_iter().filter(|(there, _)| !there).map(|(_, name)| name).collect()
    }
}

impl Sandbox {
    /// Of a service with this program and this configuration, which was made with these `-o` settings. `unprivileged`
    /// says that it will not keep root's rights.
    ///
    /// # Errors
    /// A program that the table does not have.
    pub fn new(
        program: &str,
        config: &Config,
        overrides: &[(String, String)],
        unprivileged: bool,
    ) -> Result<Self, Fatal> {
        let row = table::row_of(program)
            .ok_or_else(|| Fatal::new(format!("{program}: there is no row for it in the sandbox's table")))?;
        let parts = Parts::new(config);
        let texts = Texts::new(program, config);
        Ok(Self {
            row,
            unprivileged,
            parts,
            released: texts.names_command(),
            reach: reach_of(row, &texts, parts),
            directory: config.directory().to_owned(),
            overrides: overrides.to_vec(),
            enforced: OnceLock::new(),
            filtered: OnceLock::new(),
        })
    }

    /// Whether the process never starts a program, which would inherit what holds for the process.
    pub(crate) fn starts_no_program(&self) -> bool {
        matches!(self.row.hold, Hold::Whole { .. }) && self.released.is_none()
    }

    /// The first step, while the process has one thread.
    ///
    /// # Errors
    /// What the kernel refuses. The program must end then.
    pub fn enter(&self) -> Result<(), Fatal> {
        let is_whole = matches!(self.row.hold, Hold::Whole { .. });
        let is_off = self.parts.missing().len() == 3;
        // Whoever acts as users never has more of root than that takes: to fill, as one of them, what a disk or a quota keeps
        // for root is a right of root's that stays with a thread whatever user it acts on files as.
        if !is_off || !self.row.keeps.is_empty() {
            let root = match (self.unprivileged, self.row.keeps) {
                (true, _) if is_whole => UNTIL_DROP,
                (_, []) => ROOT_BY_CHOICE,
                (_, keeps) => keeps,
            };
            capabilities::keep_only(root, !is_off && self.starts_no_program())
                .map_err(|e| refused("give up capabilities", &e))?;
        }
        if !is_off && self.starts_no_program() {
            do_without(table::DENIED).map_err(|e| refused("limit resources", &e))?;
        }
        let Some(reach) = self.reach.as_ref().filter(|_| self.released.is_none()) else { return Ok(()) };
        let enforced = files::confine(reach).map_err(|e| refused("confine to files and ports", &e))?;
        let _ = self.enforced.set(enforced);
        Ok(())
    }

    /// The second step, once the process is who it will be.
    ///
    /// # Errors
    /// What the kernel refuses. The program must end then.
    pub fn finish(&self) -> Result<(), Fatal> {
        let Hold::Whole { calls, .. } = self.row.hold else { return Ok(()) };
        if self.unprivileged || self.released.is_none() {
            forbid_new_privileges()?;
        }
        if !self.parts.calls || self.released.is_some() {
            return Ok(());
        }
        let filtered = match calls::confine(calls) {
            Ok(()) => true,
            Err(error) if is_lacking(&error) => false,
            Err(error) => return Err(refused("confine to system calls", &error)),
        };
        let _ = self.filtered.set(filtered);
        Ok(())
    }

    /// Whether the files and names of another configuration are within what this process was confined to, so that it
    /// can go on with that one.
    #[must_use]
    pub fn admits(&self, snapshot: &Snapshot) -> bool {
        let Some(own) = self.reach.as_ref().filter(|_| self.enforced.get() != Some(&Enforced::Not)) else {
            return true;
        };
        let Ok((config, _)) = Config::from_snapshot(&self.directory, snapshot, &self.overrides) else {
            // It is told by whoever reads it.
            return true;
        };
        if Parts::new(&config) != self.parts {
            return false;
        }
        let other = reach_of(self.row, &Texts::new(self.row.program, &config), Parts::new(&config));
        let Some(other) = other else { return false };
        // Names of hosts are asked of the DNS, which these programs cannot do any more.
        let lists = [config.get(param::INET_INTERFACES), config.get(param::PROXY_INTERFACES)];
        let is_plain = |item: &String| {
            let address = item.trim_start_matches('[').trim_end_matches(']');
            ["all", "loopback-only"].contains(&address) || address.parse::<std::net::IpAddr>().is_ok()
        };
        lists.iter().flatten().all(is_plain) && includes(own, &other)
    }

    /// What `postroad status` says of it.
    #[must_use]
    pub fn state(&self) -> String {
        if let Hold::Capabilities(reason) = self.row.hold {
            return format!("sandbox: capabilities only, {reason}");
        }
        if let Some(table) = &self.released {
            return format!("sandbox: off, {table} has a token-command");
        }
        let mut without = self.parts.missing();
        if self.enforced.get() == Some(&Enforced::Not) {
            without.extend(["files", "ports"]);
        }
        if self.filtered.get() == Some(&false) {
            without.push("system calls");
        }
        without.dedup();
        match (without.len(), self.enforced.get()) {
            (0, Some(Enforced::Partly(version))) => format!("sandbox: in part, Landlock {version}"),
            (0, _) => "sandbox: full".to_owned(),
            _ => format!("sandbox: without {}", without.join(", ")),
        }
    }

    /// What the log is told at the start: that the operator left something out.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if !matches!(self.row.hold, Hold::Whole { .. }) {
            return None;
        }
        if let Some(table) = &self.released {
            return Some(format!(
                "{table} has a token-command: this process starts commands, so it is not confined to files, ports and \
                 system calls; tokens in files would do without"
            ));
        }
        let missing = self.parts.missing();
        let list = missing.join(", ");
        (!missing.is_empty())
            .then(|| format!("parameter sandbox: this process is not confined to its {list}"))
    }
}

fn reach_of(row: &Row, texts: &Texts<'_>, parts: Parts) -> Option<Reach> {
    let Hold::Whole { files, connects, .. } = row.hold else { return None };
    if !parts.files && !parts.ports {
        return None;
    }
    let whole = texts.reach(files, connects);
    Some(Reach {
        files: whole.files.filter(|_| parts.files),
        connect: whole.connect.filter(|_| parts.ports),
        bind: whole.bind,
    })
}

/// Whether all that `other` reaches is reached by `own` too.
fn includes(own: &Reach, other: &Reach) -> bool {
    let Some(files) = &own.files else { return true };
    let within = |(path, access): &(PathBuf, files::FileAccess)| {
        !path.exists() || files.iter().any(|(mine, may)| path.starts_with(mine) && may.includes(*access))
    };
    other.files.as_ref().is_some_and(|wanted| wanted.iter().all(within))
}

/// The kernel has no filters of system calls.
fn is_lacking(error: &std::io::Error) -> bool {
    [Errno::ENOSYS, Errno::EINVAL].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Rights are not gained any more.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn forbid_new_privileges() -> Result<(), Fatal> {
    sys::process::forbid_new_privileges().map_err(|e| refused("forbid new privileges", &e))
}

fn refused(what: &str, error: &std::io::Error) -> Fatal {
    Fatal::new(format!("sandbox: {what}: {error}; sandbox = no would do without"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_or_all_or_none() {
        let snapshot = Snapshot { main_cf: b"sandbox = files, calls\n".to_vec(), master_cf: Vec::new() };
        let (config, _) =
            Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        assert_eq!(Parts::new(&config).missing(), ["ports"]);
        assert_eq!(Parts::new(&config.with(param::SANDBOX, "no")).missing().len(), 3);
        assert_eq!(Parts::new(&config.with(param::SANDBOX, "yes")).missing().len(), 0);
    }
}
