//! `cargo xtask test`: every test.

use crate::peers;
use crate::shell::{self, Result, cargo};

/// Sees to the peers, builds the programs that scenarios start, and runs all tests.
pub fn run(arguments: &[String]) -> Result<()> {
    peers::ensure()?;
    let cargo = cargo();
    shell::run(&cargo, &["build", "--workspace", "--bins"])?;
    let mut test = vec!["test", "--workspace"];
    if !arguments.is_empty() {
        test.push("--");
        test.extend(arguments.iter().map(String::as_str));
    }
    shell::run(&cargo, &test)
}
