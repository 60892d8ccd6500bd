//! The program postconf: shows and edits main.cf and master.cf.
//!
//! Contract: what it prints has Postfix's form, so that scripts read it. It looks at a configuration whatever is wrong
//! with it, and says what is wrong on standard error. An edit replaces the file in one step, or changes nothing.

mod edit;
mod format;
mod parameters;
mod services;
mod templates;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use config::{Config, Diagnostic, Severity, Snapshot, param};
use ipc::log;

use crate::command::{self, Exit, Failure};

/// Runs the program. As in Postfix, every failure is the exit code 1: scripts compare.
#[must_use]
pub fn run() -> ExitCode {
    match command::run("postconf", work) {
        ExitCode::SUCCESS => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Show or edit main.cf and master.cf.
#[derive(Parser, Debug)]
#[command(name = "postconf", version, disable_help_flag = true)]
#[allow(clippy::struct_excessive_bools, reason = "one per option letter of a command that scripts know")]
struct Options {
    /// Show this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Show what smtpd_sasl_type may be
    #[arg(short = 'a')]
    server_sasl_types: bool,
    /// Show what smtp_sasl_type may be
    #[arg(short = 'A')]
    client_sasl_types: bool,
    /// Show the texts of notifications as they will be read: those of FILE, else those that main.cf names
    #[arg(short = 'b', group = "template")]
    expanded_templates: bool,
    /// As -b, with $name as it is written
    #[arg(short = 't', group = "template")]
    templates: bool,
    /// The instance's configuration directory
    #[arg(short = 'c', value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Show defaults
    #[arg(short = 'd')]
    defaults: bool,
    /// Set parameters: NAME=VALUE
    #[arg(short = 'e')]
    edit: bool,
    /// Break long lines
    #[arg(short = 'f')]
    fold: bool,
    /// Show or set columns of master.cf: SERVICE/TYPE/COLUMN
    #[arg(short = 'F', group = "master")]
    fields: bool,
    /// Show values without names
    #[arg(short = 'h')]
    values_only: bool,
    /// Show names without values
    #[arg(short = 'H', conflicts_with = "values_only")]
    names_only: bool,
    /// Show the ways in which mailboxes can be locked
    #[arg(short = 'l')]
    locks: bool,
    /// Show the types of lookup tables
    #[arg(short = 'm')]
    map_types: bool,
    /// Show or set services of master.cf: SERVICE/TYPE
    #[arg(short = 'M', group = "master")]
    services: bool,
    /// Show what main.cf sets
    #[arg(short = 'n')]
    non_default: bool,
    /// Settings that win over main.cf
    #[arg(short = 'o', value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// Show main.cf parameters (what is done without an option)
    #[arg(short = 'p')]
    parameters: bool,
    /// Show or set settings of services in master.cf: SERVICE/TYPE/PARAMETER
    #[arg(short = 'P', group = "master")]
    service_parameters: bool,
    /// Only these kinds of parameters: builtin, service, user, all
    #[arg(short = 'C', value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Show facts of the TLS library: compile-version, run-version, public-key-algorithms
    #[arg(short = 'T', value_name = "MODE")]
    tls: Option<TlsFact>,
    /// Say more
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbosity: u8,
    /// Expand $name in values
    #[arg(short = 'x')]
    expand: bool,
    /// Remove definitions
    #[arg(short = 'X', conflicts_with_all = ["edit", "comment_out"])]
    remove: bool,
    /// Turn definitions into comments
    #[arg(short = '#', conflicts_with = "edit")]
    comment_out: bool,
    /// Parameters, services, or assignments
    names: Vec<String>,
}

/// What `-C` selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The suite's own parameters.
    Builtin,
    /// Those that exist once per service of master.cf.
    Service,
    /// Names that main.cf makes up for itself.
    User,
    /// All of these.
    All,
}

/// What `-T` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TlsFact {
    /// The library that was compiled in.
    CompileVersion,
    /// The one that runs: the same.
    RunVersion,
    /// The kinds of keys that certificates may have.
    PublicKeyAlgorithms,
}

impl TlsFact {
    const fn lines(self) -> &'static [&'static str] {
        match self {
            Self::CompileVersion | Self::RunVersion => &["rustls 0.23"],
            Self::PublicKeyAlgorithms => &["ecdsa", "ed25519", "rsa"],
        }
    }
}

fn work(options: Options) -> Result<(), Failure> {
    let directory = directory(options.directory.clone());
    let is_master = options.services || options.fields || options.service_parameters;
    let is_assignment = options.names.iter().any(|name| name.contains('='));
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = if options.map_types {
        lines(&mut out, lookup::types())
    } else if options.server_sasl_types {
        lines(&mut out, &["dovecot", "postroad"])
    } else if options.client_sasl_types {
        lines(&mut out, &["postroad"])
    } else if let Some(fact) = options.tls {
        lines(&mut out, fact.lines())
    } else if options.expanded_templates || options.templates {
        templates::show(&mut out, &directory, &options)?
    } else if options.locks {
        lines(&mut out, &["flock", "fcntl", "dotlock"])
    } else if options.edit || options.remove || options.comment_out || (is_assignment && !options.defaults) {
        return if is_master {
            edit::master_cf(&directory, &options)
        } else {
            edit::main_cf(&directory, &options)
        };
    } else if is_master {
        services::show(&mut out, &directory, &options)?
    } else {
        parameters::show(&mut out, &directory, &options)?
    };
    result.and_then(|()| out.flush()).or_else(|error| Failure::of_output(&error).map_or(Ok(()), Err))
}

fn lines(out: &mut impl Write, lines: &[&str]) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn directory(asked_for: Option<PathBuf>) -> PathBuf {
    let environment = || std::env::var_os("MAIL_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    asked_for.or_else(environment).unwrap_or_else(|| default_directory().to_owned())
}

fn default_directory() -> &'static Path {
    Path::new(param::CONFIG_DIRECTORY.row().default)
}

/// The configuration, whatever is wrong with it.
fn inspect(directory: &Path, options: &Options) -> Result<(Config, Vec<Diagnostic>), Failure> {
    let overrides = options.overrides.iter().map(|text| assignment(text)).collect::<Result<Vec<_>, _>>()?;
    let (snapshot, early) = Snapshot::read(directory).map_err(|remarks| {
        Failure::new(Exit::Config, remarks.first().map_or_else(String::new, ToString::to_string))
    })?;
    let (config, mut remarks) = Config::inspect(directory, &snapshot, &overrides);
    remarks.splice(0..0, early);
    Ok((config, remarks))
}

/// `name=value` in two.
fn assignment(text: &str) -> Result<(String, String), Failure> {
    let wrong = |what: &str| Failure::new(Exit::Usage, format!("“{text}”: {what}"));
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("write NAME=VALUE"))?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(wrong("what stands before “=” must be one name"));
    }
    if value.contains('\n') {
        return Err(wrong("a value is written in one line here"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Says what is wrong, for those remarks that `matters`.
fn tell(remarks: &[Diagnostic], matters: impl Fn(&Diagnostic) -> bool) {
    for remark in remarks.iter().filter(|remark| matters(remark)) {
        match remark.severity {
            Severity::Note => log::info!("{remark}"),
            Severity::Warning => log::warning!("{remark}"),
            Severity::Error => log::error!("{remark}"),
        }
    }
}
