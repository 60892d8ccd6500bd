//! postconf as a program: what it prints, and that it edits.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn postconf(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postconf"))
        .arg("-c")
        .arg(directory)
        .args(arguments)
        .output()
        .expect("postconf runs")
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postconf")
}

#[test]
fn output_follows_the_golden_table() {
    let table = fs::read_to_string(data().join("cases.txt")).expect("the table");
    let mut failures = Vec::new();
    for case in table.split("\n$ ").skip(1) {
        let (arguments, expected) = case.split_once('\n').unwrap_or((case, ""));
        let output = postconf(&data(), &arguments.split(' ').collect::<Vec<_>>());
        let got = String::from_utf8_lossy(&output.stdout);
        let got: Vec<&str> = got.lines().filter(|line| !line.starts_with("config_directory")).collect();
        if got != expected.lines().collect::<Vec<_>>() {
            failures.push(format!("postconf {arguments}\n{}", got.join("\n")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A scratch instance with the given main.cf and an empty master.cf.
fn instance(main_cf: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a scratch directory");
    fs::write(directory.path().join("main.cf"), main_cf).expect("main.cf");
    fs::write(directory.path().join("master.cf"), "").expect("master.cf");
    directory
}

#[test]
fn an_edit_keeps_comments_mode_and_a_symbolic_link() {
    let directory = instance("# head\nmyhostname = a\n\n# about relay\nrelayhost =\n   x\n");
    let (link, real) = (directory.path().join("main.cf"), directory.path().join("real.cf"));
    fs::rename(&link, &real).expect("rename");
    symlink("real.cf", &link).expect("symlink");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("mode");

    let output = postconf(directory.path(), &["-e", "relayhost=[y]", "biff = no"]);
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&real).expect("it is still there");
    assert_eq!(text, "# head\nmyhostname = a\n\n# about relay\nrelayhost = [y]\nbiff = no\n");
    assert_eq!(fs::metadata(&real).expect("metadata").permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).expect("metadata").is_symlink());
}

#[test]
fn a_slip_of_the_pen_is_told_at_once() {
    let directory = instance("");
    let output = postconf(directory.path(), &["-e", "mydestnation=x"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("did you mean mydestination?"), "{told}");
}

#[test]
fn a_wrong_request_changes_nothing() {
    let directory = instance("relayhost = a\n");
    for arguments in
        [&["-e", "relayhost"][..], &["-e", "=b"], &["-e", "relayhost=b\nc"], &["-X", "relayhost=b"]]
    {
        let output = postconf(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
    let text = fs::read_to_string(directory.path().join("main.cf")).expect("main.cf");
    assert_eq!(text, "relayhost = a\n");
}

#[test]
fn it_shows_what_there_is_in_a_broken_configuration() {
    let directory = instance("soft_bounce = maybe\nno equals sign\nmyhostname = h.example\n");
    let output = postconf(directory.path(), &["-h", "myhostname"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "h.example\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("main.cf:1:") && told.contains("main.cf:2:"), "{told}");
}

#[test]
fn editors_at_the_same_time_take_turns() {
    let directory = instance("");
    let editors: Vec<_> = (0..8)
        .map(|number| {
            let path = directory.path().to_owned();
            std::thread::spawn(move || postconf(&path, &["-e", &format!("own_{number}=x")]))
        })
        .collect();
    for editor in editors {
        assert!(editor.join().expect("it ends").status.success());
    }
    let text = fs::read_to_string(directory.path().join("main.cf")).expect("main.cf");
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn templates_are_shown_as_they_are_written_and_as_they_are_read() {
    let directory = instance("myhostname = h.example\n");
    let file = directory.path().join("bounce.cf");
    fs::write(
        &file,
        "failure_template = <<END\nSubject: Too bad\n\nHost $myhostname, $$5.\nEND\nbad = <<END\n",
    )
    .expect("write");
    let file = file.display().to_string();
    let shown = |arguments: &[&str]| {
        let output = postconf(directory.path(), arguments);
        assert!(output.status.success());
        (String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
    };
    let (expanded, told) = shown(&["-b", &file]);
    assert!(
        expanded
            .starts_with("expanded_failure_text = <<EOF\nHost h.example, $5.\nEOF\n\nexpanded_delay_text"),
        "{expanded}"
    );
    assert_eq!(expanded.matches("\nEOF\n").count(), 4);
    assert!(
        told.contains("bounce.cf:6: bad: no line") && told.contains("there is no template bad;"),
        "{told}"
    );
    let (source, _) = shown(&["-t", &file]);
    assert!(source.contains("Subject: Too bad\nPostmaster-Subject: Postmaster Copy: Undelivered Mail\n\nHost $myhostname, $$5.\nEOF\n"), "{source}");
    // What is shown is a template file again.
    fs::write(directory.path().join("again.cf"), &source).expect("write");
    let again = directory.path().join("again.cf").display().to_string();
    let (same, told) = shown(&["-t", &again]);
    assert_eq!((same, told), (source, String::new()));
    let (built_in, told) = shown(&["-t"]);
    assert!(built_in.contains("verify_template = <<EOF\nCharset: us-ascii\n") && told.is_empty(), "{told}");
}

#[test]
fn the_kinds_of_logins_and_the_tls_library_are_shown() {
    let shown = |arguments: &[&str]| String::from_utf8(postconf(&data(), arguments).stdout).expect("ASCII");
    assert_eq!(shown(&["-a"]), "dovecot\npostroad\n");
    assert_eq!(shown(&["-A"]), "postroad\n");
    assert_eq!(shown(&["-T", "public-key-algorithms"]), "ecdsa\ned25519\nrsa\n");
    assert!(!postconf(&data(), &["-T", "weather"]).status.success());
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock"));
    let version = shown(&["-T", "compile-version"]).trim().replace("rustls ", "");
    let locked = format!("name = \"rustls\"\nversion = \"{version}.");
    assert!(lock.expect("Cargo.lock").contains(&locked), "{version}");
    assert_eq!(shown(&["-T", "run-version"]), shown(&["-T", "compile-version"]));
}
