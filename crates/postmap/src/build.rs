//! Making and changing indexes.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipc::log;
use lookup::cdb::{Builder, Cdb};
use lookup::source::{Grammar, Line, LogicalLines, split_entry};
use nix::unistd::{Gid, Uid};
use sys::credentials::AsUser;

use crate::Failure;
use crate::options::{Duplicates, Keys, Options};
use crate::replace::Replacement;
use crate::target::Target;

/// The mode of an index whose source has none to take over.
const DEFAULT_MODE: u32 = 0o644;

/// How much of a text is read at a time.
const BUFFER: usize = 256 * 1024;

/// Makes the index of each table anew from its text.
pub(crate) fn build(targets: &[Target], options: &Options) -> Result<(), Failure> {
    for target in targets {
        let index = target.index()?;
        let source = Path::new(&target.name);
        let file = File::open(source).map_err(|error| Failure::io("open", source, &error))?;
        let metadata = file.metadata().map_err(|error| Failure::io("stat", source, &error))?;
        let _owner = as_owner(&metadata, &index, options)?;
        let replacement = Replacement::begin(&index)?;
        let mut builder = Builder::new(options.nul.unwrap_or(false));
        read_entries(&mut builder, BufReader::with_capacity(BUFFER, file), &target.name, options)?;
        let mode = if options.inherit_mode { metadata.mode() & DEFAULT_MODE | 0o600 } else { DEFAULT_MODE };
        finish(builder, replacement, &target.name, mode, options)?;
    }
    Ok(())
}

/// Adds the entries of standard input to each table.
pub(crate) fn add(targets: &[Target], options: &Options) -> Result<(), Failure> {
    let [target] = targets else {
        return Err(Failure::new("specify one table with -i: standard input can be read only once"));
    };
    let index = target.index()?;
    let (_owner, mode) = owner_of_index(target, &index, options)?;
    let replacement = Replacement::begin(&index)?;
    let old = open_old(&replacement, target)?;
    let nul = options.nul.unwrap_or_else(|| old.as_ref().is_some_and(Cdb::has_nul));
    let mut builder = Builder::new(nul);
    for record in old.iter().flat_map(Cdb::records) {
        let (key, value) = record.map_err(|damage| damaged(&index, target, &damage))?;
        builder.add(key, value, 0).map_err(|_| too_large(&index))?;
    }
    read_entries(&mut builder, std::io::stdin().lock(), "standard input", options)?;
    finish(builder, replacement, "standard input", mode, options)
}

/// Deletes keys from each table. Returns whether one of them was there.
pub(crate) fn delete(targets: &[Target], keys: &Keys, options: &Options) -> Result<bool, Failure> {
    let keys = folded_keys(keys, options)?;
    let mut found = false;
    for target in targets {
        let index = target.index()?;
        let (_owner, mode) = owner_of_index(target, &index, options)?;
        let replacement = Replacement::begin(&index)?;
        let Some(old) = open_old(&replacement, target)? else {
            replacement.abandon();
            return Err(Failure::new(format!("open {}: No such file or directory", index.display())));
        };
        let mut builder = Builder::new(old.has_nul());
        let mut deleted = false;
        for record in old.records() {
            let (key, value) = record.map_err(|damage| damaged(&index, target, &damage))?;
            if keys.contains(key) {
                deleted = true;
            } else {
                builder.add(key, value, 0).map_err(|_| too_large(&index))?;
            }
        }
        if deleted {
            finish(builder, replacement, &target.name, mode, options)?;
        } else {
            replacement.abandon();
        }
        found |= deleted;
    }
    Ok(found)
}

fn folded_keys(keys: &Keys, options: &Options) -> Result<HashSet<Vec<u8>>, Failure> {
    let fold = |key: &[u8]| match std::str::from_utf8(key) {
        Ok(key) if options.fold => lookup::fold(key).as_bytes().to_vec(),
        Err(_) if !options.any_bytes => Vec::new(),
        _ => key.to_vec(),
    };
    match keys {
        Keys::One(key) => Ok(HashSet::from([fold(key.as_bytes())])),
        Keys::StandardInput => std::io::stdin()
            .lock()
            .split(b'\n')
            .map(|line| line.map(|line| fold(&line)))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::io("read", Path::new("standard input"), &error)),
    }
}

/// Adds every good entry of a text; warns about the others.
fn read_entries(
    builder: &mut Builder,
    reader: impl BufRead,
    name: &str,
    options: &Options,
) -> Result<(), Failure> {
    let mut lines = LogicalLines::new(reader, name);
    let mut scratch = Vec::new();
    while let Some(line) = lines.next().map_err(|error| Failure::io("read", Path::new(name), &error))? {
        let result = add_entry(builder, name, line, &mut scratch, options);
        match result {
            Ok(()) => {}
            Err(Rejected::Entry(why)) => {
                log::warning!("{name}, line {}: {why} -- ignoring this line", line.number)
            }
            Err(Rejected::Rest) => return Err(too_large(Path::new(name))),
        }
    }
    Ok(())
}

enum Rejected {
    /// This entry, for a reason.
    Entry(String),
    /// This and all others: there is no more room.
    Rest,
}

fn add_entry(
    builder: &mut Builder,
    name: &str,
    line: Line<'_>,
    scratch: &mut Vec<u8>,
    options: &Options,
) -> Result<(), Rejected> {
    let reject = |why: &str| Err(Rejected::Entry(why.to_owned()));
    let (key, value) = split_entry(options.grammar, line.text, scratch).map_err(Rejected::Entry)?;
    if line.text.contains(&0) {
        return reject("a NUL character");
    }
    let utf8 = std::str::from_utf8(key).ok();
    if !options.any_bytes && (utf8.is_none() || std::str::from_utf8(value).is_err()) {
        return reject("not UTF-8; -u takes it as it is");
    }
    match options.grammar {
        // An alias belongs to this host, whatever its names are.
        Grammar::Alias if key.contains(&b'@') => {
            return reject("the name of an alias has no @domain");
        }
        Grammar::Map if key.ends_with(b":") => {
            let number = line.number;
            log::warning!(
                "{name}, line {number}: the key ends with a colon; is this an alias file, for postalias?"
            );
        }
        _ => {}
    }
    let number = u32::try_from(line.number).unwrap_or(u32::MAX);
    let folded = utf8.filter(|_| options.fold).map(lookup::fold);
    let key = folded.as_ref().map_or(key, |key| key.as_bytes());
    let added = if options.file_values {
        builder.add(key, contents(value).map_err(Rejected::Entry)?.as_bytes(), number)
    } else {
        builder.add(key, value, number)
    };
    added.map_err(|_| Rejected::Rest)
}

/// The contents of the files that are named in `value`, one after the other with an end of line between them, in base64.
fn contents(value: &[u8]) -> Result<String, String> {
    let names = String::from_utf8_lossy(value);
    let mut text = Vec::new();
    let mut count = 0;
    for name in names.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|name| !name.is_empty()) {
        if count > 0 {
            text.push(b'\n');
        }
        count += 1;
        let content = std::fs::read(name).map_err(|error| format!("open {name}: {error}"))?;
        text.extend_from_slice(&content);
    }
    if count == 0 { Err("no file is named".to_owned()) } else { Ok(STANDARD.encode(text)) }
}

/// Lays the index out, warns about keys that occur twice, and puts it into place.
fn finish(
    builder: Builder,
    replacement: Replacement,
    name: &str,
    mode: u32,
    options: &Options,
) -> Result<(), Failure> {
    let (bytes, dropped) =
        builder.finish(options.duplicates.keep()).map_err(|_| too_large(Path::new(name)))?;
    if options.duplicates == Duplicates::Warn {
        for dropped in dropped {
            let key = String::from_utf8_lossy(&dropped.key);
            log::warning!("{name}, line {}: duplicate entry: \"{key}\"", dropped.line);
        }
    }
    replacement.commit(&bytes, mode)?;
    if options.verbose {
        log::info!("{name}: {} bytes written", bytes.len());
    }
    Ok(())
}

fn open_old(replacement: &Replacement, target: &Target) -> Result<Option<Cdb>, Failure> {
    let Some(file) = replacement.old()? else { return Ok(None) };
    let index = target.index()?;
    let opened = Cdb::open(&file).map_err(|error| Failure::io("read", &index, &error))?;
    opened.map(Some).map_err(|damage| damaged(&index, target, &damage))
}

fn damaged(index: &Path, target: &Target, damage: &lookup::cdb::Damage) -> Failure {
    Failure::new(format!("{} {damage}: make it anew from {}", index.display(), target.name))
}

fn too_large(path: &Path) -> Failure {
    Failure::new(format!("{}: an index cannot be larger than 4 GiB", path.display()))
}

/// Acts as whoever owns the source (or, without one, the index), and says which mode a new index is to have.
fn owner_of_index(
    target: &Target,
    index: &Path,
    options: &Options,
) -> Result<(Option<AsUser>, u32), Failure> {
    match std::fs::metadata(&target.name).or_else(|_| std::fs::metadata(index)) {
        Ok(metadata) => {
            let mode =
                if options.inherit_mode { metadata.mode() & DEFAULT_MODE | 0o600 } else { DEFAULT_MODE };
            Ok((as_owner(&metadata, index, options)?, mode))
        }
        Err(_) => Ok((None, DEFAULT_MODE)),
    }
}

/// When root makes the index of another user's file, that user's rights must do: the folder may be theirs, and full of
/// surprises. In a folder that only root changes there are none, and the user's rights would not do; but the files that
/// the user's text names are always opened with the user's rights.
fn as_owner(
    metadata: &std::fs::Metadata,
    index: &Path,
    options: &Options,
) -> Result<Option<AsUser>, Failure> {
    let own = !Uid::effective().is_root() || metadata.uid() == 0;
    if options.keep_root || own || (!options.file_values && only_root_changes_folder_of(index)) {
        return Ok(None);
    }
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    AsUser::become_user(uid, gid, &[])
        .map(Some)
        .map_err(|error| Failure::new(format!("act as user {uid}, who owns the source: {error}")))
}

fn only_root_changes_folder_of(index: &Path) -> bool {
    // A symbolic link leads to another folder, which would have to be looked at all the way up.
    let link = std::fs::symlink_metadata(index).is_ok_and(|metadata| metadata.is_symlink());
    let folder = index.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    !link && std::fs::metadata(folder).is_ok_and(|folder| folder.uid() == 0 && folder.mode() & 0o022 == 0)
}
