//! Logical lines: what main.cf and master.cf have in common.
//!
//! A line that begins with white space continues the one before it. Comment lines (the first character that is not
//! white space is `#`) and blank lines count for nothing, also between a line and its continuation.

/// One logical line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogicalLine {
    /// The number of its first physical line, from 1.
    pub(crate) number: u32,
    /// The number of its last physical line.
    pub(crate) last: u32,
    /// Its physical lines joined; the white space before a continuation stays.
    pub(crate) text: String,
    /// Whether it began with white space although there was nothing to continue.
    pub(crate) orphan: bool,
}

/// What a physical line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// Blank or a comment.
    Ignored,
    /// Continues the logical line before it.
    Continuation,
    /// Begins a logical line.
    Start,
}

pub(crate) fn kind_of(line: &str) -> LineKind {
    let trimmed = line.trim_start_matches(is_space);
    if trimmed.is_empty() || trimmed.starts_with('#') {
        LineKind::Ignored
    } else if trimmed.len() < line.len() {
        LineKind::Continuation
    } else {
        LineKind::Start
    }
}

/// White space as the C locale knows it.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

pub(crate) fn logical_lines(source: &str) -> Vec<LogicalLine> {
    let mut lines: Vec<LogicalLine> = Vec::new();
    for (number, text) in (1..).zip(source.split('\n')) {
        match (kind_of(text), lines.last_mut()) {
            (LineKind::Ignored, _) => {}
            (LineKind::Continuation, Some(line)) if !line.orphan => {
                line.text.push_str(text);
                line.last = number;
            }
            (kind, _) => lines.push(LogicalLine {
                number,
                last: number,
                text: text.to_owned(),
                orphan: kind == LineKind::Continuation,
            }),
        }
    }
    lines
}
