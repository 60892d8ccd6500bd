//! `cargo xtask test`: every test.
//!
//! Hundreds of tests start real programs side by side, on a machine of unknown load. One that fails there is run again by
//! itself: when it passes each time it is *unsteady*, which is told at the end as a fault of the test to be mended, but says
//! nothing against the programs; when it fails once more the run has failed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::peers;
use crate::shell::{self, Result, cargo};

/// How often a test that failed beside the others must pass alone.
const PASSES: usize = 3;

/// Sees to the peers, builds the programs that scenarios start, and runs all tests.
pub fn run(arguments: &[String]) -> Result<()> {
    peers::ensure()?;
    shell::run(&cargo(), &["build", "--workspace", "--bins"])?;
    let mut test = vec!["test", "--workspace", "--no-fail-fast"];
    if !arguments.is_empty() {
        test.push("--");
        test.extend(arguments.iter().map(String::as_str));
    }
    let all = tell(&test)?;
    if all.passed {
        return Ok(());
    }
    let failures = failures(&all.output);
    let targets = failed_targets(&all.messages);
    if failures.is_empty() || targets.is_empty() {
        return Err("the tests could not be built or run to their end".into());
    }
    for pass in 1..=PASSES {
        println!("== {} failed: alone, {pass} of {PASSES}", failures.len());
        run_alone(&targets, &failures)?;
    }
    for name in &failures {
        println!("unsteady: {name} failed beside the others and passed {PASSES} times alone; mend the test");
    }
    Ok(())
}

/// Runs these tests of these targets one after the other; an error where one fails, or is not found.
fn run_alone(targets: &[Vec<String>], names: &BTreeSet<String>) -> Result<()> {
    let mut ran = 0;
    for target in targets {
        let target = target.iter().map(String::as_str);
        let options = ["--", "--exact", "--test-threads=1"];
        let names = names.iter().map(String::as_str);
        let alone: Vec<&str> = ["test"].into_iter().chain(target).chain(options).chain(names).collect();
        let outcome = tell(&alone)?;
        if !outcome.passed {
            let failures: Vec<String> = failures(&outcome.output).into_iter().collect();
            return Err(format!("failed again, alone: {}", failures.join(" ")));
        }
        ran += passed(&outcome.output);
    }
    if ran < names.len() {
        return Err(format!("of {} tests that failed, {ran} were found again", names.len()));
    }
    Ok(())
}

/// What a run of cargo wrote, and how it ended.
struct Outcome {
    passed: bool,
    output: String,
    messages: String,
}

/// Runs cargo with what it writes passed on as it comes.
fn tell(arguments: &[&str]) -> Result<Outcome> {
    let cargo = cargo();
    println!("$ {cargo} {}", arguments.join(" "));
    let mut command = shell::command(&cargo, arguments);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("run {cargo}: {error}"))?;
    let messages = child.stderr.take().map(|pipe| std::thread::spawn(|| copy(pipe, std::io::stderr())));
    let output = child.stdout.take().map(|pipe| copy(pipe, std::io::stdout())).unwrap_or_default();
    let messages = messages.and_then(|copier| copier.join().ok()).unwrap_or_default();
    let status = child.wait().map_err(|error| format!("wait for {cargo}: {error}"))?;
    Ok(Outcome { passed: status.success(), output, messages })
}

/// Copies lines, whatever their bytes, until the end, and keeps them.
fn copy(pipe: impl Read, mut to: impl Write) -> String {
    let mut kept = String::new();
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|size| size > 0) {
        // Who reads may have gone; the tests go on.
        let _ = to.write_all(&line);
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    kept
}

/// The names of the tests that failed: the list that each test program prints last.
fn failures(output: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut listing = false;
    for line in output.lines() {
        if line == "failures:" {
            listing = true;
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| listing) {
            names.insert(name.to_owned());
        } else if !line.is_empty() {
            listing = false;
        }
    }
    names
}

/// The targets that cargo says failed, each as the arguments that select it.
fn failed_targets(messages: &str) -> Vec<Vec<String>> {
    let targets = messages.lines().filter_map(|line| line.strip_prefix("    `-p ")?.strip_suffix('`'));
    targets.map(|target| format!("-p {target}").split(' ').map(str::to_owned).collect()).collect()
}

/// How many tests passed, over all test programs.
fn passed(output: &str) -> usize {
    let counts = output.lines().filter_map(|line| line.strip_prefix("test result: ")?.split_once(". "));
    counts.filter_map(|(_, counts)| counts.split(' ').next()?.parse::<usize>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test a::one ... ok
test a::two ... FAILED
test b ... FAILED

failures:

---- a::two stdout ----
    indented words of a test

thread 'a::two' panicked at src/lib.rs:1:1:
left: 1

failures:
    a::two
    b

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 1 test
test c ... ok

test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn what_failed_is_read_from_what_tests_print() {
        assert_eq!(failures(OUTPUT).into_iter().collect::<Vec<_>>(), ["a::two", "b"]);
        assert_eq!(passed(OUTPUT), 13);
        let messages =
            "error: 2 targets failed:\n    `-p cleanup --lib`\n    `-p scenarios --test scenarios`\n";
        assert_eq!(
            failed_targets(messages),
            [vec!["-p", "cleanup", "--lib"], vec!["-p", "scenarios", "--test", "scenarios"]]
        );
    }
}
