//! `postcat`: a queue file, every part of it, for people to read.

mod envelope;
mod header;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use config::param;
use ipc::log;
use mail::QueueId;
use queue::{QueueError, Root, Stored};

use crate::command::{self, Exit, Failure};

const PROGRAM: &str = "postcat";

/// Shows queue files: envelope, content and delivery attempts; with -b, -e or -h only those parts.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, disable_help_flag = true)]
struct CommandLine {
    /// Show the body.
    #[arg(short = 'b')]
    body: bool,
    /// Directory of main.cf.
    #[arg(short = 'c', value_name = "DIR")]
    config_directory: Option<PathBuf>,
    /// Show the envelope and the delivery attempts.
    #[arg(short = 'e')]
    envelope: bool,
    /// Show the header.
    #[arg(short = 'h')]
    header: bool,
    /// Show where in the file each part begins.
    #[arg(short = 'o')]
    offsets: bool,
    /// The files are queue ids, to be looked for in the queue.
    #[arg(short = 'q')]
    queue: bool,
    /// Accepted for compatibility: there are no records that point elsewhere.
    #[arg(short = 'r')]
    _raw: bool,
    /// Without meaning here, and said to be so.
    #[arg(short = 'd', hide = true)]
    decimal: bool,
    /// Without meaning here, and said to be so.
    #[arg(short = 's', value_name = "OFFSET", hide = true)]
    skip: Option<String>,
    /// Accepted for compatibility.
    #[arg(short = 'v', action = ArgAction::Count)]
    _verbose: u8,
    /// Show this help.
    #[arg(long = "help", action = ArgAction::Help)]
    help: Option<bool>,
    /// Files or queue ids; without any, standard input, which must be a file.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs the command.
#[must_use]
pub fn run() -> ExitCode {
    command::run(PROGRAM, |line: CommandLine| {
        for (name, given) in [("-d", line.decimal), ("-s", line.skip.is_some())] {
            if given {
                let text = "a queue file is not made of records throughout (postroad-queue(5)); -o shows where its parts begin";
                return Err(Failure::new(Exit::Usage, format!("{name}: {text}")));
            }
        }
        let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        let mut failures = Vec::new();
        for (name, stored) in sources(&line)? {
            let shown = stored.and_then(|stored| show(&line, &name, &stored, &mut out));
            match shown {
                Ok(()) => {}
                Err(ShowError::Queue(failure)) => failures.push(failure),
                Err(ShowError::Output(error)) => return Failure::of_output(&error).map_or(Ok(()), Err),
            }
        }
        if let Err(error) = out.flush() {
            return Failure::of_output(&error).map_or(Ok(()), Err);
        }
        // All are told; the last one gives the exit code.
        let last = failures.pop();
        failures.iter().for_each(|failure| log::error!("{}", failure.text));
        last.map_or(Ok(()), Err)
    })
}

/// Why a file is not shown whole.
enum ShowError {
    Queue(Failure),
    /// Standard output takes no more.
    Output(io::Error),
}

impl From<io::Error> for ShowError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<QueueError> for ShowError {
    fn from(error: QueueError) -> Self {
        let exit = match error {
            QueueError::NotFound(_) => Exit::NoInput,
            QueueError::Damaged { .. } => Exit::Data,
            _ => Exit::System,
        };
        Self::Queue(Failure::new(exit, error.to_string()))
    }
}

fn read_failed(error: &io::Error) -> ShowError {
    ShowError::Queue(Failure::new(Exit::System, format!("read the queue file: {error}")))
}

/// A name to show, and the file if it could be opened.
type Source = (String, Result<Stored, ShowError>);

fn sources(line: &CommandLine) -> Result<Vec<Source>, Failure> {
    if !line.queue {
        if line.files.is_empty() {
            let name = "standard input";
            let file = File::open("/dev/stdin")
                .map_err(|error| Failure::new(Exit::NoInput, format!("{name}: {error}")));
            return Ok(vec![(name.into(), open(name.as_ref(), file))]);
        }
        let open = |path: &PathBuf| {
            let file = File::open(path);
            let file = file.map_err(|e| Failure::new(Exit::NoInput, format!("open {}: {e}", path.display())));
            (path.display().to_string(), open(path, file))
        };
        return Ok(line.files.iter().map(open).collect());
    }
    let config = command::configuration(line.config_directory.clone())?;
    let directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Unavailable, format!("open the queue: {error}"));
    let queue = Root::open(&directory).map_err(|e| failed(&e))?.read_only().map_err(|e| failed(&e))?;
    let find = |name: &PathBuf| {
        let name = name.display().to_string();
        let Ok(id) = name.parse::<QueueId>() else {
            let failure =
                Failure::new(Exit::Usage, format!("{name}: not a queue id: 5 to 24 letters and digits"));
            return (name, Err(ShowError::Queue(failure)));
        };
        match queue.find(id) {
            Ok((folder, stored)) => (format!("{folder}/{id}"), Ok(stored)),
            Err(error) => (name, Err(error.into())),
        }
    };
    Ok(line.files.iter().map(find).collect())
}

fn open(path: &Path, file: Result<File, Failure>) -> Result<Stored, ShowError> {
    Ok(Stored::from_file(file.map_err(ShowError::Queue)?, path)?)
}

fn show(line: &CommandLine, name: &str, stored: &Stored, out: &mut impl Write) -> Result<(), ShowError> {
    let everything = !(line.body || line.envelope || line.header);
    let [at_envelope, _, at_content, at_journal] = stored.offsets();
    let title = |out: &mut dyn Write, text: &str, offset: u64| {
        if line.offsets {
            write!(out, "{offset:>9} ")?;
        }
        writeln!(out, "*** {text} {name} ***")
    };
    let envelope = everything || line.envelope;
    if envelope {
        title(out, "ENVELOPE RECORDS", at_envelope)?;
        envelope::write(stored, out)?;
    }
    if everything || line.body || line.header {
        if envelope {
            title(out, "MESSAGE CONTENTS", at_content)?;
        }
        let (header, body) = (everything || line.header, everything || line.body);
        header::write(&stored.content(), header, body, out)?;
        if let Err(error) = stored.verify_content() {
            log::warning!("{error}");
        }
    }
    if envelope {
        title(out, "DELIVERY ATTEMPTS", at_journal)?;
        envelope::write_attempts(stored, out)?;
        title(out, "MESSAGE FILE END", at_journal)?;
    }
    Ok(())
}
