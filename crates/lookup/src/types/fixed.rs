//! Tables in memory with fixed keys: `inline:{…}`, `static:value`, `texthash:file`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use super::Request;
use crate::braces::{split_list, split_pair, unbrace};
use crate::fold::fold;
use crate::source::{Grammar, LogicalLines, excerpt, split_entry};
use crate::table::{LookupError, OpenError, Options, Table, Visitor};
use crate::warning::warn;
use crate::watch::Watched;

type Entries = HashMap<Box<str>, Box<str>>;

/// One value for every key.
struct Static {
    label: String,
    value: String,
}

/// `static:value` or `static:{ value with spaces }`.
pub(super) fn open_static(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    let value = if request.name.starts_with('{') {
        request.braced().ok_or_else(|| request.configuration_error("expected static:{ value }"))?
    } else {
        request.name
    };
    if value.is_empty() {
        return Err(request.configuration_error("the value is empty"));
    }
    Ok(Arc::new(Static { label: request.label.to_owned(), value: value.to_owned() }))
}

impl Table for Static {
    fn get(&self, _key: &str) -> Result<Option<String>, LookupError> {
        Ok(Some(self.value.clone()))
    }

    fn label(&self) -> &str {
        &self.label
    }
}

/// Keys and values in memory.
struct Fixed {
    label: String,
    options: Options,
    entries: Watched<Entries>,
}

/// `inline:{ key=value, { key = value with spaces } }`.
pub(super) fn open_inline(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    const EXPECTED: &str = "expected inline:{ key=value, { key = value with spaces } }";
    let list = request.braced().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| request.configuration_error(EXPECTED))?;
    let mut entries = Entries::new();
    for item in split_list(list).map_err(|error| request.configuration_error(error))? {
        let (key, value) = split_pair(unbrace(item).unwrap_or(item))
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .ok_or_else(|| request.configuration_error(format!("\"{item}\": {EXPECTED}")))?;
        entries.insert(folded(key, request.options), value.into());
    }
    Ok(Arc::new(Fixed {
        label: request.label.to_owned(),
        options: request.options,
        entries: Watched::fixed(entries),
    }))
}

/// `texthash:file`: the text that postmap reads, without postmap.
pub(super) fn open_texthash(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    let options = request.options;
    let path = PathBuf::from(request.name);
    let name = request.name.to_owned();
    let entries = Watched::open(path, move |file| read_text(file, &name, options), |_| true)?;
    Ok(Arc::new(Fixed { label: request.label.to_owned(), options, entries }))
}

fn read_text(file: &File, name: &str, options: Options) -> Result<Entries, OpenError> {
    let mut entries = Entries::new();
    let mut lines = LogicalLines::new(BufReader::with_capacity(1 << 16, file), name);
    let mut scratch = Vec::new();
    loop {
        let line = lines.next().map_err(|error| OpenError::io("read", name.as_ref(), &error))?;
        let Some(line) = line else { return Ok(entries) };
        let ignored = |why: &str| {
            warn(format_args!("{name}, line {}: {why} -- ignoring this line", line.number));
        };
        let (key, value) = match split_entry(Grammar::Map, line.text, &mut scratch) {
            Ok(entry) => entry,
            Err(why) => {
                ignored(&why);
                continue;
            }
        };
        let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else {
            ignored(&format!("non-UTF-8 input \"{}\"", excerpt(line.text)));
            continue;
        };
        match entries.entry(folded(key, options)) {
            Entry::Vacant(vacant) => {
                vacant.insert(value.into());
            }
            Entry::Occupied(first) => {
                let (number, key) = (line.number, first.key());
                warn(format_args!("{name}, line {number}: duplicate entry: \"{key}\""));
            }
        }
    }
}

fn folded(key: &str, options: Options) -> Box<str> {
    if options.fold { fold(key).into() } else { key.into() }
}

impl Table for Fixed {
    fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        let entries = self.entries.current().map_err(|error| LookupError::opening(&self.label, &error))?;
        let value = if self.options.fold { entries.get(&*fold(key)) } else { entries.get(key) };
        Ok(value.map(|value| value.to_string()))
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn visit_entries(&self, visit: &mut Visitor<'_>) -> Result<bool, LookupError> {
        let entries = self.entries.current().map_err(|error| LookupError::opening(&self.label, &error))?;
        for (key, value) in entries.iter() {
            if visit(key.as_bytes(), value.as_bytes()).is_break() {
                break;
            }
        }
        Ok(true)
    }
}
