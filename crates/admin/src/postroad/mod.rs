//! The `postroad` command: what `postfix` is to Postfix.

mod ban;
mod check;
mod control;
mod doctor;
mod import;
mod import_queue;
#[doc(hidden)]
pub use import_queue::records_in;
mod start;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use config::Config;

/// Starts, stops and watches over the Postroad mail system.
#[derive(Debug, Parser)]
#[command(name = "postroad", version, disable_help_subcommand = true)]
struct CommandLine {
    /// Directory of main.cf and master.cf.
    #[arg(short = 'c', value_name = "DIR", env = "MAIL_CONFIG", default_value = "/etc/postroad")]
    config_directory: PathBuf,
    /// Accepted for compatibility; what is wrong is always said.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    _verbose: u8,
    /// Accepted for compatibility.
    #[arg(short = 'D')]
    _debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, make what is missing of the queue, start the mail system.
    Start,
    /// As start, without leaving the foreground; for containers and supervisors.
    StartFg,
    /// Finish sessions and deliveries, then end.
    Stop,
    /// End at once.
    Abort,
    /// Go over to the configuration as it is now; with an error in it, the running one is kept.
    Reload,
    /// Try all deferred mail now.
    Flush,
    /// Say what is wrong with the configuration, the tables and the folders; exit status 1 for errors.
    // What scripts have Postfix do after an upgrade is done by the check: it makes folders and sets their owners and modes.
    #[command(aliases = ["set-permissions", "upgrade-configuration"])]
    Check,
    /// What runs, since when, how busy; exit status 1 if nothing does.
    Status,
    /// Open maillog_file anew, after it was renamed.
    Logrotate,
    /// Take over Postfix's configuration.
    Import(import::Options),
    /// Take over the mail that is still in Postfix's queue.
    ImportQueue(import_queue::Options),
    /// Look for what is wrong: ports, DNS records, certificates, relaying, folders, clock.
    #[command(disable_help_flag = true)]
    Doctor {
        /// The options of doctor(8).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Show, add and lift bans of clients.
    Ban {
        #[command(subcommand)]
        action: ban::Action,
    },
}

/// Why a command failed, as lines for the operator.
type Failure = Vec<String>;

/// Runs the command.
pub fn run() -> ExitCode {
    let line = CommandLine::parse();
    let result = match line.command {
        Command::Start => start::start(&line.config_directory),
        Command::StartFg => start::start_in_foreground(&line.config_directory),
        Command::Check => check::check(&line.config_directory),
        Command::Stop => control::stop(&line.config_directory),
        Command::Abort => control::abort(&line.config_directory),
        Command::Reload => control::reload(&line.config_directory),
        Command::Flush => control::flush(&line.config_directory),
        Command::Status => control::status(&line.config_directory),
        Command::Logrotate => control::reopen_log(&line.config_directory),
        Command::Doctor { arguments } => doctor::doctor(&line.config_directory, &arguments),
        Command::Import(options) => return import::run(&line.config_directory, &options),
        Command::ImportQueue(options) => return import_queue::run(&line.config_directory, &options),
        Command::Ban { action } => ban::run(&line.config_directory, action),
    };
    match result {
        Ok(lines) => {
            print(&lines);
            ExitCode::SUCCESS
        }
        Err(lines) => complain(&lines),
    }
}

fn print(lines: &[String]) {
    // A reader that closed the pipe has seen what it wanted.
    let mut out = io::stdout().lock();
    lines.iter().for_each(|line| drop(writeln!(out, "{line}")));
}

fn complain(lines: &[String]) -> ExitCode {
    let mut out = io::stderr().lock();
    lines.iter().for_each(|line| drop(writeln!(out, "postroad: {}", config::without_numbers(line))));
    ExitCode::FAILURE
}

/// What main.cf says, without a judgement on it: a mail system that runs must be
/// reachable whatever the files have become. A file that cannot be read at all leaves nothing to go by.
fn readable(config_directory: &std::path::Path) -> Result<Config, Failure> {
    Config::load_readable(config_directory).map_err(|error| vec![error.to_string()])
}
