//! The table of parameters, generated from `parameters.toml`.

use std::marker::PhantomData;

/// What the value of a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is not expanded when it is read: the program that uses it fills in `$user` and the like.
    Raw,
    /// One of a few words.
    Choice,
    /// `yes` or `no`.
    Bool,
    /// A whole number.
    Int,
    /// A number with a unit of time.
    Time,
    /// Items separated by commas or white space.
    List,
    /// The name of a file or directory.
    Path,
    /// So many in a time, as [`crate::Rate`] reads it.
    Rate,
    /// A step of a concurrency, as [`crate::Feedback`] reads it.
    Feedback,
}

/// One row of the table.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in main.cf.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// The value when main.cf sets none, unexpanded. Empty for what is asked of the host, such as `myhostname`.
    pub default: &'static str,
    /// The unit of a time that is written without one.
    pub unit: char,
    /// The smallest number allowed (seconds for a time); above 0, a text may not be empty.
    pub minimum: u64,
    /// The largest number allowed (seconds for a time).
    pub maximum: u64,
    /// The words allowed, for [`Kind::Choice`] and the items of [`Kind::List`]; none for any.
    pub choices: &'static [&'static str],
    /// The programs that read it; `all` stands for every daemon.
    pub users: &'static [&'static str],
    /// What it is for, in one sentence.
    pub doc: &'static str,
    /// Whether setting it has an effect here.
    pub implemented: bool,
    /// A value besides the default that says truly what happens while it is not implemented.
    pub inert: Option<&'static str>,
    /// For what will never have an effect: what does its work here, as the rest of a sentence.
    pub instead: Option<&'static str>,
    /// What to set instead, for a name of former times.
    pub deprecated: Option<&'static str>,
    /// Whether `postconf -d` lists it; legacy names are honoured without being listed.
    pub listed: bool,
}

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// The row of `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Parameter> {
    index_of(name).map(|index| &PARAMETERS[index])
}

pub(crate) fn index_of(name: &str) -> Option<usize> {
    PARAMETERS.binary_search_by(|row| row.name.cmp(name)).ok()
}

/// A parameter and the Rust type of its value; see [`param`] for the constants.
#[derive(Debug)]
pub struct Param<T> {
    index: u16,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Param<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Param<T> {}

impl<T> Param<T> {
    const fn new(index: u16) -> Self {
        Self { index, value: PhantomData }
    }

    /// Its name in main.cf.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Its row in the table.
    #[must_use]
    pub fn row(self) -> &'static Parameter {
        &PARAMETERS[self.index()]
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.index)
    }
}

/// One constant per parameter, named like it in capitals.
pub mod param {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::Param;

    include!(concat!(env!("OUT_DIR"), "/constants.rs"));
}
