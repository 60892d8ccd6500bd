//! Files that decide what root does, and that somebody else may change: what Postfix's check looks for.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use config::{Config, Diagnostic, Presence, Severity, param};
use nix::unistd::Uid;

/// Who else than root could have root's master do what he likes; where this process is not root's, nothing.
pub(crate) fn problems(config: &Config) -> Vec<Diagnostic> {
    if !Uid::effective().is_root() {
        return Vec::new();
    }
    let directory = config.directory();
    let daemons: PathBuf = config.get(param::DAEMON_DIRECTORY);
    let services = config.services().iter().filter(|entry| entry.presence == Presence::Program);
    let mut programs: Vec<PathBuf> = services.map(|entry| daemons.join(&entry.command)).collect();
    programs.sort_unstable();
    programs.dedup();
    let files = [directory.to_owned(), directory.join("main.cf"), directory.join("master.cf"), daemons];
    files.into_iter().chain(programs).filter_map(|file| problem(file, Uid::from_raw(0))).collect()
}

fn problem(file: PathBuf, owner: Uid) -> Option<Diagnostic> {
    let text = fault(&file, owner)?;
    Some(Diagnostic { severity: Severity::Warning, file, line: 0, text })
}

/// What cannot be looked at is missed by who reads it.
fn fault(file: &Path, owner: Uid) -> Option<String> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let found = std::fs::metadata(file).ok()?;
    if found.uid() != owner.as_raw() {
        return Some(format!(
            "belongs to user ID {}, who could have root do anything by it: chown root {}",
            found.uid(),
            file.display()
        ));
    }
    // In a folder such as /tmp, nobody removes what is another's.
    let is_guarded = found.is_dir() && found.mode() & STICKY != 0;
    (found.mode() & OTHERS_MAY_WRITE != 0 && !is_guarded).then(|| {
        format!(
            "others than its owner may change it (mode {:o}), and have root do anything by it: chmod go-w {}",
            found.mode() & 0o7777,
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_others_may_change_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("main.cf");
        std::fs::write(&file, "").unwrap();
        let told = |mode: u32, owner: Uid| {
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            fault(&file, owner)
        };
        let own = Uid::effective();
        assert_eq!((told(0o644, own), told(0o600, own)), (None, None));
        let text = told(0o664, own).unwrap();
        assert!(text.contains("(mode 664)") && text.contains("chmod go-w "), "{text}");
        assert!(told(0o646, own).is_some());
        let other = Uid::from_raw(own.as_raw() + 1);
        assert!(told(0o644, other).unwrap().contains("chown root "));
        set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(fault(folder.path(), own), None);
        assert_eq!(fault(&folder.path().join("none"), own), None);
    }
}
