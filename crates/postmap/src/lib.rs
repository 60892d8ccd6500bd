//! The programs postmap and postalias: they make, change, query and list lookup tables.
//!
//! Contract: an index is written to a file beside it and takes its place in one step, so that readers see the old or the new
//! one and never a half; runs on the same index wait for each other. A line that cannot be understood is warned about
//! with its number and left out, and does not change the exit status.

mod build;
mod message;
mod options;
mod query;
mod replace;
mod target;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use config::{Config, param};
use ipc::log;
use lookup::source::Grammar;

use options::{Action, Options};
use target::Target;

/// The program postmap, with this process's arguments.
#[must_use]
pub fn postmap() -> ExitCode {
    run("postmap", Grammar::Map)
}

/// The program postalias, with this process's arguments.
#[must_use]
pub fn postalias() -> ExitCode {
    run("postalias", Grammar::Alias)
}

fn run(program: &'static str, grammar: Grammar) -> ExitCode {
    log::init_command(program);
    lookup::report_warnings_to(|text| log::warning!("{text}"));
    let outcome = Options::parse(program, grammar, std::env::args_os()).and_then(|options| work(&options));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(Failure::OutputClosed) => ExitCode::FAILURE,
        Err(Failure::Fatal(text)) => {
            log::fatal!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked for; `false` where it was to find something and did not.
fn work(options: &Options) -> Result<bool, Failure> {
    let settings = Settings::load(options)?;
    let targets = options.tables.iter().map(|table| Target::parse(table, &settings));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    match &options.action {
        Action::Build => build::build(&targets, options).map(|()| true),
        Action::Add => build::add(&targets, options).map(|()| true),
        Action::Delete(key) => build::delete(&targets, key, options),
        Action::Query(key) => query::query(&targets, key, options),
        Action::QueryStandardInput(keys) => query::query_standard_input(&targets, *keys, options),
        Action::List => query::list(&targets, options).map(|()| true),
    }
}

/// What main.cf says that matters here.
struct Settings {
    default_type: String,
}

impl Settings {
    /// Other mistakes in main.cf do not matter: tables are often what is being mended.
    fn load(options: &Options) -> Result<Self, Failure> {
        let directory = options.config_directory.as_deref();
        if let Some(directory) = directory {
            let main = directory.join("main.cf");
            std::fs::metadata(&main).map_err(|error| Failure::io("open", &main, &error))?;
        }
        let config = Config::load_regardless(directory.unwrap_or(Path::new("/etc/postroad")));
        Ok(Self { default_type: config.get(param::DEFAULT_DATABASE_TYPE) })
    }
}

/// Why the program ends early.
enum Failure {
    /// Whoever read the output has gone.
    OutputClosed,
    Fatal(String),
}

impl Failure {
    fn new(text: impl ToString) -> Self {
        Self::Fatal(text.to_string())
    }

    fn io(operation: &str, path: &Path, error: &io::Error) -> Self {
        Self::Fatal(format!("{operation} {}: {}", path.display(), config::cause(error)))
    }

    fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::io("write", Path::new("standard output"), error),
        }
    }
}
