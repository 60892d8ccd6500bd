//! `hash:`, `btree:` and `cdb:`: tables that postmap has indexed. All three are one format here ([`crate::cdb`]); the types
//! differ in the name of the file, so that configurations written for Postfix find their tables where they expect them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Request;
use crate::cdb::{Cdb, Damage};
use crate::fold::fold;
use crate::table::{LookupError, OpenError, Options, Table, Visitor, cause};
use crate::warning::warn;
use crate::watch::Watched;

/// The file in which a table of this type keeps its index: `FILE.db` for hash and btree, `FILE.cdb` for cdb, and `None`
/// for a type that has no index.
#[must_use]
pub fn index_file(kind: &str, name: &str) -> Option<PathBuf> {
    let ending = match kind {
        "hash" | "btree" => "db",
        "cdb" => "cdb",
        _ => return None,
    };
    Some(PathBuf::from(format!("{name}.{ending}")))
}

struct Indexed {
    label: String,
    options: Options,
    index: Watched<Cdb>,
}

pub(super) fn open(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    let path = index_file(request.kind, request.name)
        .ok_or_else(|| request.configuration_error("it has no index file"))?;
    let source = PathBuf::from(request.name);
    let remedy = remedy(request);
    if let Err(error) = std::fs::metadata(&path) {
        let text = format!("open {}: {} (run `{remedy}`)", path.display(), cause(&error));
        return Err(OpenError::Unavailable(text));
    }
    let warned = AtomicBool::new(false);
    let shown = path.clone();
    let load = move |file: &File| {
        warn_if_older_than(&source, file, &shown, &remedy, &warned);
        load(file, &shown, &remedy)
    };
    // A mapped file that was overwritten in place may have shrunk under the map.
    let index = Watched::open(path, load, |index| !index.is_mapped())?;
    Ok(Arc::new(Indexed { label: request.label.to_owned(), options: request.options, index }))
}

/// The command that makes the index. Files of aliases have a grammar and a program of their own.
fn remedy(request: &Request<'_>) -> String {
    let file = Path::new(request.name).file_name().unwrap_or_default().to_string_lossy();
    let program = if file.contains("alias") && !file.contains("virtual") { "postalias" } else { "postmap" };
    format!("{program} {}:{}", request.kind, request.name)
}

fn load(file: &File, path: &Path, remedy: &str) -> Result<Cdb, OpenError> {
    Cdb::open(file)
        .map_err(|error| OpenError::io("read", path, &error))?
        .map_err(|damage| OpenError::Unavailable(format!("{} {damage}: run `{remedy}`", path.display())))
}

/// An edited text without a new index is a mistake that everybody makes: said once for each open table.
fn warn_if_older_than(source: &Path, index: &File, path: &Path, remedy: &str, warned: &AtomicBool) {
    let modified = |metadata: std::io::Result<std::fs::Metadata>| metadata.and_then(|m| m.modified()).ok();
    let (Some(text), Some(index)) = (modified(std::fs::metadata(source)), modified(index.metadata())) else {
        return;
    };
    if text > index && !warned.swap(true, Ordering::Relaxed) {
        let (path, source) = (path.display(), source.display());
        warn(format_args!("{path} is older than its source {source}: run `{remedy}`"));
    }
}

impl Indexed {
    fn damage(&self, damage: Damage) -> LookupError {
        LookupError::new(&self.label, format!("its index {damage}: make it anew with postmap"))
    }

    fn current(&self) -> Result<Arc<Cdb>, LookupError> {
        self.index.current().map_err(|error| LookupError::opening(&self.label, &error))
    }
}

impl Table for Indexed {
    fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        let index = self.current()?;
        let found =
            if self.options.fold { index.get(fold(key).as_bytes()) } else { index.get(key.as_bytes()) };
        let Some(value) = found.map_err(|damage| self.damage(damage))? else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok("") => Err(LookupError::new(&self.label, format!("the value of \"{key}\" is empty"))),
            Ok(value) => Ok(Some(value.to_owned())),
            Err(_) => Err(LookupError::new(&self.label, format!("the value of \"{key}\" is not UTF-8"))),
        }
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn visit_entries(&self, visit: &mut Visitor<'_>) -> Result<bool, LookupError> {
        for record in self.current()?.records() {
            let (key, value) = record.map_err(|damage| self.damage(damage))?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(true)
    }
}
