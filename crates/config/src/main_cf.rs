//! main.cf: `name = value`.

use crate::diagnostic::Remarks;
use crate::lines::{is_space, logical_lines};

/// One definition as it stands in main.cf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    /// Unexpanded.
    pub(crate) value: String,
    /// Its first line.
    pub(crate) line: u32,
    /// Its last line.
    pub(crate) last: u32,
}

/// The definitions of `source` in their order, duplicates included.
pub(crate) fn parse(source: &str, remarks: &mut Remarks<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for line in logical_lines(source) {
        if line.orphan {
            remarks.warning(
                line.number,
                "begins with white space and there is nothing above that it could continue; it is ignored",
            );
            continue;
        }
        match split(&line.text) {
            Ok((name, value)) => settings.push(Setting {
                name: name.to_owned(),
                value: value.to_owned(),
                line: line.number,
                last: line.last,
            }),
            Err(what) => remarks.error(line.number, what),
        }
    }
    settings
}

/// `name = value` in two; the message says what is missing.
pub(crate) fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim_matches(is_space);
    let name_ends = text.find(|c| c == '=' || is_space(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_ends);
    if name.is_empty() {
        return Err(format!("the name before “=” is missing: “{}”", shortened(text)));
    }
    match rest.trim_start_matches(is_space).strip_prefix('=') {
        Some(value) => Ok((name, value.trim_matches(is_space))),
        None => Err(format!("no “=” after “{name}”; write “name = value”: “{}”", shortened(text))),
    }
}

fn shortened(text: &str) -> String {
    const LIMIT: usize = 60;
    match text.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
