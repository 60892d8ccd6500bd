//! Tables whose files change while they are open.

// Clippy knows tests by their attribute, and these helpers have none.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lookup::Table;
use lookup::cdb::{Builder, Keep};

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn collect_warnings() {
    lookup::report_warnings_to(|text| WARNINGS.lock().unwrap().push(text.to_owned()));
}

fn warnings_about(path: &Path) -> Vec<String> {
    let name = path.display().to_string();
    WARNINGS.lock().unwrap().iter().filter(|warning| warning.contains(&name)).cloned().collect()
}

/// Replaces an index as postmap does.
fn write_index(path: &Path, entries: impl IntoIterator<Item = (String, String)>) {
    let mut builder = Builder::new(false);
    for (key, value) in entries {
        builder.add(key.as_bytes(), value.as_bytes(), 1).unwrap();
    }
    let (bytes, _) = builder.finish(Keep::First).unwrap();
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn one(key: &str, value: &str) -> [(String, String); 1] {
    [(key.to_owned(), value.to_owned())]
}

/// Asks until the answer is the expected one, for as long as a change may take to be noticed, and generously longer.
#[track_caller]
fn soon(table: &dyn Table, key: &str, expected: Option<&str>) {
    let start = Instant::now();
    loop {
        // A table without content fails until it has some.
        let answer = table.get(key).unwrap_or_default();
        if answer.as_deref() == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{key} is {answer:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_replaced_index_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("t.db");
    write_index(&index, one("a", "1"));
    let table = lookup::open(&format!("hash:{}", folder.path().join("t").display())).unwrap();
    assert_eq!(table.get("A").unwrap().as_deref(), Some("1"));
    write_index(&index, one("a", "2"));
    soon(table.as_ref(), "a", Some("2"));
    write_index(&index, one("b", "2"));
    soon(table.as_ref(), "a", None);
}

#[test]
fn edited_text_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, before, after) in
        [("texthash", "a 1\n", "a 2\n"), ("regexp", "/a/ 1\n", "/a/ 2\n"), ("cidr", "::/0 1\n", "::/0 2\n")]
    {
        let key = if kind == "cidr" { "::1" } else { "a" };
        let path = file(&folder, kind, before);
        let table = lookup::open(&format!("{kind}:{}", path.display())).unwrap();
        assert_eq!(table.get(key).unwrap().as_deref(), Some("1"));
        // In place, with the same size, possibly within one tick of the file system's clock.
        fs::write(&path, after).unwrap();
        soon(table.as_ref(), key, Some("2"));
    }
}

#[test]
fn the_last_good_content_stays_when_a_file_goes_bad() {
    collect_warnings();
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("kept.db");
    write_index(&index, one("a", "1"));
    let table = lookup::open(&format!("hash:{}", folder.path().join("kept").display())).unwrap();
    fs::write(&index, "garbage").unwrap();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(table.get("a").unwrap().as_deref(), Some("1"));
    }
    fs::remove_file(&index).unwrap();
    std::thread::sleep(Duration::from_millis(15));
    assert_eq!(table.get("a").unwrap().as_deref(), Some("1"));
    let warnings = warnings_about(&index);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("damaged") && warnings[0].ends_with("keeping what it held before"));
    write_index(&index, one("a", "2"));
    soon(table.as_ref(), "a", Some("2"));
}

#[test]
fn a_large_index_that_is_truncated_in_place_is_an_error_and_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("large.db");
    write_index(&index, (0..50_000).map(|n| (format!("key{n}"), "v".repeat(40))));
    assert!(fs::metadata(&index).unwrap().len() > 2 * 1024 * 1024);
    let table = lookup::open(&format!("hash:{}", folder.path().join("large").display())).unwrap();
    assert!(table.get("key777").unwrap().is_some());
    fs::OpenOptions::new().write(true).truncate(true).open(&index).unwrap();
    // A lookup within the next 10 milliseconds is the one that nothing can protect.
    std::thread::sleep(Duration::from_millis(30));
    let error = table.get("key777").unwrap_err();
    assert!(error.to_string().contains("too short for an index: run `postmap hash:"), "{error}");
    write_index(&index, one("a", "1"));
    soon(table.as_ref(), "a", Some("1"));
}

#[test]
fn a_missing_file_fails_lookups_until_it_is_there() {
    collect_warnings();
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("later");
    let spec = format!("hash:{}", name.display());
    assert!(matches!(lookup::open(&spec), Err(lookup::OpenError::Unavailable(_))));
    let maps = lookup::Maps::open(std::slice::from_ref(&spec)).unwrap();
    let error = maps.get("a").unwrap_err().to_string();
    assert!(error.contains("later.db: No such file or directory (run `postmap hash:"), "{error}");
    assert_eq!(warnings_about(&name).len(), 1);
    write_index(&folder.path().join("later.db"), one("a", "1"));
    // The table is tried again every second.
    let began = std::time::Instant::now();
    let found = loop {
        match maps.get("a") {
            Err(_) if began.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(5))
            }
            result => break result.unwrap(),
        }
    };
    assert_eq!(found.as_deref(), Some("1"));
}

#[test]
fn an_index_older_than_its_source_is_remarked_upon_once() {
    collect_warnings();
    let folder = tempfile::tempdir().unwrap();
    let source = file(&folder, "aliases", "a: 2\n");
    write_index(&folder.path().join("aliases.db"), one("a", "1"));
    let index = fs::File::open(folder.path().join("aliases.db")).unwrap();
    index.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    let table = lookup::open(&format!("hash:{}", source.display())).unwrap();
    assert_eq!(table.get("a").unwrap().as_deref(), Some("1"));
    let warnings = warnings_about(&source);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("is older than its source") && warnings[0].contains("run `postalias hash:"));
}

#[test]
fn types_that_do_not_exist_here_say_what_does() {
    let error = lookup::open("pcre:/etc/x").err().unwrap();
    assert!(
        matches!(&error, lookup::OpenError::Configuration(text) if text.contains("use regexp:")),
        "{error}"
    );
    let error = lookup::open("hsah:/etc/x").err().unwrap().to_string();
    assert!(error.contains("there is no table type \"hsah\"") && error.contains("hash"), "{error}");
    assert!(lookup::open("/etc/x").is_err());
    assert!(lookup::types().is_sorted());
    assert!(lookup::open(&format!("{}static:x", "proxy:".repeat(10))).is_ok());
    let error = lookup::open(&format!("{}static:x", "proxy:".repeat(100_000))).err().unwrap().to_string();
    assert!(error.ends_with("more than 10 tables stand in each other"));
}
