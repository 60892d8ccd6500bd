//! `cargo xtask ci`: all gates, the quick ones first.

use crate::shell::{self, Result, cargo};
use crate::{deb, man, peers, test, tidy};

/// Runs every gate; the first that fails ends it.
pub fn run() -> Result<()> {
    let cargo = cargo();
    gate("format", || shell::run(&cargo, &["fmt", "--all", "--check"]))?;
    gate("tidy", tidy::run)?;
    gate("peers", peers::ensure)?;
    gate("manual pages", || man::run(true))?;
    gate("clippy", || {
        shell::run(&cargo, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    })?;
    gate("package", deb::gate)?;
    gate("documentation", || {
        let strictly = "RUSTDOCFLAGS=--deny warnings";
        shell::run("env", &[strictly, &cargo, "doc", "--workspace", "--no-deps", "--quiet"])
    })?;
    gate("tests", || test::run(&[]))
}

fn gate(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    check().map_err(|error| format!("{name}: {error}"))
}
