//! Tests that CI runs in short, and that take their time here: `cargo xtask crash`,
//! `cargo xtask faults`, `cargo xtask soak`.

use clap::Args;

use crate::shell::{self, Result, cargo};

/// How many crashes.
#[derive(Debug, Args)]
pub struct Crash {
    /// The ways of mail, such as `relay bounce`; none for all.
    ways: Vec<String>,
    /// How long each test goes on; as long as it takes where nothing is said, which is an hour or more.
    #[arg(long)]
    seconds: Option<u64>,
}

/// Which faults.
#[derive(Debug, Args)]
pub struct Faults {
    /// The daemons whose calls fail, such as `cleanup qmgr`, or a call or an error at it, such as `showq:openat:EIO`; none for all.
    daemons: Vec<String>,
}

/// For how long.
#[derive(Debug, Args)]
pub struct Soak {
    /// How many minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What an earlier run printed, to have it do the same in the same order.
    #[arg(long)]
    seed: Option<u64>,
}

/// Kills the programs at each call that changes the disk, and starts them on each disk that a power cut may leave.
pub fn crash(options: &Crash) -> Result<()> {
    let time = options.seconds.map_or_else(|| "all".to_owned(), |seconds| seconds.to_string());
    let ways: Vec<&str> = options.ways.iter().map(String::as_str).collect();
    run("crash", &ways, &[("POSTROAD_CRASH", time)])
}

/// Has every call of the daemons fail with every error.
pub fn faults(options: &Faults) -> Result<()> {
    let daemons = if options.daemons.is_empty() { "all".to_owned() } else { options.daemons.join(",") };
    run("scenarios", &["faults::"], &[("POSTROAD_FAULTS", daemons)])
}

/// Has everything happen at once.
pub fn soak(options: &Soak) -> Result<()> {
    let mut settings = vec![("POSTROAD_SOAK_MINUTES", options.minutes.to_string())];
    settings.extend(options.seed.map(|seed| ("POSTROAD_SOAK_SEED", seed.to_string())));
    run("scenarios", &["soak::"], &settings)
}

fn run(target: &str, tests: &[&str], settings: &[(&str, String)]) -> Result<()> {
    let cargo = cargo();
    shell::run(&cargo, &["build", "--workspace", "--bins"])?;
    let mut arguments = vec!["test", "--package", "scenarios", "--test", target, "--", "--nocapture"];
    arguments.extend(tests);
    let mut command = shell::command(&cargo, &arguments);
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let status = command.status().map_err(|e| format!("run {cargo}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{target} {} {status}", tests.join(" "))) }
}
