//! What `tests/fuzz` reaches of pipe. No program uses it.

use super::arguments::Template;

/// Whether an argument of `argv=` can be understood.
#[must_use]
pub fn template(text: &str) -> bool {
    Template::parse(text).is_ok()
}
