//! `postsuper`: the operator deletes, holds, releases, requeues and expires messages, and puts the queue in order.

mod action;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser};
use config::{Config, param};
use ipc::log;
use ipc::queue_manager::{Client, Word};
use mail::QueueId;
use queue::{Folder, Operator, QueueError, Root};

use crate::command::{self, Exit, Failure, messages, queue_failed};
use action::Action;

const PROGRAM: &str = "postsuper";

/// Files that were never finished are left alone for so long: their writer may be a slow client's cleanup.
const UNFINISHED_AGE: Duration = Duration::from_secs(3600);

/// Longer lines than this are no queue ids.
const MAX_LINE: u64 = 1000;

/// Deletes, holds, releases, requeues and expires messages; checks the structure of the queue.
///
/// QUEUE_ID may be ALL, or - to read ids from standard input. Without any option: -ps.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, disable_help_flag = true)]
struct CommandLine {
    /// Directory of main.cf.
    #[arg(short = 'c', value_name = "DIR")]
    config_directory: Option<PathBuf>,
    /// Delete a message.
    #[arg(short = 'd', value_name = "QUEUE_ID")]
    delete: Vec<String>,
    /// Have a message returned to its sender at its next attempt.
    #[arg(short = 'e', value_name = "QUEUE_ID")]
    expire: Vec<String>,
    /// As -e, and release the message if it is on hold.
    #[arg(short = 'f', value_name = "QUEUE_ID")]
    expire_and_release: Vec<String>,
    /// Put a message on hold.
    #[arg(short = 'h', value_name = "QUEUE_ID")]
    hold: Vec<String>,
    /// Release a message from hold.
    #[arg(short = 'H', value_name = "QUEUE_ID")]
    release: Vec<String>,
    /// Have a message routed and tried anew.
    #[arg(short = 'r', value_name = "QUEUE_ID")]
    requeue: Vec<String>,
    /// Remove files that a crash left unfinished.
    #[arg(short = 'p')]
    purge: bool,
    /// Put misplaced files where they belong.
    #[arg(short = 's')]
    structure: bool,
    /// As -s.
    #[arg(short = 'S')]
    structure_too: bool,
    /// Accepted for compatibility.
    #[arg(short = 'v', action = ArgAction::Count)]
    _verbose: u8,
    /// Show this help.
    #[arg(long = "help", action = ArgAction::Help)]
    help: Option<bool>,
    /// The queues to look at: hold, incoming, active, deferred, corrupt.
    #[arg(value_name = "QUEUE", value_parser = folder)]
    folders: Vec<Folder>,
}

fn folder(name: &str) -> Result<Folder, String> {
    name.parse().map_err(|()| "no such queue: expected hold, incoming, active, deferred or corrupt".into())
}

/// Runs the command.
#[must_use]
pub fn run() -> ExitCode {
    command::run(PROGRAM, |line: CommandLine| {
        let config = command::configuration(line.config_directory.clone())?;
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let not_permitted = |error: &dyn std::fmt::Display| {
            let hint = "this command is for the superuser and the owner of the queue";
            Failure::new(Exit::NotPermitted, format!("{error}; {hint}"))
        };
        let root = Root::open(&queue_directory).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("open {}: {error}", queue_directory.display()))
        })?;
        let operator = root.operator().map_err(|error| match &error {
            QueueError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                not_permitted(&error)
            }
            _ => Failure::new(Exit::Unavailable, error.to_string()),
        })?;
        put_in_order(&line, &operator)?;
        act(&line, &operator, &config)
    })
}

/// `-p` and `-s` come before everything else.
fn put_in_order(line: &CommandLine, operator: &Operator) -> Result<(), Failure> {
    let failed = queue_failed(Exit::System);
    let nothing_asked = actions(line).all(|(_, ids)| ids.is_empty());
    let structure = line.structure || line.structure_too;
    let by_default = nothing_asked && !line.purge && !structure;
    if line.purge || by_default {
        let removed = operator.purge(UNFINISHED_AGE).map_err(|error| failed(&error))?;
        if removed > 0 {
            log::info!("Unfinished files removed: {removed}");
        }
    }
    if structure || by_default {
        let repaired = operator.repair().map_err(|error| failed(&error))?;
        for stranger in &repaired.strangers {
            log::warning!("{stranger}: not a queue file; left alone");
        }
        if repaired.moved > 0 {
            log::info!("Put where they belong: {}", messages(repaired.moved));
        }
    }
    Ok(())
}

fn actions(line: &CommandLine) -> impl Iterator<Item = (Action, &[String])> {
    let all: [(Action, &[String]); 6] = [
        (Action::Delete, &line.delete),
        (Action::Expire, &line.expire),
        (Action::ExpireAndRelease, &line.expire_and_release),
        (Action::Hold, &line.hold),
        (Action::Release, &line.release),
        (Action::Requeue, &line.requeue),
    ];
    all.into_iter()
}

fn act(line: &CommandLine, operator: &Operator, config: &Config) -> Result<(), Failure> {
    let (mut tell, mut counts) = (false, Vec::new());
    for (action, ids) in actions(line).filter(|(_, ids)| !ids.is_empty()) {
        let mut folders: Vec<Folder> = match &line.folders[..] {
            [] => action.default_folders().to_vec(),
            named => named.iter().copied().filter(|folder| action.applies_to(*folder)).collect(),
        };
        folders.sort();
        let count = Work { operator, action, folders }.all(ids)?;
        counts.push((action, count));
        tell |= count > 0 && action.gives_work();
    }
    if counts.iter().any(|(_, count)| *count > 0) {
        operator.sync().map_err(|error| queue_failed(Exit::System)(&error))?;
    }
    for (action, count) in counts {
        log::info!("{}: {}", action.summary(), messages(count));
    }
    if tell {
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let socket = ipc::socket_path(&queue_directory, false, &config.get(param::QUEUE_SERVICE_NAME));
        // While the mail system is down nobody need be told: qmgr looks when it starts.
        let _ = Client::new(socket).say(&Word::Rescan);
    }
    Ok(())
}

/// One action on messages of these folders.
struct Work<'a> {
    operator: &'a Operator,
    action: Action,
    folders: Vec<Folder>,
}

impl Work<'_> {
    /// The messages that are named, all of them for `ALL`, or those that standard input names for `-`: how many.
    fn all(&self, ids: &[String]) -> Result<u64, Failure> {
        let mut count = 0;
        for id in ids {
            count += match id.as_str() {
                "ALL" => self.whole_folders()?,
                "-" => self.named_by(&mut io::stdin().lock())?,
                id => self.one(id)?,
            };
        }
        Ok(count)
    }

    fn whole_folders(&self) -> Result<u64, Failure> {
        let mut count = 0;
        for folder in &self.folders {
            for id in self.operator.ids(*folder) {
                let id = id.map_err(|error| Failure::new(Exit::System, error.to_string()))?;
                count += self.on(id, &[*folder])?;
            }
        }
        Ok(count)
    }

    fn named_by(&self, input: &mut impl BufRead) -> Result<u64, Failure> {
        let failed = |error: io::Error| Failure::new(Exit::System, format!("read queue ids: {error}"));
        let (mut count, mut line) = (0, Vec::new());
        loop {
            line.clear();
            if io::Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(count);
            }
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() {
                count += self.one(text.trim())?;
            }
        }
    }

    fn one(&self, id: &str) -> Result<u64, Failure> {
        let Ok(id) = id.parse::<QueueId>() else {
            log::warning!("invalid mail queue id: {id}");
            return Ok(0);
        };
        self.on(id, &self.folders)
    }

    /// 1 if it was done, 0 if the message is not there.
    fn on(&self, id: QueueId, folders: &[Folder]) -> Result<u64, Failure> {
        match self.action.perform(self.operator, id, folders) {
            Ok(()) => {
                log::info!("{id}: {}", self.action.done());
                Ok(1)
            }
            Err(QueueError::NotFound(_)) => Ok(0),
            Err(error @ (QueueError::NotReady(_) | QueueError::Damaged { .. })) => {
                log::warning!("{error}; left alone");
                Ok(0)
            }
            Err(error) => Err(Failure::new(Exit::System, error.to_string())),
        }
    }
}
