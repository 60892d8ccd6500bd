//! What `tests/fuzz` reaches of this crate: what users and the administrator write. No program uses it.

use crate::destination::{self, Destination};
use crate::template::{self, Names};

pub use crate::pipe::fuzzing::template as pipe_template;

/// How many addresses, commands and files a `.forward` or `:include:` file lists; none where there are more than `limit`.
#[must_use]
pub fn destinations(text: &[u8], line_limit: usize, limit: usize) -> Option<[usize; 3]> {
    let found = destination::parse_file(text, line_limit, limit).ok()?;
    let mut counts = [0; 3];
    for destination in &found {
        let place = match destination {
            Destination::Address(_) | Destination::Mailbox(_) | Destination::Unfit(_) => 0,
            Destination::Command(_) => 1,
            Destination::File(_) | Destination::HomeFile(_) | Destination::Include(_) => 2,
        };
        counts[place] += 1;
    }
    Some(counts)
}

/// `forward_path` and its like, with `value` for every name and the characters that it may have.
#[must_use]
pub fn expand(text: &str, value: &str, allowed: &str) -> Option<String> {
    let names =
        Names { user: value, home: value, extension: value, domain: value, local: value, ..Names::default() };
    template::expand(text, &names, allowed).ok().map(|expanded| expanded.text)
}
