//! A table whose file was missing or damaged when it was opened.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::open_with;
use crate::table::{LookupError, Options, Table};
use crate::warning::warn;

/// How often the table is tried again, at most.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Fails every lookup until the table can be opened, and is that table from then on.
pub(super) struct Waiting {
    label: String,
    options: Options,
    table: OnceLock<Arc<dyn Table>>,
    trouble: Mutex<(String, Instant)>,
}

impl Waiting {
    pub(super) fn new(spec: &str, options: Options, cause: String) -> Self {
        warn(format_args!("{cause}; lookups in {spec} fail until that is mended"));
        let trouble = Mutex::new((cause, Instant::now()));
        Self { label: spec.to_owned(), options, table: OnceLock::new(), trouble }
    }
}

impl Table for Waiting {
    fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        if let Some(table) = self.table.get() {
            return table.get(key);
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.1.elapsed() >= RETRY_EVERY {
            match open_with(&self.label, self.options) {
                Ok(table) => return self.table.get_or_init(|| table).get(key),
                Err(error) => *trouble = (error.to_string(), Instant::now()),
            }
        }
        Err(LookupError::new(&self.label, trouble.0.clone()))
    }

    fn label(&self) -> &str {
        &self.label
    }

    /// Whether the table it stands for has patterns can be told from its name.
    fn is_pattern(&self) -> bool {
        let name = self.label.trim_ascii();
        let name = name.strip_prefix("proxy:").unwrap_or(name);
        ["regexp:", "cidr:", "pcre:"].iter().any(|kind| name.starts_with(kind))
    }
}
