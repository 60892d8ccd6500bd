//! The file of the table: read, locked, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use passwords::Table;
use smtp_proto::sasl::Secret;

use crate::Failure;

/// Of a table that is made: its owner writes it, the group that smtpd runs in reads it.
const MODE: u32 = 0o640;

/// Reads the table.
pub(crate) fn read(path: &Path) -> Result<Table, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file("open", path, &error))?;
    parse(path, &Secret::from(text))
}

fn parse(path: &Path, text: &Secret) -> Result<Table, Failure> {
    Table::parse(text.as_str().unwrap_or_default())
        .map_err(|error| Failure::data(format!("{}: {error}", path.display())))
}

/// The table, held so that no other command changes it.
pub(crate) struct Locked {
    pub(crate) table: Table,
    path: PathBuf,
    /// Of a table that is made.
    group: Option<u32>,
    /// A file of its own is locked: the table's is replaced.
    _lock: File,
}

impl Locked {
    /// Takes the table; one that is not there is empty.
    pub(crate) fn open(path: &Path, group: Option<u32>) -> Result<Self, Failure> {
        let lock_path = beside(path, "lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(|error| Failure::file("open", &lock_path, &error))?;
        lock.lock().map_err(|error| Failure::file("lock", &lock_path, &error))?;
        let table = match fs::read_to_string(path) {
            Ok(text) => parse(path, &Secret::from(text))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Table::default(),
            Err(error) => return Err(Failure::file("open", path, &error)),
        };
        Ok(Self { table, path: path.to_owned(), group, _lock: lock })
    }

    /// Puts what the table has become in the place of the file, with the owner and the mode that it had.
    pub(crate) fn replace(self) -> Result<(), Failure> {
        let temporary = beside(&self.path, "new");
        let failed = |error: std::io::Error| Failure::file("write", &temporary, &error);
        // One that a killed command left behind.
        if let Err(error) = fs::remove_file(&temporary)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&temporary).map_err(failed)?;
        let mode = match fs::metadata(&self.path) {
            Ok(before) => {
                fchown(&file, Some(before.uid()), Some(before.gid())).map_err(failed)?;
                before.mode() & 0o660
            }
            Err(_) => {
                fchown(&file, None, self.group).map_err(failed)?;
                MODE
            }
        };
        file.write_all(&self.table.to_text()).map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&temporary, &self.path).map_err(|error| Failure::file("replace", &self.path, &error))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Failure::file("sync", folder, &error))
    }
}

/// `.NAME.WORD` in the same folder.
fn beside(path: &Path, word: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{word}"))
}
