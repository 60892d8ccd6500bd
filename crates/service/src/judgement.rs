//! What every daemon can say about a configuration before it serves: will its lists and tables open, and are the accounts
//! fit whose rights it hands out, and nobody else its master?

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use config::templates::Templates;
use config::{Config, Diagnostic, Severity};
use lookup::OpenError;

/// What tables say while they are opened.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Opens the lists and tables of a configuration, and gives what is wrong with them, and with its accounts. A text begins with the parameter that
/// it is about, where there is one.
#[must_use]
pub fn judge(config: &Config) -> Vec<Diagnostic> {
    lookup::report_warnings_to(|text| {
        SAID.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned())
    });
    let findings = lookup::check(config);
    let mut found: Vec<(Severity, String)> = Vec::new();
    for error in findings.errors {
        found.push(match error {
            OpenError::Configuration(text) => (Severity::Error, text),
            // It can be mended while the daemons run, who defer what depends on it until then.
            OpenError::Unavailable(text) => (Severity::Warning, text),
        });
    }
    found.extend(crate::accounts::problems(config).into_iter().map(|text| (Severity::Error, text)));
    found.extend(findings.warnings.into_iter().map(|text| (Severity::Warning, text)));
    for text in std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner)) {
        let told = found.iter().any(|(_, other)| text.contains(lookup::without_parameter(other)));
        if !told {
            found.push((Severity::Warning, text));
        }
    }
    let file: PathBuf = config.directory().join("main.cf");
    let diagnostic = |(severity, text)| Diagnostic { severity, file: file.clone(), line: 0, text };
    let mut diagnostics: Vec<Diagnostic> = found.into_iter().map(diagnostic).collect();
    diagnostics.extend(Templates::from_config(config).1);
    diagnostics.extend(crate::ownership::problems(config));
    diagnostics
}
