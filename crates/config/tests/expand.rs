//! The golden table of expansions.

use config::{Config, Snapshot};

#[test]
fn expansions_follow_the_golden_table() {
    let mut failures = Vec::new();
    for line in include_str!("expand.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (template, expected) = line.split_once(" =>").expect("TEMPLATE => RESULT");
        let expected = expected.strip_prefix(' ').unwrap_or(expected);
        let got = expand(template);
        if got != expected {
            failures.push(format!("{template}\n  expected {expected}\n  got      {got}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What the template becomes as the value of mydestination; `!` if it is refused.
fn expand(template: &str) -> String {
    let main_cf = format!(
        "compatibility_level = 3.6\nrelay_domains = x y\nrelay_transport =\nmydestination = {template}\n"
    );
    let snapshot = Snapshot { main_cf: main_cf.into_bytes(), master_cf: Vec::new() };
    match Config::from_snapshot("/nowhere".as_ref(), &snapshot, &[]) {
        Ok((config, _)) => config.text("mydestination").expect("a parameter"),
        Err(_) => "!".to_owned(),
    }
}
