//! How files get into the target folder: whole, with mode and owner, and never over what somebody else wrote.
//!
//! Import remembers what it wrote in `import.record`, a line `CHECKSUM LENGTH NAME` for each file. A file that it did not
//! write is kept as `NAME.before-import`. One that it wrote and that was changed since is refused.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

const RECORD: &str = "import.record";

/// A file that is to be in the target folder.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Where, below the target folder.
    pub(super) name: PathBuf,
    pub(super) content: Vec<u8>,
    /// Whose mode and owner it gets.
    pub(super) like: Metadata,
}

/// What is to happen to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is there and right.
    Nothing,
    /// It is not there, or is what an earlier import wrote.
    Write,
    /// Somebody else's file is there.
    WriteAfterBackup,
    /// An earlier import wrote it, and it was changed since.
    Refuse,
}

/// The target folder and what earlier imports wrote there.
#[derive(Debug)]
pub(super) struct Target {
    folder: PathBuf,
    written: BTreeMap<String, String>,
}

impl Target {
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let path = folder.join(RECORD);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("read {}: {error}", path.display())),
        };
        let entry = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let mark = format!("{} {}", words.next()?, words.next()?);
            Some((words.next()?.to_owned(), mark))
        };
        Ok(Self { folder: folder.to_owned(), written: text.lines().filter_map(entry).collect() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn step(&self, file: &Wanted, force: bool) -> Result<Step, String> {
        let path = self.folder.join(&file.name);
        let there = match fs::read(&path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Step::Write),
            Err(error) => return Err(format!("read {}: {error}", path.display())),
        };
        let wrote = self.written.get(&key(&file.name));
        Ok(if there == file.content {
            Step::Nothing
        } else if wrote.is_some_and(|mark| *mark == mark_of(&there)) {
            Step::Write
        } else if wrote.is_some() && !force {
            Step::Refuse
        } else {
            Step::WriteAfterBackup
        })
    }

    /// Puts a file into place and remembers it. Gives the name of the backup, where one was made.
    pub(super) fn put(&mut self, file: &Wanted, step: Step) -> Result<Option<PathBuf>, String> {
        let path = self.folder.join(&file.name);
        let failed = |operation: &str, path: &Path| {
            let operation = format!("{operation} {}", path.display());
            move |error: io::Error| format!("{operation}: {error}")
        };
        let mut backup = None;
        if step == Step::WriteAfterBackup {
            let name = free_name(&path);
            // A second name for what is there: whatever happens next, it is kept.
            fs::hard_link(&path, &name).map_err(failed("keep", &path))?;
            backup = Some(name);
        }
        if step != Step::Nothing {
            write(&path, &file.content, &file.like).map_err(failed("write", &path))?;
        }
        self.written.insert(key(&file.name), mark_of(&file.content));
        Ok(backup)
    }

    /// Makes the folders that a file needs, like those that they are copies of.
    pub(super) fn make_folders(&self, name: &Path, source: &Path) -> Result<(), String> {
        let parents: Vec<&Path> = name.ancestors().skip(1).filter(|path| *path != Path::new("")).collect();
        for folder in parents.into_iter().rev() {
            let (path, like) = (self.folder.join(folder), source.join(folder));
            if path.is_dir() {
                continue;
            }
            let made =
                fs::create_dir(&path).and_then(|()| take_after(&File::open(&path)?, &fs::metadata(&like)?));
            made.map_err(|error| format!("make {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the record, if it says something else than it did.
    pub(super) fn remember(&self) -> Result<(), String> {
        let path = self.folder.join(RECORD);
        let lines = self.written.iter().map(|(name, mark)| format!("{mark} {name}\n"));
        let text: String = lines.collect();
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let like =
            fs::metadata(&self.folder).map_err(|error| format!("stat {}: {error}", self.folder.display()))?;
        let result = replace(&path, text.as_bytes(), |file| {
            fchown(file, Some(like.uid()), Some(like.gid()))?;
            file.set_permissions(Permissions::from_mode(0o644))
        });
        result.map_err(|error| format!("write {}: {error}", path.display()))
    }
}

fn key(name: &Path) -> String {
    name.to_string_lossy().into_owned()
}

fn mark_of(content: &[u8]) -> String {
    format!("{:08x} {}", crc32fast::hash(content), content.len())
}

/// The first of `FILE.before-import`, `FILE.before-import.2` … that is not there.
fn free_name(path: &Path) -> PathBuf {
    let first = super::paths::with_ending(path, "before-import");
    let others = (2_u32..).map(|number| super::paths::with_ending(&first, &number.to_string()));
    let mut names = std::iter::once(first.clone()).chain(others);
    names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or(first)
}

fn write(path: &Path, content: &[u8], like: &Metadata) -> io::Result<()> {
    replace(path, content, |file| take_after(file, like))
}

fn take_after(file: &File, like: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if nix::unistd::Uid::effective().is_root() && (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))
}

/// Whoever reads the file sees the former content or the new one, also after a crash.
fn replace(path: &Path, content: &[u8], dress: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let draft = super::paths::with_ending(path, "import-tmp");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file
        .write_all(content)
        .and_then(|()| dress(&file))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft is of no use to anybody, and its removal no help if it fails.
        let _ = fs::remove_file(&draft);
    }
    written?;
    sys::fs::sync_directory(path.parent().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(folder: &Path, content: &str) -> Wanted {
        Wanted { name: "main.cf".into(), content: content.into(), like: fs::metadata(folder).unwrap() }
    }

    #[test]
    fn a_file_of_somebody_else_is_kept_and_a_changed_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, path) = (folder.path(), folder.path().join("main.cf"));
        fs::write(&path, "theirs").unwrap();
        let mut target = Target::open(folder).unwrap();
        let file = wanted(folder, "first");
        assert_eq!(target.step(&file, false), Ok(Step::WriteAfterBackup));
        target.put(&file, Step::WriteAfterBackup).unwrap();
        target.remember().unwrap();
        assert_eq!(fs::read(folder.join("main.cf.before-import")).unwrap(), b"theirs");

        let mut target = Target::open(folder).unwrap();
        assert_eq!(target.step(&file, false), Ok(Step::Nothing));
        let file = wanted(folder, "second");
        assert_eq!(target.step(&file, false), Ok(Step::Write));
        assert_eq!(target.put(&file, Step::Write), Ok(None));
        fs::write(&path, "edited").unwrap();
        assert_eq!(target.step(&wanted(folder, "third"), false), Ok(Step::Refuse));
        assert_eq!(target.step(&wanted(folder, "edited"), false), Ok(Step::Nothing));
        assert_eq!(target.step(&wanted(folder, "third"), true), Ok(Step::WriteAfterBackup));
        let backup = target.put(&wanted(folder, "third"), Step::WriteAfterBackup).unwrap();
        assert_eq!(backup, Some(folder.join("main.cf.before-import.2")));
    }
}
