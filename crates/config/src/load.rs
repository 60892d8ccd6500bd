//! Reading a configuration and judging it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::check;
use crate::config::{Config, Settings, Snapshot};
use crate::diagnostic::{Diagnostic, Remarks, Severity};
use crate::main_cf::{self, Setting};
use crate::master_cf::{self, Defaults};
use crate::parameter::param;
use crate::value::Value;

/// More than any configuration; a directory full of mail given by mistake is not read into memory.
const MAX_FILE: u64 = 4 << 20;

impl Config {
    /// Reads and checks `DIR/main.cf` and `DIR/master.cf`. Without a master.cf there are no services, which is all that
    /// commands need.
    ///
    /// # Errors
    /// The remarks, at least one of which is an [`Severity::Error`].
    pub fn load(directory: &Path) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::load_with(directory, &[])
    }

    /// As [`Config::load`], with settings (`-o` of a command line) that win over main.cf.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(
        directory: &Path,
        overrides: &[(String, String)],
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (snapshot, early) = Snapshot::read(directory)?;
        let (config, mut remarks) = Self::from_snapshot(directory, &snapshot, overrides)?;
        remarks.splice(0..0, early);
        Ok((config, remarks))
    }

    /// Checks what was read before. `overrides` (a service's own settings of master.cf, or a command line's) win over
    /// main.cf.
    ///
    /// # Errors
    /// The remarks, at least one of which is an [`Severity::Error`].
    pub fn from_snapshot(
        directory: &Path,
        snapshot: &Snapshot,
        overrides: &[(String, String)],
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (config, found) = Self::inspect(directory, snapshot, overrides);
        if found.iter().any(|remark| remark.severity == Severity::Error) {
            Err(found)
        } else {
            Ok((config, found))
        }
    }

    /// Reads a directory's configuration whatever is wrong with it, as [`Config::inspect`] does: for commands that must
    /// work while the files are broken (`postmap`).
    #[must_use]
    pub fn load_regardless(directory: &Path) -> Self {
        let defaults = || Self::inspect(directory, &Snapshot::default(), &[]).0;
        Self::load_readable(directory).unwrap_or_else(|_| defaults())
    }

    /// The same, where main.cf can be read: for commands that must not take another mail system for the one that they are
    /// about (`postroad stop`).
    ///
    /// # Errors
    /// What reading says, with main.cf's path.
    pub fn load_readable(directory: &Path) -> io::Result<Self> {
        let main = directory.join("main.cf");
        let main_cf = read_file(&main)
            .map_err(|e| io::Error::new(e.kind(), format!("read {}: {e}", main.display())))?;
        let master_cf = read_file(&directory.join("master.cf")).unwrap_or_default();
        Ok(Self::inspect(directory, &Snapshot { main_cf, master_cf }, &[]).0)
    }

    /// As [`Config::from_snapshot`], for who wants to look at a configuration whatever is wrong with it: what cannot be
    /// understood is left out, and a bad value reads as its default. No daemon may run on it.
    #[must_use]
    pub fn inspect(
        directory: &Path,
        snapshot: &Snapshot,
        overrides: &[(String, String)],
    ) -> (Self, Vec<Diagnostic>) {
        let mut found = Vec::new();
        let (main, master) = (directory.join("main.cf"), directory.join("master.cf"));
        let mut remarks = Remarks { file: main.clone(), list: &mut found };
        let source = text_of(&snapshot.main_cf, &mut remarks);
        let main_settings = settings_of(directory, &source, &mut remarks);
        check::trailing_comments(&source, &mut remarks);

        let mut remarks = Remarks { file: master.clone(), list: &mut found };
        let source = text_of(&snapshot.master_cf, &mut remarks);
        let services = master_cf::parse(&source, &defaults(&main_settings), &mut remarks);

        let own_names = check::all(&main_settings, &services, &main, &master, &mut found);
        // In the order in which the operator reads the files; main.cf comes before master.cf in the alphabet too.
        found.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
        let settings = if overrides.is_empty() {
            main_settings
        } else {
            let settings = main_settings.with(overrides, 0);
            check::overrides(&settings, overrides, &mut found);
            settings
        };
        (Self::new(settings, services, own_names), found)
    }

    /// As [`Config::inspect`], for a command that reads no other parameters than these, each of them once or so: what others
    /// are set to is not judged, which is most of what reading a configuration costs. A name that is none is: it may be a
    /// slip of the pen for one of these.
    #[must_use]
    pub fn inspect_for(directory: &Path, main_cf: &[u8], names: &[&str]) -> (Self, Vec<Diagnostic>) {
        let mut found = Vec::new();
        let main = directory.join("main.cf");
        let mut remarks = Remarks { file: main.clone(), list: &mut found };
        let settings = settings_of(directory, &text_of(main_cf, &mut remarks), &mut remarks);
        check::only(&settings, names, &main, &mut found);
        found.sort_by_key(|remark| remark.line);
        (Self::brief(settings), found)
    }
}

impl Snapshot {
    /// Reads the two files. A missing master.cf is remarked upon and empty.
    ///
    /// # Errors
    /// A main.cf that is missing, and either file where it cannot be read or is far too long.
    pub fn read(directory: &Path) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::read_with(directory, Severity::Warning)
    }

    /// The same, for a mail system that is to run: without a master.cf it would be one that does nothing.
    ///
    /// # Errors
    /// As [`Snapshot::read`], and a missing master.cf.
    pub fn read_to_run(directory: &Path) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::read_with(directory, Severity::Error)
    }

    fn read_with(
        directory: &Path,
        missing_master: Severity,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut found = Vec::new();
        let mut snapshot = Self::default();
        let main = directory.join("main.cf");
        match read_file(&main) {
            Ok(bytes) => snapshot.main_cf = bytes,
            Err(error) => {
                Remarks { file: main, list: &mut found }.error(0, format!("cannot be read: {error}"))
            }
        }
        let master = directory.join("master.cf");
        let result = read_file(&master);
        let mut remarks = Remarks { file: master, list: &mut found };
        match result {
            Ok(bytes) => snapshot.master_cf = bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = "does not exist: there are no services".to_owned();
                remarks.list.push(Diagnostic { severity: missing_master, file: remarks.file, line: 0, text });
            }
            Err(error) => remarks.error(0, format!("cannot be read: {error}")),
        }
        if found.iter().any(|remark| remark.severity == Severity::Error) {
            Err(found)
        } else {
            Ok((snapshot, found))
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // With room for all of it, it is one read and one that finds the end.
    let length = file.metadata()?.len().min(MAX_FILE);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// Bytes that are not UTF-8 are replaced, and told.
fn text_of<'a>(bytes: &'a [u8], remarks: &mut Remarks<'_>) -> Cow<'a, str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => {
            let lines = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let line = u32::try_from(lines + 1).unwrap_or(u32::MAX);
            remarks.warning(line, "is not UTF-8; save the file in UTF-8");
            String::from_utf8_lossy(bytes)
        }
    };
    // Some editors put it there; it would become part of the first name.
    if let Some(rest) = text.strip_prefix('\u{feff}') {
        remarks.warning(1, "begins with a byte order mark, which is ignored; save the file without");
        return rest.to_owned().into();
    }
    text
}

fn settings_of(directory: &Path, main_cf: &str, remarks: &mut Remarks<'_>) -> Settings {
    let parsed = main_cf::parse(main_cf, remarks);
    Settings::new(directory, last_definitions(parsed, remarks))
}

fn last_definitions(settings: Vec<Setting>, remarks: &mut Remarks<'_>) -> HashMap<String, Setting> {
    let mut set: HashMap<String, Setting> = HashMap::with_capacity(settings.len());
    for setting in settings {
        if let Some(first) = set.get(&setting.name) {
            remarks.warning(
                setting.line,
                format!("{} is set already in line {}; this one counts", setting.name, first.line),
            );
        }
        set.insert(setting.name.clone(), setting);
    }
    set
}

fn defaults(settings: &Settings) -> Defaults {
    let row = param::DEFAULT_PROCESS_LIMIT.row();
    let limit = settings.value_of(&row).ok().and_then(|text| u32::parse(&text, &row).ok());
    Defaults { process_limit: limit.unwrap_or(100) }
}
