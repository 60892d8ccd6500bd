//! The command line.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use lookup::cdb::Keep;
use lookup::source::Grammar;

use crate::Failure;

/// What is to be done, and how.
pub(crate) struct Options {
    pub(crate) action: Action,
    pub(crate) grammar: Grammar,
    /// The instance that was named; otherwise the usual one, if there is any.
    pub(crate) config_directory: Option<PathBuf>,
    pub(crate) fold: bool,
    /// Values are names of files (-F).
    pub(crate) file_values: bool,
    /// `None`: as the table is, or without.
    pub(crate) nul: Option<bool>,
    /// Stay root even if the source belongs to somebody else.
    pub(crate) keep_root: bool,
    /// A new index gets the mode of its source.
    pub(crate) inherit_mode: bool,
    pub(crate) duplicates: Duplicates,
    /// Do not insist on UTF-8.
    pub(crate) any_bytes: bool,
    pub(crate) verbose: bool,
    pub(crate) tables: Vec<String>,
}

pub(crate) enum Action {
    Build,
    /// Add the entries from standard input.
    Add,
    Delete(Keys),
    Query(String),
    QueryStandardInput(StandardInput),
    List,
}

/// Keys from the command line, or one on each line of standard input.
pub(crate) enum Keys {
    One(String),
    StandardInput,
}

/// How standard input is divided into keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandardInput {
    Lines,
    /// A message, of whose parts these are keys.
    Message {
        header: bool,
        body: bool,
    },
}

/// What happens to an entry whose key is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicates {
    Warn,
    Ignore,
    Replace,
}

impl Duplicates {
    pub(crate) fn keep(self) -> Keep {
        if self == Self::Replace { Keep::Last } else { Keep::First }
    }
}

impl Options {
    pub(crate) fn parse(
        program: &'static str,
        grammar: Grammar,
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, Failure> {
        let matches = command(program, grammar).try_get_matches_from(arguments).map_err(usage)?;
        let flag = |id: &str| matches.try_get_one::<bool>(id).ok().flatten().is_some_and(|&given| given);
        let directory = matches.get_one::<PathBuf>("config_directory").cloned();
        Ok(Self {
            action: action(&matches, &flag)?,
            grammar,
            config_directory: directory.or_else(|| std::env::var_os("MAIL_CONFIG").map(PathBuf::from)),
            fold: !flag("no_fold"),
            file_values: flag("file_values"),
            nul: if flag("nul") { Some(true) } else { flag("no_nul").then_some(false) },
            keep_root: flag("keep_root"),
            inherit_mode: !flag("default_mode"),
            duplicates: match (flag("replace"), flag("no_warning")) {
                (true, _) => Duplicates::Replace,
                (false, true) => Duplicates::Ignore,
                (false, false) => Duplicates::Warn,
            },
            any_bytes: flag("any_bytes"),
            verbose: matches.get_count("verbose") > 0 || std::env::var_os("MAIL_VERBOSE").is_some(),
            tables: matches.get_many("table").unwrap_or_default().cloned().collect(),
        })
    }
}

/// The one thing that the options ask for.
fn action(matches: &ArgMatches, flag: &dyn Fn(&str) -> bool) -> Result<Action, Failure> {
    let (query, delete) = (matches.get_one::<String>("query"), matches.get_one::<String>("delete"));
    if [query.is_some(), delete.is_some(), flag("list"), flag("add")].iter().filter(|&&given| given).count()
        > 1
    {
        return Err(Failure::new("specify only one of -q, -d, -s and -i"));
    }
    let message = StandardInput::Message { header: flag("header"), body: flag("body") };
    let input = if flag("header") || flag("body") { message } else { StandardInput::Lines };
    if flag("mime") {
        return Err(Failure::new(
            "-m (MIME parsing) is not supported yet: use -h and -b alone, or query single lines",
        ));
    }
    let action = match (query.map(String::as_str), delete.map(String::as_str)) {
        (Some("-"), _) => return Ok(Action::QueryStandardInput(input)),
        (Some(key), _) => Action::Query(key.to_owned()),
        (None, Some("-")) => Action::Delete(Keys::StandardInput),
        (None, Some(key)) => Action::Delete(Keys::One(key.to_owned())),
        (None, None) if flag("list") => Action::List,
        (None, None) if flag("add") => Action::Add,
        (None, None) => Action::Build,
    };
    if input == StandardInput::Lines {
        Ok(action)
    } else {
        Err(Failure::new("specify -b and -h only with \"-q -\""))
    }
}

/// `--help` answers on standard output; everything else is an error in one line.
fn usage(error: clap::Error) -> Failure {
    if error.use_stderr() {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more"));
        return Failure::new(lines.collect::<Vec<_>>().join("; "));
    }
    match write!(std::io::stdout().lock(), "{error}") {
        Ok(()) => std::process::exit(0),
        Err(error) => Failure::output(&error),
    }
}

fn command(program: &'static str, grammar: Grammar) -> Command {
    let switch = |id: &'static str, short: char, help: &'static str| {
        Arg::new(id).short(short).action(ArgAction::SetTrue).help(help)
    };
    let key = |id: &'static str, short: char, help: &'static str| {
        Arg::new(id).short(short).value_name("key").allow_hyphen_values(true).help(help)
    };
    let command = Command::new(program)
        .disable_help_flag(true)
        .args_override_self(false)
        .arg(Arg::new("help").long("help").action(ArgAction::Help).help("Show this"))
        .arg(
            Arg::new("config_directory")
                .short('c')
                .value_name("directory")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The directory of main.cf"),
        )
        .arg(key("query", 'q', "Look the key up; - reads keys from standard input"))
        .arg(key("delete", 'd', "Delete the key; - reads keys from standard input"))
        .arg(switch("list", 's', "List all entries"))
        .arg(switch("add", 'i', "Add the entries that are read from standard input"))
        .arg(switch("no_fold", 'f', "Do not fold keys to lower case"))
        .arg(switch("nul", 'N', "Store a NUL at the end of keys and values"))
        .arg(switch("no_nul", 'n', "Store no NUL at the end of keys and values").overrides_with("nul"))
        .arg(switch("keep_root", 'o', "Stay root even if the source belongs to somebody else"))
        .arg(switch("default_mode", 'p', "Give a new index mode 0644 instead of its source's"))
        .arg(switch("replace", 'r', "Let a later entry replace an earlier one with the same key"))
        .arg(switch("no_warning", 'w', "Do not warn about entries with the same key"))
        .arg(switch("any_bytes", 'u', "Do not insist on UTF-8"))
        .arg(Arg::new("verbose").short('v').action(ArgAction::Count).help("Say what is done"))
        .arg(Arg::new("table").value_name("type:file").num_args(1..).required(true));
    if grammar == Grammar::Alias {
        return command.about("Make, change, query and list alias databases");
    }
    command
        .about("Make, change, query and list lookup tables")
        .arg(switch("file_values", 'F', "Values are files, whose contents are stored"))
        .arg(switch("header", 'h', "With -q -: the keys are the headers of a message"))
        .arg(switch("body", 'b', "With -q -: the keys are the body lines of a message"))
        .arg(switch("mime", 'm', "With -h and -b: look into MIME parts"))
        .arg(switch("utf8_always", 'U', "Insist on UTF-8 with -h and -b, too"))
}
