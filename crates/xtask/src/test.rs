//! `cargo xtask test`: every test.
//!
//! Hundreds of tests start real programs side by side, on a machine of unknown load. One that fails there is tried again
//! by itself, three times: when it fails at most once there it is *unsteady*, which is told at the end as a fault of the test
//! to be mended, but says nothing against the programs; when it fails twice the run has failed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::peers;
use crate::shell::{self, Result, cargo};

/// How often a test that failed beside the others is tried alone.
const TRIALS: usize = 3;

/// How often it may fail there.
const FORGIVEN: usize = 1;

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
    // Of a test program that was killed nothing tells which of its tests were left.
    if failures.is_empty() || targets.is_empty() || targets.len() != failed_programs(&all.output) {
        return Err("the tests could not be built or run to their end".into());
    }
    let mut again = Vec::new();
    for trial in 1..=TRIALS {
        println!("== {} failed: alone, {trial} of {TRIALS}", failures.len());
        again.extend(run_alone(&targets, &failures)?);
    }
    let verdict = judge(&failures, &again);
    for line in &verdict.unsteady {
        println!("{line}");
    }
    if verdict.failed.is_empty() { Ok(()) } else { Err(verdict.failed.join("; ")) }
}

/// Runs these tests of these targets one after the other, and gives the names of those that failed; an error where one is
/// not found.
fn run_alone(targets: &[Vec<String>], names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let (mut ran, mut again) = (0, BTreeSet::new());
    for target in targets {
        let target = target.iter().map(String::as_str);
        let options = ["--", "--exact", "--test-threads=1"];
        let names = names.iter().map(String::as_str);
        let alone: Vec<&str> = ["test"].into_iter().chain(target).chain(options).chain(names).collect();
        let outcome = tell(&alone)?;
        let failures = failures(&outcome.output);
        if !outcome.passed && failures.is_empty() {
            return Err(format!("did not run to its end: cargo {}", alone.join(" ")));
        }
        ran += passed(&outcome.output) + failures.len();
        again.extend(failures);
    }
    if ran < names.len() {
        return Err(format!("of {} tests that failed, {ran} were found again", names.len()));
    }
    Ok(again)
}

/// What is to be said of tests that failed beside the others.
struct Verdict {
    /// A line for each that is merely unsteady.
    unsteady: Vec<String>,
    /// A word for each that failed too often.
    failed: Vec<String>,
}

/// Judges the tests that failed by how often each failed alone.
fn judge(failures: &BTreeSet<String>, again: &[String]) -> Verdict {
    let mut verdict = Verdict { unsteady: Vec::new(), failed: Vec::new() };
    for name in failures {
        let times = again.iter().filter(|failed| *failed == name).count();
        let told = format!("{name} failed beside the others, and {times} of {TRIALS} times alone");
        if times > FORGIVEN {
            verdict.failed.push(told);
        } else {
            verdict.unsteady.push(format!("unsteady: {told}; mend the test"));
        }
    }
    verdict
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

/// How many test programs ran to their end with a test that failed.
fn failed_programs(output: &str) -> usize {
    output.lines().filter(|line| line.starts_with("test result: FAILED.")).count()
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
        assert_eq!(failed_programs(OUTPUT), 1);
        let messages =
            "error: 2 targets failed:\n    `-p cleanup --lib`\n    `-p scenarios --test scenarios`\n";
        assert_eq!(
            failed_targets(messages),
            [vec!["-p", "cleanup", "--lib"], vec!["-p", "scenarios", "--test", "scenarios"]]
        );
    }
    #[test]
    fn who_fails_alone_once_is_unsteady_and_twice_has_failed() {
        let failures = ["never", "once", "twice"].map(str::to_owned).into();
        let again = ["once", "twice", "twice"].map(str::to_owned);
        let verdict = judge(&failures, &again);
        assert_eq!(
            verdict.unsteady,
            [
                "unsteady: never failed beside the others, and 0 of 3 times alone; mend the test",
                "unsteady: once failed beside the others, and 1 of 3 times alone; mend the test"
            ]
        );
        assert_eq!(verdict.failed, ["twice failed beside the others, and 2 of 3 times alone"]);
    }
}
