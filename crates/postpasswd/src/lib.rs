//! `postpasswd`: keeps the table of passwords that `smtpd_sasl_type = postroad` checks logins against.
//!
//! Contract: passwords come from the terminal or from standard input, never from the command line, and never go to a
//! log. The table is replaced as a whole: whoever reads it sees the old one or the new one. Two commands at a time wait
//! for each other.

mod entry;
mod file;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use config::{Config, param};
use nix::unistd::{User as SystemUser, geteuid};
use passwords::{Scheme, Table, User};

use file::Locked;

const PROGRAM: &str = "postpasswd";

/// Keeps the table of passwords that smtpd checks logins against.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct CommandLine {
    /// Directory of main.cf.
    #[arg(short = 'c', value_name = "DIR", env = "MAIL_CONFIG")]
    config_directory: Option<PathBuf>,
    /// The table, instead of the one that `smtpd_sasl_path` names.
    #[arg(short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Adds a user.
    Add {
        /// As it is said at login: joe, or joe@example.com.
        name: String,
        #[command(flatten)]
        schemes: Schemes,
    },
    /// Gives a user another password.
    Change {
        name: String,
        #[command(flatten)]
        schemes: Schemes,
    },
    /// Removes a user.
    Delete { name: String },
    /// Lets a user in no more, and keeps the password.
    Lock { name: String },
    /// Lets a user in again.
    Unlock { name: String },
    /// Says whether a password is right, by exit code 0 or 1.
    Verify { name: String },
    /// Shows the users, their flags, and what their passwords are kept as.
    List,
}

/// What passwords are kept as.
#[derive(Debug, clap::Args)]
struct Schemes {
    /// Can be given more than once. Without it: argon2id and scram-sha-256.
    #[arg(short = 's', long = "scheme", value_enum)]
    scheme: Vec<SchemeName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemeName {
    Argon2id,
    #[value(name = "sha512-crypt")]
    Sha512Crypt,
    #[value(name = "scram-sha-256")]
    ScramSha256,
    #[value(name = "scram-sha-1")]
    ScramSha1,
}

impl Schemes {
    fn all(&self) -> Vec<Scheme> {
        if self.scheme.is_empty() {
            return vec![Scheme::Argon2id, Scheme::ScramSha256];
        }
        let scheme = |name: &SchemeName| match name {
            SchemeName::Argon2id => Scheme::Argon2id,
            SchemeName::Sha512Crypt => Scheme::Sha512Crypt,
            SchemeName::ScramSha256 => Scheme::ScramSha256,
            SchemeName::ScramSha1 => Scheme::ScramSha1,
        };
        self.scheme.iter().map(scheme).collect()
    }
}

/// Why a command ends without having done its work; the codes of sysexits.h.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    /// No such user, or one too many (`EX_NOUSER`).
    fn user(text: String) -> Self {
        Self { code: 67, text }
    }

    /// What the user gave is not right (`EX_DATAERR`).
    pub(crate) fn data(text: String) -> Self {
        Self { code: 65, text }
    }

    /// A file (`EX_OSERR`).
    pub(crate) fn file(doing: &str, path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self { code: 71, text: format!("{doing} {}: {error}", path.display()) }
    }
}

/// Runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match act(&line) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{PROGRAM}: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn act(line: &CommandLine) -> Result<bool, Failure> {
    let place = place(line);
    match &line.action {
        Action::List => list(&file::read(place.path()?)?),
        Action::Verify { name } => {
            let table = file::read(place.path()?)?;
            let user = find(&table, name)?;
            let password = entry::ask_once(name)?;
            return Ok(!user.locked && user.opens_with(&password));
        }
        Action::Add { name, schemes } => {
            let mut locked = place.lock()?;
            if locked.table.user(name).is_some() {
                return Err(Failure::user(format!(
                    "{name} is there already; \"change\" gives another password"
                )));
            }
            put(&mut locked, name, schemes, false)?;
            locked.replace()?;
        }
        Action::Change { name, schemes } => {
            let mut locked = place.lock()?;
            let was_locked = find(&locked.table, name)?.locked;
            put(&mut locked, name, schemes, was_locked)?;
            locked.replace()?;
        }
        Action::Delete { name } => {
            let mut locked = place.lock()?;
            find(&locked.table, name)?;
            locked.table.remove(name);
            locked.replace()?;
        }
        Action::Lock { name } => set_locked(&place, name, true)?,
        Action::Unlock { name } => set_locked(&place, name, false)?,
    }
    Ok(true)
}

/// The table that is meant: the one of main.cf is relative to its directory. A mistake in main.cf keeps nobody from it.
fn place(line: &CommandLine) -> Place {
    let default = || PathBuf::from(param::CONFIG_DIRECTORY.row().default);
    let directory = line.config_directory.clone().unwrap_or_else(default);
    let config = Config::load_regardless(&directory);
    let path = line.file.clone().or_else(|| {
        let is_ours = config.get(param::SMTPD_SASL_TYPE) == "postroad";
        is_ours.then(|| directory.join(config.get(param::SMTPD_SASL_PATH)))
    });
    // What root makes must be readable to smtpd.
    let owner = SystemUser::from_name(&config.get(param::MAIL_OWNER)).ok().flatten();
    let group = owner.filter(|_| geteuid().is_root()).map(|owner| owner.gid.as_raw());
    Place { path, group, main_cf: directory.join("main.cf") }
}

struct Place {
    path: Option<PathBuf>,
    group: Option<u32>,
    main_cf: PathBuf,
}

impl Place {
    fn path(&self) -> Result<&Path, Failure> {
        self.path.as_deref().ok_or_else(|| Failure {
            code: 78,
            text: format!(
                "{}: smtpd_sasl_type is not postroad, so that main.cf names no table; name one with -f",
                self.main_cf.display()
            ),
        })
    }

    fn lock(&self) -> Result<Locked, Failure> {
        Locked::open(self.path()?, self.group)
    }
}

fn find<'a>(table: &'a Table, name: &str) -> Result<&'a User, Failure> {
    table.user(name).ok_or_else(|| Failure::user(format!("there is no user {name}")))
}

fn put(locked: &mut Locked, name: &str, schemes: &Schemes, was_locked: bool) -> Result<(), Failure> {
    let password = entry::ask_twice(name)?;
    let mut user = User::new(&password, &schemes.all()).map_err(Failure::data)?;
    user.locked = was_locked;
    locked.table.insert(name, user).map_err(|error| Failure::data(error.to_string()))
}

fn set_locked(place: &Place, name: &str, to: bool) -> Result<(), Failure> {
    let mut locked = place.lock()?;
    match locked.table.user_mut(name) {
        Some(user) => user.locked = to,
        None => return Err(Failure::user(format!("there is no user {name}"))),
    }
    locked.replace()
}

fn list(table: &Table) {
    let mut out = std::io::stdout().lock();
    for (name, user) in table.users() {
        let flags = if user.locked { " locked" } else { "" };
        // Whoever reads the list may stop reading it.
        let _ = writeln!(out, "{name}{flags} {}", user.schemes().collect::<Vec<_>>().join(","));
    }
}
