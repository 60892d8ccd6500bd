//! `postqueue`: list the queue, or have it tried now. Users may run it; it is set-gid so that it may talk to showq and qmgr.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{ArgGroup, Parser};
use config::{Config, Param, param};
use ipc::asking;
use ipc::queue_manager::{Client, Word};
use lookup::MatchList;
use mail::QueueId;
use nix::unistd::{User, getuid};
use queue::{ReadOnly, Root};

use crate::command::{self, Exit, Failure};
use crate::queue_list::{JsonListing, Listing, Part, TextListing, connection, read};

const PROGRAM: &str = "postqueue";

/// Lists the mail queue, or has queued mail tried at once.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, group = ArgGroup::new("what").required(true))]
struct CommandLine {
    /// Directory of main.cf.
    #[arg(short = 'c', value_name = "DIR")]
    config_directory: Option<PathBuf>,
    /// Try all deferred mail now.
    #[arg(short = 'f', group = "what")]
    flush: bool,
    /// Try this message now.
    #[arg(short = 'i', value_name = "QUEUE_ID", group = "what")]
    flush_message: Option<String>,
    /// List the queue as JSON, one object a line.
    #[arg(short = 'j', group = "what")]
    json: bool,
    /// List the queue as mailq does.
    #[arg(short = 'p', group = "what")]
    print: bool,
    /// Try the mail for this domain now.
    #[arg(short = 's', value_name = "SITE", group = "what")]
    flush_site: Option<String>,
    /// Accepted for compatibility.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    _verbose: u8,
}

/// Runs the command.
#[must_use]
pub fn run() -> ExitCode {
    command::run(PROGRAM, |line: CommandLine| {
        let word = word(&line)?;
        let config = command::configuration(line.config_directory)?;
        match word {
            Some(word) => flush(&config, &word),
            None => show(&config, line.json),
        }
    })
}

/// What qmgr is to be told, unless the queue is to be listed.
fn word(line: &CommandLine) -> Result<Option<Word>, Failure> {
    if line.flush {
        return Ok(Some(Word::Flush));
    }
    if let Some(id) = &line.flush_message {
        let wrong = |error| Failure::new(Exit::Usage, format!("flush queue id {id}: {error}"));
        return Ok(Some(Word::FlushMessage(id.parse::<QueueId>().map_err(wrong)?)));
    }
    let Some(site) = &line.flush_site else { return Ok(None) };
    let is_literal = site.starts_with('[') && site.ends_with(']');
    let is_right =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_') || is_literal && ":[]".contains(c);
    if site.is_empty() || !site.chars().all(is_right) {
        let text = format!("flush mail for {site:?}: expected a domain, or an address in []");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(Some(Word::FlushSite(site.clone())))
}

fn flush(config: &Config, word: &Word) -> Result<(), Failure> {
    authorize(config, param::AUTHORIZED_FLUSH_USERS, "flush the queue")?;
    if let Word::FlushSite(site) = word {
        may_be_asked_for(config, site)?;
    }
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    if *word == Word::Flush {
        // Submissions that cleanup could not take wait for pickup's next round; that somebody connects begins it. A
        // pickup that is not there looks by itself when it starts.
        let pickup = ipc::socket_path(&queue_directory, false, &config.get(param::PICKUP_SERVICE_NAME));
        let _ = UnixStream::connect(pickup);
    }
    let socket = ipc::socket_path(&queue_directory, false, &config.get(param::QUEUE_SERVICE_NAME));
    Client::new(socket.clone()).say(word).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Failure::new(Exit::Unavailable, "flush the queue: the mail system is down")
        }
        _ => Failure::new(
            Exit::Unavailable,
            format!("flush the queue: connect to {}: {error}", socket.display()),
        ),
    })
}

/// Whether mail for this domain may be asked for: the queue manager knows what waits for those in
/// `fast_flush_domains` only.
fn may_be_asked_for(config: &Config, site: &str) -> Result<(), Failure> {
    let list = MatchList::fast_flush_domains(config);
    let list = list.map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    match list.matches_domain(&site.to_lowercase()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let text = format!("flush mail for {site}: fast_flush_domains does not have this domain");
            Err(Failure::new(Exit::Unavailable, text))
        }
        Err(error) => Err(Failure::new(Exit::Unavailable, format!("flush mail for {site}: {error}"))),
    }
}

fn show(config: &Config, json: bool) -> Result<(), Failure> {
    authorize(config, param::AUTHORIZED_MAILQ_USERS, "see the queue")?;
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let listed = if json {
        list(config, &mut JsonListing::new(&mut out))
    } else {
        list(config, &mut TextListing::new(&mut out, ipc::log::zone()))
    };
    let written = out.flush().map_err(ListError::Output);
    match listed.and(written) {
        Ok(()) => Ok(()),
        Err(ListError::Failure(failure)) => Err(failure),
        Err(ListError::Output(error)) => Failure::of_output(&error).map_or(Ok(()), Err),
    }
}

/// Why a listing is not complete.
enum ListError {
    Failure(Failure),
    /// Standard output takes no more.
    Output(io::Error),
}

/// From showq; from the disk, where the mail system is down and the user may read the queue.
fn list(config: &Config, listing: &mut impl Listing) -> Result<(), ListError> {
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let socket = ipc::socket_path(&queue_directory, false, &config.get(param::SHOWQ_SERVICE_NAME));
    match asking::connect(&socket, asking::patience(config)) {
        Ok(stream) => receive(config, &stream, listing),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            let root = Root::open(&queue_directory).map_err(|e| down(&e))?;
            let queue = root.read_only().map_err(|e| down(&e))?;
            read_from_disk(config, &queue, listing)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(no_answer(config)),
        Err(error) => Err(failed(
            Exit::Unavailable,
            format!("list the queue: connect to {}: {error}", socket.display()),
        )),
    }
}

/// A thread of this process does what showq would.
fn read_from_disk(config: &Config, queue: &ReadOnly, listing: &mut impl Listing) -> Result<(), ListError> {
    let null_sender = config.get(param::EMPTY_ADDRESS_RECIPIENT);
    let (mut here, there) = UnixStream::pair().map_err(|error| down(&error))?;
    thread::scope(|scope| {
        // Who has seen enough closes the other end, and the listing ends.
        scope.spawn(move || drop(read::list(queue, &null_sender, &mut here)));
        let received = receive(config, &there, listing);
        drop(there);
        received
    })
}

fn no_answer(config: &Config) -> ListError {
    let seconds = asking::patience(config).as_secs();
    let text = format!("list the queue: showq says nothing for {seconds} seconds; the mail log may say why");
    failed(Exit::Unavailable, text)
}

fn receive(config: &Config, stream: &UnixStream, listing: &mut impl Listing) -> Result<(), ListError> {
    // What goes wrong at standard output is told apart from what goes wrong at the socket.
    let mut output = Ok(());
    let received = connection::receive(stream, &mut |part: Part<'_>| {
        output = listing.take(part);
        if output.is_ok() { Ok(()) } else { Err(ErrorKind::Other.into()) }
    });
    output.map_err(ListError::Output)?;
    received.map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => {
            failed(Exit::Unavailable, "the listing was cut off; the mail log says why")
        }
        ErrorKind::WouldBlock => no_answer(config),
        _ => failed(Exit::Unavailable, format!("list the queue: read from showq: {error}")),
    })
}

fn failed(exit: Exit, text: impl Into<String>) -> ListError {
    ListError::Failure(Failure::new(exit, text))
}

fn down(error: &dyn std::fmt::Display) -> ListError {
    let text = format!("the mail system is down, and the queue cannot be read directly: {error}");
    failed(Exit::Unavailable, text)
}

/// Whether the user is in the list; root and the owner of everything always are.
fn authorize(config: &Config, list: Param<Vec<String>>, what: &str) -> Result<(), Failure> {
    let items = config.get(list);
    // So almost everywhere; spares the question who this is.
    if getuid().is_root() || items.first().is_some_and(|item| item.starts_with("static:")) {
        return Ok(());
    }
    let list =
        MatchList::strings(list.name(), &items).map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
    let user = User::from_uid(getuid()).ok().flatten().map_or_else(|| "unknown".into(), |user| user.name);
    match list.matches(&user) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Exit::NotPermitted, format!("user {user} may not {what}"))),
        Err(error) => Err(Failure::new(Exit::Unavailable, error.to_string())),
    }
}
