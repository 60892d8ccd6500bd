//! What was found.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Pass,
    /// It could not be found out, or does not matter here.
    Skip,
    /// Mail works, and not everywhere or not for long.
    Warn,
    /// Mail is lost, refused, or not safe.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

/// The lines of a report, in the order of the checks.
#[derive(Debug, Default)]
pub struct Report {
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// It is as it should be.
    pub fn pass(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Level::Pass, text.into(), String::new());
    }

    /// It could not be looked at.
    pub fn skip(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Level::Skip, text.into(), String::new());
    }

    /// Something should be done.
    pub fn warn(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.push(check, Level::Warn, text.into(), advice.into());
    }

    /// Something must be done.
    pub fn fail(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.push(check, Level::Fail, text.into(), advice.into());
    }

    fn push(&mut self, check: &'static str, level: Level, text: String, advice: String) {
        self.findings.push(Finding { check, level, text, advice });
    }

    /// 0 if nothing is wrong, 1 for warnings, 2 for failures.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.findings.iter().map(|finding| finding.level).max() {
            Some(Level::Fail) => 2,
            Some(Level::Warn) => 1,
            _ => 0,
        }
    }
}
