//! What is told to the operator about a configuration.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How grave a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Probably not what was meant; the suite runs nevertheless.
    Warning,
    /// No daemon starts on it, and a reload keeps the former configuration.
    Error,
}

/// One remark about a configuration file. Its text says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// The file it is about.
    pub file: PathBuf,
    /// The line in it, from 1; 0 where it is about the whole file.
    pub line: u32,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// The system's words for an error, without the "(os error 2)" that the standard library appends.
#[must_use]
pub fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.find(" (os error ").map_or(text.as_str(), |end| &text[..end]).to_owned()
}

/// Gathers the remarks about one file.
pub(crate) struct Remarks<'a> {
    pub(crate) file: PathBuf,
    pub(crate) list: &'a mut Vec<Diagnostic>,
}

impl Remarks<'_> {
    pub(crate) fn error(&mut self, line: u32, text: impl Into<String>) {
        self.push(Severity::Error, line, text.into());
    }

    pub(crate) fn warning(&mut self, line: u32, text: impl Into<String>) {
        self.push(Severity::Warning, line, text.into());
    }

    pub(crate) fn note(&mut self, line: u32, text: impl Into<String>) {
        self.push(Severity::Note, line, text.into());
    }

    fn push(&mut self, severity: Severity, line: u32, text: String) {
        self.list.push(Diagnostic { severity, file: self.file.clone(), line, text });
    }
}
