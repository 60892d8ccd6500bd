//! How a line is printed.

use std::io::{self, Write};

use super::Options;

/// Prints `name = value` as the options say: white space in the value becomes one blank.
pub(super) fn definition(out: &mut impl Write, options: &Options, name: &str, value: &str) -> io::Result<()> {
    if options.names_only {
        return writeln!(out, "{name}");
    }
    let mut text = if options.values_only { String::new() } else { format!("{name} =") };
    let mut length = text.len();
    for word in value.split_ascii_whitespace() {
        if text.is_empty() {
        } else if options.fold && length + 1 + word.len() > WIDTH {
            text.push_str("\n    ");
            length = 4;
        } else {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += word.len();
    }
    writeln!(out, "{text}")
}

/// Where long lines are broken with `-f`.
const WIDTH: usize = 80;
