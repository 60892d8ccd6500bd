//! What developers and CI do with the repository: `cargo xtask COMMAND`.

mod bench;
mod ci;
mod deb;
mod fuzz;
mod man;
mod peers;
mod proofs;
mod shell;
mod test;
mod tidy;
mod try_it;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tries, tests and measures Postroad.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything, run a mail system in a scratch folder, and pass two messages through it.
    Try {
        /// Leave the mail system running and say how to talk to it.
        #[arg(long)]
        keep: bool,
    },
    /// Install the peers that tests need, or say which are missing, and run every test.
    Test {
        /// Passed on to the test runner, for example a part of a test's name.
        arguments: Vec<String>,
    },
    /// Everything that must be right before a change is taken: format, lints, tidiness, manual pages, tests.
    Ci,
    /// Measure against Postfix, in turns, on fresh file systems. Needs root for loop devices.
    Bench(bench::Options),
    /// Kill programs at each call that changes the disk, and cut the power after each: nothing acknowledged may be lost.
    Crash(proofs::Crash),
    /// Make every system call of the daemons fail once with every error. Needs root for strace.
    Faults(proofs::Faults),
    /// Load, kills, reloads and an operator for some minutes; nothing may be lost and nobody may grow.
    Soak(proofs::Soak),
    /// Build the Debian package, `target/deb/postroad_VERSION_amd64.deb`.
    Deb(deb::Options),
    /// Let libFuzzer look for inputs that a parser cannot stand. Needs cargo-fuzz and a C++ compiler.
    Fuzz(fuzz::Options),
    /// Write the generated parts of the manual pages.
    Man {
        /// Only say whether they are up to date; exit status 1 if not.
        #[arg(long)]
        check: bool,
    },
    /// Check what no compiler checks: layout, dependencies, licences, forbidden words.
    Tidy,
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Try { keep } => try_it::run(keep),
        Command::Test { arguments } => test::run(&arguments),
        Command::Ci => ci::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Crash(options) => proofs::crash(&options),
        Command::Faults(options) => proofs::faults(&options),
        Command::Soak(options) => proofs::soak(&options),
        Command::Deb(options) => deb::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Man { check } => man::run(check),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
