//! master and `postroad check` → a daemon's program, before it serves: could you work with this configuration?
//!
//! What only a program knows (the restrictions of smtpd, say) is judged by that program and nobody else. It is run with
//! the argument `check`, is handed a [`Question`] on standard input, and answers with [`Remark`]s on standard output.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use config::{Config, Diagnostic, Presence, Severity, Snapshot, param};
use serde::{Deserialize, Serialize};

use crate::frame;

/// The argument that asks a program for its judgement.
pub const ARGUMENT: &str = "check";

/// The programs that have a judgement of their own.
const JUDGES: [&str; 1] = ["smtpd"];

/// The most that is read of a question or an answer.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A configuration to be judged.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    directory: PathBuf,
    snapshot: Snapshot,
    overrides: Vec<(String, String)>,
}

/// What a program says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// It cannot work with it.
    pub is_error: bool,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// Asks all programs that have a judgement about the services they are named for in master.cf. What several services
/// say alike is given once.
///
/// # Errors
/// A program that cannot be asked, by its path and the reason.
pub fn ask_all(config: &Config, snapshot: &Snapshot) -> io::Result<Vec<Remark>> {
    let daemons: PathBuf = config.get(param::DAEMON_DIRECTORY);
    let mut remarks = Vec::new();
    let judged = config.services().iter().filter(|entry| entry.presence == Presence::Program);
    for entry in judged.filter(|entry| JUDGES.contains(&entry.command.as_str())) {
        let question = Question {
            directory: config.directory().to_owned(),
            snapshot: snapshot.clone(),
            overrides: entry.overrides.clone(),
        };
        let program = daemons.join(&entry.command);
        let answer = ask(&program, &question)
            .map_err(|e| io::Error::new(e.kind(), format!("run {} {ARGUMENT}: {e}", program.display())))?;
        for remark in answer {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    Ok(remarks)
}

fn ask(program: &Path, question: &Question) -> io::Result<Vec<Remark>> {
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
pub fn answer(judge: impl FnOnce(&Config) -> Vec<Diagnostic>) -> ExitCode {
    match try_answer(judge) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "{ARGUMENT}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_answer(judge: impl FnOnce(&Config) -> Vec<Diagnostic>) -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes)?;
    let question: Question = frame::decode(bytes.get(frame::HEAD..).unwrap_or_default())?;
    let found = match Config::from_snapshot(&question.directory, &question.snapshot, &question.overrides) {
        Ok((config, _)) => judge(&config),
        // An error that only this service's own settings make; the rest was judged before.
        Err(found) => found,
    };
    let told = found.into_iter().filter(|remark| remark.severity > Severity::Note);
    let remarks: Vec<Remark> = told
        .map(|remark| Remark { is_error: remark.severity == Severity::Error, text: remark.to_string() })
        .collect();
    let mut out = Vec::new();
    frame::push_message(&mut out, &remarks)?;
    io::stdout().lock().write_all(&out)
}
