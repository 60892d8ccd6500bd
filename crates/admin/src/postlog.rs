//! `postlog`: writes lines of scripts into the mail log.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use config::{Config, param};
use ipc::log::{self, Destination, Facility, Level};

use crate::command::{self, Exit, Failure};

const PROGRAM: &str = "postlog";

/// How much of a line is taken; the log has a limit of its own below it.
const MAX_LINE: u64 = 64 * 1024;

/// A script that has reported its end is not started again at once, as it is with every program of the suite.
const PAUSE_AFTER_FATAL: Duration = Duration::from_secs(1);

/// Writes text, or each line of standard input, into the mail log.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct CommandLine {
    /// Directory of main.cf.
    #[arg(short = 'c', value_name = "DIR")]
    config_directory: Option<PathBuf>,
    /// Accepted for compatibility: the process id is always logged.
    #[arg(short = 'i')]
    _process_id: bool,
    /// How bad it is.
    #[arg(short = 'p', value_name = "PRIORITY", default_value = "info", ignore_case = true)]
    priority: Priority,
    /// The name at the beginning of the line.
    #[arg(short = 't', value_name = "TAG")]
    tag: Option<String>,
    /// Accepted for compatibility.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    _verbose: u8,
    /// One line of the log.
    text: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Priority {
    Info,
    #[value(alias = "warning")]
    Warn,
    Error,
    Fatal,
    Panic,
}

impl Priority {
    fn level(self) -> Level {
        match self {
            Self::Info => Level::Info,
            Self::Warn => Level::Warning,
            Self::Error => Level::Error,
            Self::Fatal => Level::Fatal,
            Self::Panic => Level::Panic,
        }
    }
}

/// Runs the command. The log is what it is for, so that its own problems are told on standard error alone.
#[must_use]
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Nobody can be told that standard error is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    match act(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::fatal!("{PROGRAM}: {}", failure.text);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn act(line: CommandLine) -> Result<(), Failure> {
    let config = command::configuration(line.config_directory)?;
    log::init_daemon(destination(&config, line.tag));
    let level = line.priority.level();
    if line.text.is_empty() {
        each_line(io::stdin().lock(), |text| log::line(level, format_args!("{text}")))
            .map_err(|error| Failure::new(Exit::System, format!("read standard input: {error}")))?;
    } else {
        log::line(level, format_args!("{}", line.text.join(" ")));
    }
    log::flush();
    if matches!(level, Level::Fatal | Level::Panic) {
        std::thread::sleep(PAUSE_AFTER_FATAL);
    }
    Ok(())
}

/// The file that the daemons log to, where this user may write to it; else syslog. A terminal sees the lines, too.
fn destination(config: &Config, tag: Option<String>) -> Destination {
    let path: PathBuf = config.get(param::MAILLOG_FILE);
    let open = || OpenOptions::new().append(true).open(&path);
    let file = if path.as_os_str().is_empty() { None } else { open().ok() };
    Destination {
        name: tag.unwrap_or_else(|| format!("{}/{PROGRAM}", config.get(param::SYSLOG_NAME))),
        file,
        facility: Facility::from_name(&config.get(param::SYSLOG_FACILITY)).unwrap_or(Facility::MAIL),
        stderr: io::stderr().is_terminal(),
    }
}

/// Calls `take` for each line that is not empty. A line without an end is cut, so that it cannot fill the memory.
fn each_line(input: impl Read, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    while (&mut input).take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if !text.is_empty() {
            take(text);
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_input_is_a_line_of_the_log() {
        let mut lines = Vec::new();
        each_line("one\r\n\ntwo".as_bytes(), |text| lines.push(text.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn priorities_have_the_names_of_postfix() {
        let priority =
            |name: &str| CommandLine::try_parse_from(["postlog", "-i", "-p", name, "x"]).unwrap().priority;
        assert_eq!(
            (priority("warn"), priority("Warning"), priority("fatal")),
            (Priority::Warn, Priority::Warn, Priority::Fatal)
        );
        assert!(CommandLine::try_parse_from(["postlog", "-p", "loud", "x"]).is_err());
    }
}
