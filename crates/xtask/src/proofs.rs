//! Tests that CI runs in short, and that take their time here: `cargo xtask faults`, `cargo xtask soak`.

use clap::Args;

use crate::shell::{self, Result, cargo};

/// Which faults.
#[derive(Debug, Args)]
pub struct Faults {
    /// The daemons whose calls fail, such as `cleanup qmgr`; none for all.
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

/// Has every call of the daemons fail with every error.
pub fn faults(options: &Faults) -> Result<()> {
    let daemons = if options.daemons.is_empty() { "all".to_owned() } else { options.daemons.join(",") };
    run("faults::", &[("POSTROAD_FAULTS", daemons)])
}

/// Has everything happen at once.
pub fn soak(options: &Soak) -> Result<()> {
    let mut settings = vec![("POSTROAD_SOAK_MINUTES", options.minutes.to_string())];
    settings.extend(options.seed.map(|seed| ("POSTROAD_SOAK_SEED", seed.to_string())));
    run("soak::", &settings)
}

fn run(tests: &str, settings: &[(&str, String)]) -> Result<()> {
    let cargo = cargo();
    shell::run(&cargo, &["build", "--workspace", "--bins"])?;
    let arguments = ["test", "--package", "scenarios", "--test", "scenarios", tests, "--", "--nocapture"];
    let mut command = shell::command(&cargo, &arguments);
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let status = command.status().map_err(|e| format!("run {cargo}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{tests} {status}")) }
}
