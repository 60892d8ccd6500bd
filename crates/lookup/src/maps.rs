//! An ordered list of tables, the value of parameters such as `virtual_alias_maps`.

use std::sync::Arc;

use crate::table::{LookupError, OpenError, Options, Table};
use crate::types::open_or_wait;

/// Tables that are asked one after the other until one knows the key.
#[derive(Clone, Default)]
pub struct Maps {
    tables: Vec<Arc<dyn Table>>,
}

impl Maps {
    /// Opens the tables of a parameter's value, already split into items.
    ///
    /// A table whose file is missing or damaged does not fail here: it warns, every lookup in it fails (so that mail
    /// waits instead of being refused), and it works from the moment its file is there.
    ///
    /// # Errors
    /// An item that can never become a table, [`OpenError::Configuration`].
    pub fn open(specs: &[String]) -> Result<Self, OpenError> {
        Self::open_with(specs, Options::default())
    }

    /// As [`Maps::open`], with options other than the usual.
    ///
    /// # Errors
    /// As [`Maps::open`].
    pub fn open_with(specs: &[String], options: Options) -> Result<Self, OpenError> {
        let tables = specs.iter().map(|spec| open_or_wait(spec, options)).collect::<Result<_, _>>()?;
        Ok(Self { tables })
    }

    /// A list of tables that are open already.
    #[must_use]
    pub fn from_tables(tables: Vec<Arc<dyn Table>>) -> Self {
        Self { tables }
    }

    /// Whether there is no table at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The tables, in the order in which they are asked.
    #[must_use]
    pub fn tables(&self) -> &[Arc<dyn Table>] {
        &self.tables
    }

    /// What the tables are called in errors about all of them.
    #[must_use]
    pub fn labels(&self) -> String {
        self.tables.iter().map(|table| table.label()).collect::<Vec<_>>().join(", ")
    }

    /// The value of the first table that knows `key`.
    ///
    /// # Errors
    /// A table before that one could not be asked; the later ones are not consulted, because they might answer
    /// differently from what the operator's order means.
    pub fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        self.first(key, |_| true)
    }

    /// As [`Maps::get`], leaving out the tables that match by pattern: for keys that are a part of an address or name.
    ///
    /// # Errors
    /// As [`Maps::get`].
    pub fn get_part(&self, key: &str) -> Result<Option<String>, LookupError> {
        self.first(key, |table| !table.is_pattern())
    }

    fn first(&self, key: &str, asked: impl Fn(&dyn Table) -> bool) -> Result<Option<String>, LookupError> {
        for table in self.tables.iter().filter(|table| asked(table.as_ref())) {
            if let Some(value) = table.get(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(specs: &[&str]) -> Maps {
        Maps::open(&specs.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_first_table_that_knows_the_key_answers() {
        let maps = maps(&["inline:{a=1}", "inline:{a=2, b=3}", "static:z"]);
        assert_eq!(maps.get("a").unwrap().as_deref(), Some("1"));
        assert_eq!(maps.get("b").unwrap().as_deref(), Some("3"));
        assert_eq!(maps.get("c").unwrap().as_deref(), Some("z"));
    }

    #[test]
    fn a_failing_table_hides_the_later_ones() {
        let maps = maps(&["inline:{a=1}", "fail:f", "static:z"]);
        assert_eq!(maps.get("a").unwrap().as_deref(), Some("1"));
        assert_eq!(maps.get("b").unwrap_err().table, "fail:f");
    }
}
