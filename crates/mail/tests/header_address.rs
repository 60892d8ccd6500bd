//! The table of header values beside this file.

use std::convert::Infallible;

use mail::Address;
use mail::header_address::{Mailboxes, rewrite};

#[test]
fn every_line_of_the_table_holds() {
    let table = include_str!("header_address.txt");
    for case in table.split("\n\n").filter(|case| !case.starts_with('#')) {
        let lines: Vec<&str> = case.trim_matches('\n').split('\n').collect();
        let [value, addresses, rewritten] = lines[..] else { panic!("not three lines: {case}") };
        let value = unescaped(value);
        let found: Vec<String> = Mailboxes::new(value.as_bytes()).map(|m| m.address.to_string()).collect();
        assert_eq!(found.join(" | "), addresses[1..].trim_start(), "addresses of {value}");

        let mut out = Vec::new();
        let changed = rewrite(value.as_bytes(), &mut out, complete).unwrap();
        let expected = unescaped(rewritten[1..].trim_start());
        let expected = if expected.is_empty() { &value } else { &expected };
        assert_eq!(&String::from_utf8(out).unwrap(), expected);
        assert_eq!(changed, *expected != value, "{value}");
    }
}

fn complete(address: &Address) -> Result<Option<Address>, Infallible> {
    Ok(match address.domain() {
        Some(_) => None,
        None => Address::new(format!("{address}@example.com")).ok(),
    })
}

fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
}
