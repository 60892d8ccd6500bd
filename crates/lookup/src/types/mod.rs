//! The types of tables, and how `type:name` becomes a table of one of them.

mod cidr;
mod combined;
mod ere;
mod fail;
mod fixed;
mod indexed;
mod regexp;
mod rules;
mod unix;
mod waiting;

pub use indexed::index_file;

use std::sync::{Arc, LazyLock};

use crate::braces::unbrace;
use crate::table::{OpenError, Options, Table};

/// Opens the table called `type:name`.
///
/// # Errors
/// The name is wrong, or the file behind it is missing or damaged.
pub fn open(spec: &str) -> Result<Arc<dyn Table>, OpenError> {
    open_with(spec, Options::default())
}

/// As [`open`], but a table whose file is missing or damaged is a table all the same: it warns now, each lookup in it
/// fails, and it works from the moment its file does.
///
/// # Errors
/// The name is wrong.
pub fn open_or_wait(spec: &str, options: Options) -> Result<Arc<dyn Table>, OpenError> {
    match open_with(spec, options) {
        Err(OpenError::Unavailable(cause)) => Ok(Arc::new(waiting::Waiting::new(spec, options, cause))),
        result => result,
    }
}

/// Opens a table with options other than the usual.
///
/// # Errors
/// As [`open`].
pub fn open_with(spec: &str, options: Options) -> Result<Arc<dyn Table>, OpenError> {
    open_at(spec, options, 0)
}

/// How deep tables may stand in the names of tables.
const DEEPEST: u8 = 10;

fn open_at(spec: &str, options: Options, depth: u8) -> Result<Arc<dyn Table>, OpenError> {
    let request = Request::parse(spec, options, depth)?;
    if depth > DEEPEST {
        return Err(request.configuration_error(format!("more than {DEEPEST} tables stand in each other")));
    }
    if let Some(kind) = TYPES.iter().find(|kind| kind.name == request.kind) {
        return (kind.open)(&request);
    }
    let near = config::nearest(request.kind, types().iter().copied());
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let known = types().join(", ");
    Err(OpenError::Configuration(match not_supported(request.kind) {
        Some(way_out) => {
            format!("table {spec}: type {} is not supported yet: {way_out}", request.kind)
        }
        None => {
            format!("table {spec}: there is no table type \"{}\"{near} (there are {known})", request.kind)
        }
    }))
}

/// The names of the types that can be opened, sorted: what `postconf -m` prints.
#[must_use]
pub fn types() -> &'static [&'static str] {
    static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| TYPES.iter().map(|kind| kind.name).collect());
    &NAMES
}

/// What a table is made of.
struct Request<'a> {
    /// The whole name, for messages.
    label: &'a str,
    kind: &'a str,
    /// What follows the type and its colon.
    name: &'a str,
    options: Options,
    /// In how many other tables' names this one stands.
    depth: u8,
}

struct Kind {
    name: &'static str,
    open: fn(&Request<'_>) -> Result<Arc<dyn Table>, OpenError>,
}

/// In alphabetical order.
const TYPES: &[Kind] = &[
    Kind { name: "btree", open: indexed::open },
    Kind { name: "cdb", open: indexed::open },
    Kind { name: "cidr", open: cidr::open },
    Kind { name: "fail", open: fail::open },
    Kind { name: "hash", open: indexed::open },
    Kind { name: "inline", open: fixed::open_inline },
    Kind { name: "pipemap", open: combined::open_pipemap },
    Kind { name: "proxy", open: open_proxied },
    Kind { name: "randmap", open: combined::open_randmap },
    Kind { name: "regexp", open: regexp::open },
    Kind { name: "static", open: fixed::open_static },
    Kind { name: "texthash", open: fixed::open_texthash },
    Kind { name: "unionmap", open: combined::open_unionmap },
    Kind { name: "unix", open: unix::open },
];

/// Types that Postfix has and a configuration may name, with what to do meanwhile.
fn not_supported(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "lmdb" | "dbm" | "sdbm" => "use hash:, and run postmap",
        "pcre" => "use regexp:, with POSIX expressions ([0-9] for \\d, [[:space:]] for \\s)",
        "ldap" | "mysql" | "pgsql" | "sqlite" | "mongodb" => {
            "write its content to a text file from time to time, run postmap on it, and use hash:"
        }
        "tcp" | "socketmap" | "memcache" | "nis" | "nisplus" | "netinfo" => {
            "write its content to a text file from time to time, run postmap on it, and use hash:"
        }
        "environ" => "use static: or inline:",
        "internal" => "it is Postfix's own and not for configurations",
        _ => return None,
    })
}

impl<'a> Request<'a> {
    fn parse(spec: &'a str, options: Options, depth: u8) -> Result<Self, OpenError> {
        let label = spec.trim_ascii();
        match label.split_once(':') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
                Ok(Self { label, kind, name, options, depth })
            }
            _ => Err(OpenError::Configuration(format!(
                "table \"{label}\": a table is named type:name, such as hash:/etc/postroad/virtual"
            ))),
        }
    }

    /// What stands between the braces of `type:{ … }`.
    fn braced(&self) -> Option<&'a str> {
        unbrace(self.name)
    }

    /// Opens a table that is named in the name of this one.
    fn open_member(&self, spec: &str) -> Result<Arc<dyn Table>, OpenError> {
        open_at(spec, self.options, self.depth + 1)
    }

    fn configuration_error(&self, what: impl std::fmt::Display) -> OpenError {
        OpenError::Configuration(format!("table {}: {what}", self.label))
    }
}

/// `proxy:` means a daemon of its own in Postfix, which opens the table for the others. Every program here opens its
/// tables before it gives up its rights, and shares the pages of an indexed file with the others: the prefix has no
/// effect.
fn open_proxied(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    request.open_member(request.name)
}
