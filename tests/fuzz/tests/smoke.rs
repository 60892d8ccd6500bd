//! Every target over its seeds and some thousand changes of them: what can be done in seconds and on any machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use fuzz::mutation::{Numbers, changed};
use fuzz::{TARGETS, Target};

/// How many changes of seeds a target gets, and how long at most.
const CHANGES: usize = 3000;
const MOST: Duration = Duration::from_secs(1);

/// No input may take longer: this is for inputs of some kilobytes, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn every_target_holds_on_its_seeds_and_on_changes_of_them() {
    let mut failed = Vec::new();
    let wanted = std::env::var("FUZZ_TARGET").ok();
    for target in TARGETS.iter().filter(|target| wanted.as_deref().is_none_or(|name| name == target.name)) {
        let seeds = seeds(target);
        let begun = Instant::now();
        for seed in &seeds {
            failed.extend(failure(target, seed));
        }
        let told = failed.len();
        let mut numbers = Numbers::new(1);
        for _ in 0..CHANGES {
            let (one, other) = (&seeds[numbers.below(seeds.len())], &seeds[numbers.below(seeds.len())]);
            let input = changed(one, other, &mut numbers);
            failed.extend(failure(target, &input));
            if begun.elapsed() > MOST || failed.len() > told + 3 {
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_folder_of_seeds_has_its_target() {
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::find(&name).is_some(), "corpus/{name} has no target");
    }
}

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let folder = corpus().join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seeds", target.name);
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs the target; what to tell if it did not hold.
fn failure(target: &Target, input: &[u8]) -> Option<String> {
    let begun = Instant::now();
    let held = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = begun.elapsed();
    let shown = input.escape_ascii();
    match held {
        Err(_) => Some(format!("{} fails on b\"{shown}\"", target.name)),
        Ok(()) if took > PATIENCE => Some(format!("{} took {took:?} for b\"{shown}\"", target.name)),
        Ok(()) => None,
    }
}
