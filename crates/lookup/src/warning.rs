//! Where warnings about tables go. A table may warn long after it was opened (its file changed for the worse), so a
//! returned value would not do; and a library does not know its program's log, so the program says where.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

static SINK: OnceLock<fn(&str)> = OnceLock::new();

/// Sends the warnings of every table of this process to `sink`, one line without an end of line at a time. Until then
/// they go to standard error. Only the first call has an effect.
pub fn report_warnings_to(sink: fn(&str)) {
    // A second call is a program that initialises twice: harmless.
    let _ = SINK.set(sink);
}

pub(crate) fn warn(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    if let Some(sink) = SINK.get() {
        sink(&text);
    } else {
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "warning: {text}");
    }
}
