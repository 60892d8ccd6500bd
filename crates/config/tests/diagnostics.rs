//! The golden table of remarks.

use std::path::Path;

use config::{Config, Diagnostic, Severity, Snapshot};

#[test]
fn remarks_follow_the_golden_table() {
    let table = include_str!("diagnostics.txt");
    let mut failures = Vec::new();
    for case in table.split("\n=== ").skip(1) {
        let (title, body) = case.split_once('\n').expect("a title");
        let expected = section(body, "remarks");
        let got = remarks(&section(body, "main.cf"), &section(body, "master.cf"));
        if got.trim() != expected.trim() {
            failures.push(format!("{title}\n expected:\n{}\n got:\n{got}", expected.trim()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// What stands below `--- title`.
fn section(body: &str, title: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in body.lines() {
        if let Some(name) = line.strip_prefix("--- ") {
            inside = name == title;
        } else if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn remarks(main_cf: &str, master_cf: &str) -> String {
    let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: master_cf.into() };
    let list = match Config::from_snapshot(Path::new(""), &snapshot, &[]) {
        Ok((_, list)) | Err(list) => list,
    };
    list.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(remark: &Diagnostic) -> String {
    let severity = match remark.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    format!("{severity} {remark}")
}
