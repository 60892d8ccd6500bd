//! Tables and what is looked up in them, as data: every `.txt` file beside this one.
//!
//! ```text
//! === title
//! a table's text
//! --- type                 the table is that text in a file of this type; or `--- spec` and one line type:{…}
//! key => value
//! key =>                   not found
//! key =! words             the lookup fails, and says these words
//! ? words                  opening the table warns with a line that contains these words; every warning is listed
//! ```
//!
//! A key or value may be written in double quotes to keep white space at its ends. Lines that start with `##` are comments.
//!
//! With POSTFIX_POSTMAP set to a command that runs Postfix's postmap, the same lookups are made there too (not the warnings,
//! whose words differ). A section whose title ends with `(differs: why)` is left out of that.

// Clippy knows tests by their attribute, and these helpers have none.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Section {
    title: String,
    table: String,
    kind: String,
    lookups: Vec<(String, Expected)>,
    warnings: Vec<String>,
}

enum Expected {
    Value(String),
    NotFound,
    Failure(String),
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).to_owned()
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("##")) {
        if let Some(title) = line.strip_prefix("=== ") {
            let (title, table, kind) = (title.to_owned(), String::new(), String::new());
            sections.push(Section { title, table, kind, lookups: Vec::new(), warnings: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else { panic!("text before the first section: {line}") };
        if let Some(kind) = line.strip_prefix("--- ") {
            kind.clone_into(&mut section.kind);
        } else if section.kind.is_empty() {
            section.table.push_str(line);
            section.table.push('\n');
        } else if let Some(words) = line.strip_prefix("? ") {
            section.warnings.push(words.to_owned());
        } else if let Some((key, words)) = line.split_once(" =! ") {
            section.lookups.push((unquoted(key), Expected::Failure(words.to_owned())));
        } else if let Some((key, value)) = line.split_once(" =>") {
            let value = unquoted(value);
            let expected = if value.is_empty() { Expected::NotFound } else { Expected::Value(value) };
            section.lookups.push((unquoted(key), expected));
        } else {
            assert!(line.is_empty(), "cannot read: {line}");
        }
    }
    sections
}

fn spec(section: &Section, folder: &Path) -> String {
    if section.kind == "spec" {
        return section.table.trim().to_owned();
    }
    let file = folder.join("table");
    fs::write(&file, &section.table).unwrap();
    format!("{}:{}", section.kind, file.display())
}

fn check(file: &str, section: &Section, folder: &Path) {
    let context = format!("{file}, \"{}\"", section.title);
    WARNINGS.lock().unwrap().clear();
    let table = lookup::open(&spec(section, folder)).unwrap_or_else(|error| panic!("{context}: {error}"));
    let warnings = WARNINGS.lock().unwrap().clone();
    assert_eq!(warnings.len(), section.warnings.len(), "{context}: {warnings:#?}");
    for (warning, expected) in warnings.iter().zip(&section.warnings) {
        assert!(warning.contains(expected), "{context}: {warning}, where expected: {expected}");
    }
    for (key, expected) in &section.lookups {
        match (table.get(key), expected) {
            (Ok(Some(value)), Expected::Value(expected)) => assert_eq!(&value, expected, "{context}: {key}"),
            (Ok(None), Expected::NotFound) => {}
            (Err(error), Expected::Failure(words)) if error.to_string().contains(words) => {}
            (result, _) => panic!("{context}: {key}: {result:?}"),
        }
    }
}

fn check_postfix(command: &str, file: &str, section: &Section, folder: &Path) {
    for (key, expected) in &section.lookups {
        let mut words = command.split_whitespace();
        let output = Command::new(words.next().unwrap())
            .args(words)
            .args(["-q", key, &spec(section, folder)])
            .output()
            .unwrap();
        let value = String::from_utf8(output.stdout).unwrap();
        let as_expected = match expected {
            Expected::Value(expected) => value.trim_end_matches('\n') == expected,
            Expected::NotFound | Expected::Failure(_) => value.is_empty() && !output.status.success(),
        };
        assert!(as_expected, "Postfix, {file}, \"{}\": {key} => {value}", section.title);
    }
}

#[test]
fn every_lookup_gives_what_the_table_says() {
    lookup::report_warnings_to(|text| WARNINGS.lock().unwrap().push(text.to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let postfix = std::env::var("POSTFIX_POSTMAP").ok();
    let mut count = 0;
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        for section in sections(&fs::read_to_string(&path).unwrap()) {
            check(&file, &section, folder.path());
            if let Some(command) = postfix.as_ref().filter(|_| !section.title.contains("(differs")) {
                check_postfix(command, &file, &section, folder.path());
            }
            count += 1;
        }
    }
    assert!(count > 20, "only {count} sections");
}
