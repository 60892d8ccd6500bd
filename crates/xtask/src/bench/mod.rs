//! `cargo xtask bench`: Postroad and Postfix do the same work in turns, each time on a fresh file system.
//!
//! Why a fresh ext4 image for each run: ext4 avoids recently deleted inodes, so that a mail queue on a used file system is
//! measured up to ten times slower than on a new one, whoever ran before. What to quote are ratios: each round gives one, of two runs
//! one after the other, since the machine is another from one minute to the next; the median of those is the ratio.

mod calls;
mod disk;
mod goals;
mod load;
mod meter;
mod sink;
mod system;
mod works;

use clap::Args;
use nix::unistd::Uid;

use crate::peers;
use crate::shell::{self, Result, cargo};
use goals::Row;
use meter::Figure;
use system::Side;
use works::{WORKS, Work};

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// Which works, by name; all of them if none is named. `list` shows them.
    works: Vec<String>,
    /// Rounds; each runs every side once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tenth of everything, and one round unless --rounds says otherwise: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// How many messages (or sessions, or entries) a run has, instead of what is usual for the work.
    #[arg(long)]
    amount: Option<usize>,
    /// Only this side.
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// Leave out the counting of system calls, which runs a few hundred messages more under strace.
    #[arg(long)]
    no_calls: bool,
    /// Measure what was built before.
    #[arg(long)]
    no_build: bool,
}

/// How much is done in a run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    quick: bool,
    amount: Option<usize>,
}

impl Scale {
    /// What is usual for a work, or what was asked for instead.
    fn of(self, usual: usize) -> usize {
        self.amount.unwrap_or(if self.quick { usual.div_ceil(10) } else { usual })
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    if options.works.iter().any(|name| name == "list") {
        WORKS.iter().for_each(|work| println!("{:<14}{}", work.name, work.about));
        return Ok(());
    }
    let works = chosen(&options.works)?;
    if !Uid::effective().is_root() {
        return Err("the benchmark mounts file systems: run it as root".into());
    }
    peers::ensure()?;
    if !options.no_build {
        shell::run(&cargo(), &["build", "--release", "--workspace", "--bins", "--exclude", "xtask"])?;
        shell::run(&cargo(), &["build", "--release", "-p", "queue", "--examples"])?;
        if works.iter().any(|work| work.packaged) {
            crate::deb::compile("shipped")?;
        }
    }
    let mut rows = Vec::new();
    works.into_iter().try_for_each(|work| measure(work, options, &mut rows))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Work>> {
    if names.is_empty() {
        return Ok(WORKS.iter().collect());
    }
    let find = |name: &String| {
        let known = || WORKS.iter().map(|work| work.name).collect::<Vec<_>>().join(", ");
        WORKS
            .iter()
            .find(|work| work.name == name)
            .ok_or_else(|| format!("no work {name}; there are {}", known()))
    };
    names.iter().map(find).collect()
}

/// Measures a work; its medians come to the `rows` of those before it.
fn measure(work: &Work, options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    let scale = Scale { quick: options.quick, amount: options.amount };
    let rounds = if options.quick || work.once { options.rounds.min(1) } else { options.rounds };
    println!("\n{}: {}; {rounds} rounds", work.name, work.about);
    let sides = options.only.map_or_else(|| vec![Side::Postroad, Side::Postfix], |side| vec![side]);
    let sides: Vec<Side> =
        sides.into_iter().filter(|side| !work.ours_alone || *side == Side::Postroad).collect();
    let mut figures: Vec<Vec<Vec<Figure>>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (side, list) in sides.iter().zip(&mut figures) {
            let measured = (work.run)(*side, scale)?;
            let text = measured.iter().map(|Figure(name, value)| format!("{name} {}", shown(*value)));
            println!("  round {round} {side}: {}", text.collect::<Vec<_>>().join(", "));
            list.push(measured);
        }
    }
    let medians = medians(work.name, &sides, &figures);
    print_table(&medians);
    rows.extend(medians);
    goals::judge(work.name, rows).iter().for_each(|goal| println!("  goal: {goal}"));
    if let Some(count) = work.calls.filter(|_| !options.no_calls) {
        println!("  system calls per message, counted by strace:");
        for side in &sides {
            println!("  {side}: {}", count(*side)?);
        }
    }
    Ok(())
}

fn medians(work: &'static str, sides: &[Side], figures: &[Vec<Vec<Figure>>]) -> Vec<Row> {
    let mut names: Vec<&'static str> = Vec::new();
    for Figure(name, _) in figures.iter().flatten().flatten() {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let row = |figure| {
        // By round, where the side has such a figure.
        let of = |side| {
            let rounds =
                sides.iter().position(|known| *known == side).map_or(&[][..], |place| &figures[place]);
            let values = rounds.iter().map(|round| round.iter().find(|measured| measured.0 == figure));
            values.map(|measured| measured.map(|measured| measured.1)).collect::<Vec<_>>()
        };
        let (ours, theirs) = (of(Side::Postroad), of(Side::Postfix));
        let pairs = ours.iter().zip(&theirs).filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?));
        let ratio = median(pairs.collect());
        let middle = |values: Vec<Option<f64>>| median(values.into_iter().flatten().collect());
        Row { work, figure, ours: middle(ours), theirs: middle(theirs), ratio }
    };
    names.into_iter().map(row).collect()
}

fn print_table(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!("  {:<40}{:>12}{:>12}{:>10}", "median", "Postroad", "Postfix", "ratio");
    for Row { figure, ours, theirs, ratio, .. } in rows {
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
        println!("  {figure:<40}{:>12}{:>12}{:>10}", text(*ours), text(*theirs), text(*ratio));
    }
}

/// Three digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The one in the middle, or the mean of the two that are.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = values.len().checked_sub(1)? / 2;
    Some(f64::midpoint(*values.get(lower)?, *values.get(upper)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_better_nor_the_worse_of_two_rounds_is_the_median() {
        assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!((median(vec![5.0]), median(Vec::new())), (Some(5.0), None));
    }

    #[test]
    fn a_ratio_is_of_what_was_measured_side_by_side() {
        let side = |values: [f64; 3]| values.map(|value| vec![Figure("rate", value)]).to_vec();
        // The machine was slower by half in the second round, and by three quarters in the third.
        let figures = [side([400.0, 200.0, 110.0]), side([100.0, 50.0, 25.0])];
        let rows = medians("work", &[Side::Postroad, Side::Postfix], &figures);
        let [Row { ours, theirs, ratio, .. }] = &rows[..] else { panic!("one figure, one row") };
        assert_eq!((*ours, *theirs, *ratio), (Some(200.0), Some(50.0), Some(4.0)));
        let alone = medians("work", &[Side::Postroad], &figures[..1]);
        assert_eq!((alone[0].theirs, alone[0].ratio), (None, None));
    }
}
