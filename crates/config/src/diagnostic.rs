//! What is told to the operator about a configuration.

use std::borrow::Cow;
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

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
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

impl Diagnostic {
    /// As an operator's command says it: how grave it is, where it is, what it is.
    #[must_use]
    pub fn told(&self) -> String {
        format!("{}: {self}", self.severity)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", without_numbers(&self.text))
    }
}

/// The system's words for an error, without the "(os error 2)" that the standard library appends.
#[must_use]
pub fn cause(error: &std::io::Error) -> String {
    without_numbers(&error.to_string()).into_owned()
}

/// Why a host is not found, in the resolver's words alone.
#[must_use]
pub fn resolver_cause(error: &std::io::Error) -> String {
    let text = cause(error);
    text.strip_prefix("failed to lookup address information: ").map(str::to_owned).unwrap_or(text)
}

/// A text without the numbers that the standard library appends to the system's words: ` (os error 2)`.
#[must_use]
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    const MARK: &str = " (os error ";
    let mut text = Cow::Borrowed(text);
    let mut from = 0;
    while let Some(at) = text[from..].find(MARK).map(|at| from + at) {
        let number = &text[at + MARK.len()..];
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        from = at;
        if digits > 0 && number[digits..].starts_with(')') {
            text.to_mut().replace_range(at..at + MARK.len() + digits + 1, "");
        } else {
            from += MARK.len();
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_system_errors_are_nobodys_business() {
        for (text, expected) in [
            ("open x: No such file or directory (os error 2)", "open x: No such file or directory"),
            ("a (os error 2) and b (os error 13); c", "a and b; c"),
            ("said: (os error 2)", "said:"),
            ("said (os error two) (os error )", "said (os error two) (os error )"),
            ("(os error 2)", "(os error 2)"),
        ] {
            assert_eq!(without_numbers(text), expected);
        }
        assert_eq!(cause(&std::io::Error::from_raw_os_error(2)), "No such file or directory");
    }
}
