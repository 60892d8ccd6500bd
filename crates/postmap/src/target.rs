//! A table as the command line names it.

use std::path::PathBuf;
use std::sync::Arc;

use lookup::{OpenError, Table};

use crate::options::Options;
use crate::{Failure, Settings};

pub(crate) struct Target {
    /// The type, `hash`.
    pub(crate) kind: String,
    /// What follows the type: for most, the name of a file.
    pub(crate) name: String,
}

impl Target {
    /// `type:name`, or a name alone for the default type.
    pub(crate) fn parse(text: &str, settings: &Settings) -> Result<Self, Failure> {
        let (kind, name) = text.split_once(':').unwrap_or((&settings.default_type, text));
        if kind.is_empty() || name.is_empty() {
            return Err(Failure::new(format!(
                "\"{text}\": expected type:file, such as hash:/etc/postroad/virtual"
            )));
        }
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }

    pub(crate) fn label(&self) -> String {
        format!("{}:{}", self.kind, self.name)
    }

    /// The file of the index that this table has.
    pub(crate) fn index(&self) -> Result<PathBuf, Failure> {
        lookup::index_file(&self.kind, &self.name).ok_or_else(|| {
            let kind = &self.kind;
            Failure::new(if lookup::types().contains(&kind.as_str()) {
                format!("type {kind} has no index to make or change: it is read as it is (hash, btree and cdb have one)")
            } else {
                format!("there is no table type \"{kind}\" with an index (there are hash, btree and cdb; see postconf -m)")
            })
        })
    }

    /// Opens the table for queries.
    pub(crate) fn open(&self, options: &Options) -> Result<Arc<dyn Table>, Failure> {
        let open = lookup::Options { fold: options.fold, ..lookup::Options::default() };
        lookup::open_with(&self.label(), open).map_err(|error: OpenError| Failure::new(error))
    }
}
