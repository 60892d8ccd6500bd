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
        // It is for who works on the code: what is private is a part of it.
        let strictly = "RUSTDOCFLAGS=--deny warnings --allow rustdoc::private_intra_doc_links";
        let whole = ["--workspace", "--no-deps", "--document-private-items", "--quiet"];
        shell::run("env", &[&[strictly, &cargo, "doc"], &whole[..]].concat())
    })?;
    gate("tests", || test::run(&[]))
}

fn gate(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    check().map_err(|error| format!("{name}: {error}"))
}
