//! master and `postroad check` → a daemon's program, before it serves: could you work with this configuration?
//!
//! What only a program knows (the restrictions of smtpd, say) is judged by that program and nobody else; what all of them
//! know (lists and tables) is judged by one of them for each set of `-o` settings. A program is run with the argument
//! `check`, is handed a [`Question`] on standard input, and answers with diagnostics on standard output.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use config::{Config, Diagnostic, Presence, ServiceEntry, Severity, Snapshot, param};
use serde::{Deserialize, Serialize};

use crate::frame;

/// The argument that asks a program for its judgement.
pub const ARGUMENT: &str = "check";

/// The programs that have a judgement of their own, besides the one that all share.
const JUDGES: [&str; 5] = ["smtpd", "pipe", "spawn", "smtp", "lmtp"];

/// The most that is read of a question or an answer.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A configuration to be judged.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    directory: PathBuf,
    snapshot: Snapshot,
    overrides: Vec<(String, String)>,
    service: String,
    arguments: Vec<String>,
    /// Where in master.cf the overrides stand.
    line: u32,
}

/// What a program is asked to judge.
#[derive(Debug)]
pub struct Asked {
    /// The configuration, with the service's own settings.
    pub config: Config,
    /// The service's name in master.cf.
    pub service: String,
    /// What follows the command in master.cf besides options.
    pub arguments: Vec<String>,
}

/// Asks about every service of master.cf that is a program here. What several say alike is given once.
///
/// # Errors
/// A program that cannot be asked, by its path and the reason.
pub fn ask_all(config: &Config, snapshot: &Snapshot) -> io::Result<Vec<Diagnostic>> {
    let daemons: PathBuf = config.get(param::DAEMON_DIRECTORY);
    let mut services: Vec<&ServiceEntry> =
        config.services().iter().filter(|entry| entry.presence == Presence::Program).collect();
    let mut found = missing_programs(&services, &daemons);
    if !found.is_empty() {
        return Ok(found);
    }
    let is_judge = |entry: &ServiceEntry| JUDGES.contains(&entry.command.as_str());
    // The judges first: they say what the others would say as well.
    services.sort_by_key(|entry| !is_judge(entry));
    let mut judged: Vec<&ServiceEntry> = Vec::new();
    for entry in services {
        let says_as_much = |other: &&ServiceEntry| {
            other.overrides == entry.overrides
                && (!is_judge(entry) || (&other.command, &other.args) == (&entry.command, &entry.args))
        };
        if judged.iter().any(says_as_much) {
            continue;
        }
        judged.push(entry);
        let question = Question {
            directory: config.directory().to_owned(),
            snapshot: snapshot.clone(),
            overrides: entry.overrides.clone(),
            service: entry.name.clone(),
            arguments: entry.plain_args(),
            line: entry.line,
        };
        let program = daemons.join(&entry.command);
        let answer = ask(&program, &question)
            .map_err(|e| io::Error::new(e.kind(), format!("run {} {ARGUMENT}: {e}", program.display())))?;
        for diagnostic in answer {
            if !found.contains(&diagnostic) {
                found.push(diagnostic);
            }
        }
    }
    Ok(found)
}

fn missing_programs(services: &[&ServiceEntry], daemons: &Path) -> Vec<Diagnostic> {
    let missing = |entry: &&ServiceEntry| {
        let text = find_program(&daemons.join(&entry.command)).err()?;
        Some(Diagnostic { severity: Severity::Error, file: entry.file.clone(), line: entry.line, text })
    };
    services.iter().filter_map(missing).collect()
}

/// Looks whether a daemon's program is there.
///
/// # Errors
/// That there is none and what to do, or why nobody can tell.
pub fn find_program(program: &Path) -> Result<(), String> {
    let path = program.display();
    let advice = "set daemon_directory in main.cf to where Postroad's daemons are";
    match std::fs::metadata(program) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(format!("{path} is not a file; {advice}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("there is no {path}; {advice}")),
        Err(error) => Err(format!("look at {path}: {error}")),
    }
}

fn ask(program: &Path, question: &Question) -> io::Result<Vec<Diagnostic>> {
    let mut child =
        Command::new(program).arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut bytes = Vec::new();
    frame::push_message(&mut bytes, question)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&bytes)?;
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_BYTES).read_to_end(&mut answer)?;
    }
    child.wait()?;
    frame::decode(answer.get(frame::HEAD..).unwrap_or_default())
}

/// A program's side: reads the question, answers with what `judge` finds.
pub fn answer(judge: impl FnOnce(&Asked) -> Vec<Diagnostic>) -> ExitCode {
    match try_answer(judge) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "{ARGUMENT}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_answer(judge: impl FnOnce(&Asked) -> Vec<Diagnostic>) -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes)?;
    let question: Question = frame::decode(bytes.get(frame::HEAD..).unwrap_or_default())?;
    let mut found = match Config::from_snapshot(&question.directory, &question.snapshot, &question.overrides)
    {
        Ok((config, _)) => {
            let asked = Asked { config, service: question.service, arguments: question.arguments };
            let mut found = judge(&asked);
            found.iter_mut().for_each(|diagnostic| locate(diagnostic, &asked, question.line));
            found
        }
        // An error that only this service's own settings make; the rest was judged before.
        Err(found) => found,
    };
    found.retain(|diagnostic| diagnostic.severity > Severity::Note);
    let mut out = Vec::new();
    frame::push_message(&mut out, &found)?;
    io::stdout().lock().write_all(&out)
}

/// A text that begins with the name of a parameter is about the line that sets it, one that begins with the name of
/// the service about its line in master.cf.
fn locate(diagnostic: &mut Diagnostic, asked: &Asked, line_of_service: u32) {
    let config = &asked.config;
    let name = diagnostic.text.split([':', ' ']).next().unwrap_or_default();
    match config.line_of(name).filter(|_| diagnostic.line == 0) {
        Some(0) => {
            diagnostic.file = config.directory().join("master.cf");
            diagnostic.line = line_of_service;
        }
        Some(line) => diagnostic.line = line,
        // About the arguments of the service.
        None if diagnostic.line == 0 && name == asked.service => {
            diagnostic.file = config.directory().join("master.cf");
            diagnostic.line = line_of_service;
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_looked_at_is_not_called_missing() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("smtpd");
        let told = || find_program(&program).unwrap_err();
        assert!(told().starts_with("there is no "), "{}", told());
        std::os::unix::fs::symlink(&program, &program).unwrap();
        assert!(told().contains("Too many levels of symbolic links"), "{}", told());
        std::fs::remove_file(&program).unwrap();
        std::fs::create_dir(&program).unwrap();
        assert!(told().contains("is not a file; set daemon_directory"), "{}", told());
        std::fs::remove_dir(&program).unwrap();
        std::fs::write(&program, "").unwrap();
        find_program(&program).unwrap();
    }
}
