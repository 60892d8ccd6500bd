//! What a lookup table is, and what can go wrong with one.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Is shown the entries of a table, and may break off.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A lookup table, open for queries from any thread.
pub trait Table: Send + Sync {
    /// The value stored under `key`, or `None`. A value is never empty.
    ///
    /// # Errors
    /// The table could not be asked: that is a temporary condition, never the same as "not there".
    fn get(&self, key: &str) -> Result<Option<String>, LookupError>;

    /// The table's name as the operator wrote it, `hash:/etc/postroad/virtual`.
    fn label(&self) -> &str;

    /// Whether the table matches keys by pattern (regexp, cidr). Such a table is asked with a whole address or name
    /// only, never with its parts, because a pattern written for whole addresses would match parts by accident.
    fn is_pattern(&self) -> bool {
        false
    }

    /// Shows every entry to `visit`, in the table's own order, until it breaks off. Returns `false` where the type has
    /// no list of entries.
    ///
    /// # Errors
    /// The table could not be read to its end.
    fn visit_entries(&self, visit: &mut Visitor<'_>) -> Result<bool, LookupError> {
        let _ = visit;
        Ok(false)
    }
}

/// How a table is to be opened. The default is what every daemon uses.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Fold keys to lower case in the types with fixed keys (not in those with patterns).
    pub fold: bool,
    /// Put what a pattern has matched into results with `$1` and the like. A table whose results become commands, files
    /// or transports must not: whoever chooses the address would choose them.
    pub substitute: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fold: true, substitute: true }
    }
}

/// A table could not be asked. The delivery or reply that depends on it is to be tried again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    /// The table, as the operator wrote it.
    pub table: String,
    /// What went wrong, and where there is one, the remedy.
    pub cause: String,
}

impl LookupError {
    /// An error of the table called `table`.
    #[must_use]
    pub fn new(table: &str, cause: impl Into<String>) -> Self {
        Self { table: table.to_owned(), cause: cause.into() }
    }
}

impl LookupError {
    /// The content of an open table is gone.
    pub(crate) fn opening(table: &str, error: &OpenError) -> Self {
        Self::new(table, error.to_string())
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}: {}", self.table, self.cause)
    }
}

impl std::error::Error for LookupError {}

/// A table could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The name is not one of a table, or its type does not exist, or not here: only a changed configuration helps.
    Configuration(String),
    /// The file behind the table is missing, unreadable or damaged: it can be mended while the daemons run.
    Unavailable(String),
}

impl OpenError {
    /// An [`OpenError::Unavailable`] for a failed operation on a file.
    pub(crate) fn io(operation: &str, path: &Path, error: &io::Error) -> Self {
        Self::Unavailable(format!("{operation} {}: {}", path.display(), cause(error)))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(text) | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OpenError {}

pub(crate) use config::cause;
