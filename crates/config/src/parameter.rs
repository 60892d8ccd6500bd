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

/// A parameter: what its row of the table says.
#[derive(Clone, Copy, Debug)]
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
    pub choices: Words,
    /// The programs that read it; `all` stands for every daemon.
    pub users: Words,
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

/// A few words of the table.
#[derive(Clone, Copy, Debug)]
pub struct Words(&'static str);

impl Words {
    /// Each word; one may be empty, where nothing is a choice as well.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        self.0.split_terminator(TERMINATOR)
    }

    /// Whether `word` is one of them.
    #[must_use]
    pub fn contains(self, word: &str) -> bool {
        self.iter().any(|own| own == word)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// All of them but an empty one, for people.
    #[must_use]
    pub fn listed(self) -> String {
        self.iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

/// What each word of [`Words`] ends with.
const TERMINATOR: char = '\n';

/// A row as it is stored: places in [`TEXTS`] instead of references. A reference to a constant is an address that the
/// loader has to write when a program starts; some ten thousand of them would be memory that each program has for itself, and
/// most of what the start of a small one like `sendmail` costs.
struct Row {
    /// Where name and default begin.
    key_at: u32,
    /// Where all other texts begin, apart from those, since programs look up names and defaults only.
    rest_at: u32,
    /// How long they are: name, default; choices, users, doc, inert, instead, deprecated.
    lengths: [u16; 8],
    minimum: u64,
    maximum: u64,
    kind: Kind,
    unit: u8,
    implemented: bool,
    listed: bool,
}

/// The length of a text that there is none of.
const NONE: u16 = u16::MAX;

include!(concat!(env!("OUT_DIR"), "/table.rs"));

static TEXTS: &str = include_str!(concat!(env!("OUT_DIR"), "/texts"));

impl Row {
    fn name(&self) -> &'static str {
        take(&mut text_from(self.key_at), self.lengths[0]).unwrap_or_default()
    }

    fn parameter(&self) -> Parameter {
        let [name, default, choices, users, doc, inert, instead, deprecated] = self.lengths;
        let (key, rest) = (&mut text_from(self.key_at), &mut text_from(self.rest_at));
        Parameter {
            name: take(key, name).unwrap_or_default(),
            kind: self.kind,
            default: take(key, default).unwrap_or_default(),
            unit: self.unit.into(),
            minimum: self.minimum,
            maximum: self.maximum,
            choices: Words(take(rest, choices).unwrap_or_default()),
            users: Words(take(rest, users).unwrap_or_default()),
            doc: take(rest, doc).unwrap_or_default(),
            implemented: self.implemented,
            inert: take(rest, inert),
            instead: take(rest, instead),
            deprecated: take(rest, deprecated),
            listed: self.listed,
        }
    }
}

fn text_from(at: u32) -> &'static str {
    usize::try_from(at).ok().and_then(|at| TEXTS.get(at..)).unwrap_or_default()
}

/// The first `length` bytes of `text`, which goes on behind them.
fn take(text: &mut &'static str, length: u16) -> Option<&'static str> {
    let (taken, rest) = text.split_at_checked(usize::from(length)).filter(|_| length != NONE)?;
    *text = rest;
    Some(taken)
}

/// Every parameter, sorted by name.
pub fn parameters() -> impl Iterator<Item = Parameter> {
    ROWS.iter().map(Row::parameter)
}

/// How many there are.
pub(crate) const COUNT: usize = ROWS.len();

/// The row at `index`, which [`index_of`] or a [`Param`] gave.
pub(crate) fn at(index: usize) -> Parameter {
    ROWS[index].parameter()
}

/// The parameter called `name`.
#[must_use]
pub fn find(name: &str) -> Option<Parameter> {
    index_of(name).map(at)
}

pub(crate) fn index_of(name: &str) -> Option<usize> {
    ROWS.binary_search_by(|row| row.name().cmp(name)).ok()
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
        ROWS[self.index()].name()
    }

    /// Its row in the table.
    #[must_use]
    pub fn row(self) -> Parameter {
        at(self.index())
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
