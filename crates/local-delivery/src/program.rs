//! Whether a program that master.cf names is there: said by `postroad check`, before something waits for it.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::command::DEFAULT_PATH;
use crate::failure::describe;

/// Where the program of a service is looked for when it is run.
pub(crate) struct Place<'a> {
    /// It sees this folder as the root of all.
    pub(crate) chroot: Option<&'a Path>,
    /// The folder it runs in.
    pub(crate) directory: &'a Path,
    /// Its environment, where that may name a `PATH`.
    pub(crate) environment: &'a [(String, String)],
}

impl Place<'_> {
    /// Why `argv=program` cannot be run, and what helps; it may come later, so this is no error.
    pub(crate) fn trouble_with(&self, program: &str) -> Option<String> {
        if program.contains('/') {
            let what = fault_of(&self.look_at(program))?;
            return Some(format!("argv={program}: {what}"));
        }
        let set = self.environment.iter().rev().find(|(name, _)| name == "PATH");
        let path = set.map_or(DEFAULT_PATH, |(_, value)| value);
        let mut found = path.split(':').map(|folder| self.look_at(&format!("{folder}/{program}")));
        if found.any(|found| fault_of(&found).is_none()) {
            return None;
        }
        Some(format!(
            "argv={program}: there is no such program in {path}; install it, or write its whole path"
        ))
    }

    fn look_at(&self, program: &str) -> io::Result<Metadata> {
        let path = self.directory.join(program);
        match self.chroot {
            // A link in there leads elsewhere than it does out here.
            Some(root) => std::fs::symlink_metadata(inside(root, &path)),
            None => std::fs::metadata(path),
        }
    }
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn fault_of(found: &io::Result<Metadata>) -> Option<String> {
    match found {
        Ok(found) if found.is_symlink() => None,
        Ok(found) if !found.is_file() => Some("this is no file; name a program".to_owned()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some("nobody may execute it; give it the mode of a program, as chmod a+x does".to_owned())
        }
        Ok(_) => None,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Some("there is no such program; install it, or write its right path".to_owned())
        }
        // Who runs it may see more than who looks.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => Some(format!("look at it: {}", describe(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_is_looked_for_where_it_will_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("jail/bin")).unwrap();
        for (path, mode) in [("tool", 0o755), ("text", 0o644), ("jail/bin/inner", 0o711)] {
            fs::write(root.join(path), "").unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/only/in/there", root.join("jail/bin/link")).unwrap();
        let own = [("PATH".to_owned(), root.display().to_string())];
        let jail = root.join("jail");
        let told = |program: &str, chroot: Option<&Path>, environment: &[(String, String)]| {
            let directory = if chroot.is_some() { Path::new("/") } else { root };
            Place { chroot, directory, environment }.trouble_with(program).unwrap_or_default()
        };
        let absolute = |name: &str| root.join(name).display().to_string();
        for (program, wanted) in [
            (absolute("tool"), ""),
            ("./tool".to_owned(), ""),
            ("sh".to_owned(), ""),
            (absolute("none"), "there is no such program; install it"),
            (absolute("tool/none"), "there is no such program; install it"),
            (absolute("text"), "nobody may execute it; "),
            (absolute("jail"), "this is no file; "),
            ("tool".to_owned(), "argv=tool: there is no such program in /usr/bin:/bin; "),
        ] {
            let text = told(&program, None, &[]);
            assert!(text.contains(wanted) && text.is_empty() == wanted.is_empty(), "{program}: {text}");
        }
        assert_eq!(told("tool", None, &own), "");
        assert!(told("text", None, &own).starts_with("argv=text: there is no such program in /"));
        for program in ["/bin/inner", "bin/inner", "inner", "link"] {
            assert_eq!(told(program, Some(&jail), &[]), "", "{program}");
        }
        assert_ne!(told("/bin/sh", Some(&jail), &[]), "");
    }
}
