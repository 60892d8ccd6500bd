//! `sendmail`, `mailq` and `newaliases`: one program under three names, as in Sendmail.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::dialogue;
use crate::failure::{Exit, Failure, warn};
use crate::options::{CommandLine, Flush, Mode};
use crate::settings::{Settings, chosen_directory};
use crate::submission;

pub(crate) const PROGRAM: &str = "sendmail";

/// `sendmail`; what it does also depends on the name it is called by. Returns the exit code.
#[must_use]
pub fn sendmail() -> u8 {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mode = match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("mailq") => Mode::ListQueue,
        Some("newaliases") => Mode::BuildAliases,
        _ => Mode::Submit,
    };
    run(mode, arguments)
}

/// `mailq`, as a program of its own.
#[must_use]
pub fn mailq() -> ExitCode {
    run(Mode::ListQueue, std::env::args_os().skip(1)).into()
}

/// `newaliases`, as a program of its own.
#[must_use]
pub fn newaliases() -> ExitCode {
    run(Mode::BuildAliases, std::env::args_os().skip(1)).into()
}

fn run(mode: Mode, arguments: impl Iterator<Item = OsString>) -> u8 {
    match act(mode, arguments) {
        Ok(()) => 0,
        Err(failure) => failure.report(PROGRAM),
    }
}

fn act(mode: Mode, arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let mut line = CommandLine::parse(mode, arguments)?;
    for warning in &line.warnings {
        warn(PROGRAM, warning);
    }
    let settings = Settings::load(&chosen_directory(line.config_directory.take()))?;
    match &line.mode {
        Mode::Submit => {
            refuse_verp(&line)?;
            submission::submit(&line, &settings, std::io::stdin().lock())
        }
        Mode::Verify => submission::probe(&line, &settings),
        Mode::ListQueue => become_command(&settings, "postqueue", &["-p"]),
        Mode::Flush(Flush::All) => become_command(&settings, "postqueue", &["-f"]),
        Mode::Flush(Flush::Message(id)) => become_command(&settings, "postqueue", &["-i", id]),
        Mode::Flush(Flush::Site(site)) => become_command(&settings, "postqueue", &["-s", site]),
        Mode::Start => become_command(&settings, "postroad", &["start"]),
        Mode::BuildAliases => build_aliases(&line, &settings),
        Mode::Nothing => Ok(()),
        Mode::Smtp => dialogue::serve(&settings),
    }
}

fn refuse_verp(line: &CommandLine) -> Result<(), Failure> {
    match line.verp {
        None => Ok(()),
        Some(_) => {
            Err(not_offered("-XV (a return path for each recipient)", "send each message with its own -f"))
        }
    }
}

fn not_offered(what: &str, instead: &str) -> Failure {
    Failure::new(Exit::Unavailable, format!("{what} is not offered; {instead}"))
}

/// `-oA` names one database, else all that `alias_database` lists are built.
fn build_aliases(line: &CommandLine, settings: &Settings) -> Result<(), Failure> {
    let databases = line.alias_database.clone().map_or_else(|| settings.alias_databases(), |one| vec![one]);
    if databases.is_empty() {
        return Ok(());
    }
    let arguments: Vec<&str> = std::iter::once("--").chain(databases.iter().map(String::as_str)).collect();
    become_command(settings, "postalias", &arguments)
}

/// Becomes another program of the suite, for the same instance; returns only if that fails.
fn become_command(settings: &Settings, name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let program = settings.command(name);
    let error = Command::new(&program).args(arguments).env("MAIL_CONFIG", settings.directory()).exec();
    Err(Failure::new(Exit::Unavailable, format!("run {}: {error}", program.display())))
}
