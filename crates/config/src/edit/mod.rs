//! Editing of main.cf and master.cf that keeps comments and layout.
//!
//! [`MainCf`] and [`MasterCf`] hold the physical lines of a file and change only those of the definition in question.
//! [`file()`] replaces the file in one step: whoever reads it sees the former content or the new one.

mod main_cf;
mod master_cf;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

pub use main_cf::MainCf;
pub use master_cf::{Field, MasterCf, ServiceLine};

/// Why a file was not edited.
#[derive(Debug)]
pub enum EditError {
    /// The request makes no sense; the file is as it was.
    Request(String),
    /// An operation on the file failed; the file is as it was.
    Io(String, io::Error),
}

impl std::fmt::Display for EditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request(what) => f.write_str(what),
            Self::Io(operation, cause) => write!(f, "{operation}: {cause}"),
        }
    }
}

impl std::error::Error for EditError {}

/// Replaces the content of `path` by what `change` makes of it. Mode and owner stay; a symbolic link stays one; two
/// editors at the same time take turns.
///
/// # Errors
/// What `change` objects to, and whatever keeps the file from being read or written.
pub fn file(path: &Path, change: impl FnOnce(&str) -> Result<String, EditError>) -> Result<(), EditError> {
    let io = |operation: &str, path: &Path| {
        let operation = format!("{operation} {}", path.display());
        move |cause| EditError::Io(operation, cause)
    };
    let path = fs::canonicalize(path).map_err(io("open", path))?;
    let mut old = lock(&path).map_err(io("lock", &path))?;
    let mut text = String::new();
    old.read_to_string(&mut text).map_err(io("read", &path))?;
    let new = change(&text)?;
    if new == text {
        return Ok(());
    }
    let draft = draft_path(&path);
    let written = write_draft(&draft, &new, &old).and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        // The draft is of no use to anybody, and its removal no help if it fails.
        let _ = fs::remove_file(&draft);
    }
    written.map_err(io("write", &path))?;
    // The name is durable only with its directory; the edit itself has succeeded.
    if let Some(directory) = path.parent() {
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(())
}

/// Opens and locks what `path` names: another editor may have put a new file there while we waited.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = File::open(path)?;
        file.lock()?;
        let (ours, there) = (file.metadata()?, fs::metadata(path)?);
        if ours.ino() == there.ino() && ours.dev() == there.dev() {
            return Ok(file);
        }
    }
}

fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

fn write_draft(draft: &Path, text: &str, like: &File) -> io::Result<()> {
    // The lock is ours, so that a draft that lies there is what a crash left.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let metadata = like.metadata()?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(draft)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
