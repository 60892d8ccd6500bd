//! `cargo xtask bench`: Postroad and Postfix do the same work in turns, each time on a fresh file system.
//!
//! Why a fresh ext4 image for each run: ext4 avoids recently deleted inodes, so that a mail queue on a used file system is
//! measured up to ten times slower than on a new one, whoever ran before. Ratios of interleaved runs are what to quote.

mod disk;
mod load;
mod meter;
mod side;

use clap::Args;
use nix::unistd::Uid;

use crate::peers;
use crate::shell::{self, Result, cargo};
use load::Load;
use meter::Figures;
use side::Side;

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// Rounds; each runs every side once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages in a run.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Simultaneous sessions.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Bytes in a message.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// A new connection for each message.
    #[arg(long)]
    reconnect: bool,
    /// Only this side.
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// Leave out the counting of system calls, which runs a few hundred messages more under strace.
    #[arg(long)]
    no_calls: bool,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    if !Uid::effective().is_root() {
        return Err("the benchmark mounts file systems: run it as root".into());
    }
    peers::ensure()?;
    shell::run(&cargo(), &["build", "--release", "--workspace", "--bins", "--exclude", "xtask"])?;
    let load = Load {
        messages: options.messages,
        sessions: options.sessions,
        size: options.size,
        reconnect: options.reconnect,
    };
    println!("\nSMTP in, Maildir out: {load}; {} rounds, fresh ext4 image for each run", options.rounds);
    let sides: Vec<Side> =
        options.only.map_or_else(|| vec![Side::Postroad, Side::Postfix], |side| vec![side]);
    let mut figures: Vec<Vec<Figures>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (side, list) in sides.iter().zip(&mut figures) {
            let measured = side::measure(*side, &load)?;
            println!("  round {round} {side}: {measured}");
            list.push(measured);
        }
    }
    println!();
    print_table(&sides, &figures);
    if !options.no_calls {
        let few = Load { messages: 500, sessions: options.sessions.min(10), ..load };
        println!("\nsystem calls per message ({few}), counted by strace");
        for side in &sides {
            println!("  {side}: {}", side::count_calls(*side, &few)?);
        }
    }
    Ok(())
}

fn print_table(sides: &[Side], figures: &[Vec<Figures>]) {
    println!("{:<22}{:>12}{:>12}{:>12}", "median of all rounds", "Postroad", "Postfix", "ratio");
    for (name, value) in meter::COLUMNS {
        let medians: Vec<f64> = figures.iter().map(|list| median(list.iter().map(value).collect())).collect();
        let place = |side| sides.iter().position(|s| *s == side).map(|n| medians[n]);
        let (ours, theirs) = (place(Side::Postroad), place(Side::Postfix));
        let text = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        println!("{name:<22}{:>12}{:>12}{:>12}", text(ours), text(theirs), text(ratio));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
