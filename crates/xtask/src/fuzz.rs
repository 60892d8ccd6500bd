//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer, one after the other.
//!
//! Coverage is all that is taken of the compiler, which a stable toolchain has; the code under test has no `unsafe` that an
//! address sanitizer would look at.

use std::fs;

use crate::shell::{self, Result, cargo, command, output_of, root, target};

/// How it is run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The target; all of them if none is given.
    target: Option<String>,
    /// How many seconds each target gets.
    #[arg(long, default_value_t = 10)]
    time: u32,
}

/// Builds the targets and runs them; what a target does not stand is left in a file that is named.
pub fn run(options: &Options) -> Result<()> {
    let cargo = cargo();
    output_of(&cargo, &["fuzz", "--version"])
        .map_err(|_| "cargo-fuzz is missing: cargo install cargo-fuzz --locked".to_owned())?;
    output_of("c++", &["--version"])
        .map_err(|_| "a C++ compiler is missing, which libFuzzer needs: apt-get install g++".to_owned())?;
    let names = names()?;
    let wanted: Vec<&String> = match &options.target {
        Some(name) => vec![
            names
                .iter()
                .find(|known| *known == name)
                .ok_or_else(|| format!("{name} is none of the targets: {}", names.join(", ")))?,
        ],
        None => names.iter().collect(),
    };
    let place = target().join("fuzz");
    let build = place.join("build").display().to_string();
    let project = ["--fuzz-dir", "tests/fuzz", "--features", "libfuzzer", "-s", "none", "--dev"];
    let project: Vec<&str> = project.into_iter().chain(["--target-dir", &build, "targets"]).collect();
    shell::run(&cargo, &[&["fuzz", "build"], &project[..]].concat())?;
    for name in wanted {
        let found = place.join("corpus").join(name);
        fs::create_dir_all(&found).map_err(|e| format!("create {}: {e}", found.display()))?;
        let (found, seeds) = (found.display().to_string(), format!("tests/fuzz/corpus/{name}"));
        let limits = [
            format!("-max_total_time={}", options.time),
            format!("-artifact_prefix={}/{name}-", place.display()),
            "-max_len=8192".to_owned(),
            "-timeout=10".to_owned(),
            "-close_fd_mask=3".to_owned(),
        ];
        println!("== {name}");
        let status = command(&cargo, &[&["fuzz", "run"], &project[..], &[&found, &seeds, "--"]].concat())
            .args(&limits)
            .env("FUZZ_TARGET", name)
            .status()
            .map_err(|e| format!("run cargo fuzz: {e}"))?;
        if !status.success() {
            return Err(format!("{name}: {status}; the input is {}/{name}-*", place.display()));
        }
    }
    Ok(())
}

/// Every target has a folder of seeds.
fn names() -> Result<Vec<String>> {
    let folder = root().join("tests/fuzz/corpus");
    let entries = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
