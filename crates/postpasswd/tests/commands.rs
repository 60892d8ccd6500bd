//! The commands upon a table, with passwords on standard input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The exit code, and what was printed.
fn postpasswd(table: &Path, arguments: &[&str], password: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postpasswd"))
        .arg("-f")
        .arg(table)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that asks for no password may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn a_user_comes_changes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("passwords");
    let run = |arguments: &[&str], password: &str| postpasswd(&table, arguments, password);
    assert_eq!(run(&["list"], "").0, 71);
    assert_eq!(run(&["add", "joe@example.com"], "first\n"), (0, String::new()));
    assert_eq!(std::fs::metadata(&table).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(run(&["add", "joe@example.com"], "x\n").0, 67);
    assert_eq!(run(&["add", "ann", "-s", "sha512-crypt"], "a b\r\n").0, 0);
    assert_eq!(run(&["list"], "").1, "ann sha512-crypt\njoe@example.com argon2id,scram-sha-256\n");
    assert_eq!(run(&["verify", "ann"], "a b").0, 0);
    assert_eq!(run(&["verify", "joe@example.com"], "second\n").0, 1);
    assert_eq!(run(&["lock", "joe@example.com"], "").0, 0);
    assert_eq!(run(&["verify", "joe@example.com"], "first\n").0, 1);
    assert_eq!(run(&["change", "joe@example.com", "-s", "scram-sha-1"], "second\n").0, 0);
    assert_eq!(run(&["list"], "").1, "ann sha512-crypt\njoe@example.com locked scram-sha-1\n");
    assert_eq!(run(&["unlock", "joe@example.com"], "").0, 0);
    assert_eq!(run(&["verify", "joe@example.com"], "second\n").0, 0);
    assert_eq!(run(&["delete", "ann"], "").0, 0);
    for action in ["delete", "lock", "unlock", "verify", "change"] {
        assert_eq!(run(&[action, "ann"], "x\n").0, 67, "{action}");
    }
    assert_eq!(run(&["add", "a:b"], "x\n").0, 65);
    assert_eq!(run(&["add", "empty"], "\n").0, 65);
    let text = std::fs::read_to_string(&table).unwrap();
    assert!(!text.contains("second") && text.lines().count() == 2, "{text}");
    std::fs::write(&table, "nonsense\n").unwrap();
    assert!(run(&["list"], "").1.contains("line 1"));
}

#[test]
fn commands_at_a_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("passwords");
    let names: Vec<_> = (0..8).map(|number| format!("user{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| assert_eq!(postpasswd(&table, &["add", name, "-s", "scram-sha-256"], "x\n").0, 0));
        }
    });
    assert_eq!(postpasswd(&table, &["list"], "").1.lines().count(), names.len());
}
