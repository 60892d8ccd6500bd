//! Lookup tables: their sources, their index, their patterns, and what stands in access tables.

use std::io::BufReader;
use std::os::fd::AsRawFd as _;

use lookup::cdb::{Builder, Cdb, Keep};
use lookup::source::{Grammar, LogicalLines, split_entry};
use lookup::{Maps, MatchList, Network};
use smtp_proto::Reply;

use crate::messages::CONFIG;
use crate::pieces::{halves, take_byte};

/// The text of a table, as postmap and `texthash:` read it: two readers find the same entries, and so does the index that is
/// made of them.
pub fn table_source(mut data: &[u8]) {
    let alias = take_byte(&mut data) & 1 > 0;
    let grammar = if alias { Grammar::Alias } else { Grammar::Map };
    let mut builder = Builder::new(false);
    let mut entries = Vec::new();
    let mut lines = LogicalLines::new(BufReader::new(data), "fuzz");
    while let Ok(Some(line)) = lines.next() {
        assert!(!line.text.is_empty() && line.text.len() <= data.len());
        let mut scratch = Vec::new();
        if let Ok((key, value)) = split_entry(grammar, line.text, &mut scratch) {
            assert!(key.len() + value.len() <= line.text.len());
            assert!(!value.is_empty(), "an entry without value");
            assert!(builder.add(key, value, 1).is_ok());
            entries.push((key.to_vec(), value.to_vec()));
        }
    }
    let Ok((bytes, dropped)) = builder.finish(Keep::First) else {
        unreachable!("an index that is too large");
    };
    let index = Cdb::from_vec(bytes);
    assert!(index.is_ok(), "an index that was made cannot be read");
    let Ok(index) = index else { return };
    assert_eq!(index.records().count() + dropped.len(), entries.len());
    for (key, _) in &entries {
        let first = entries.iter().find(|(other, _)| other == key).map(|(_, value)| value.as_slice());
        let found = index.get(key);
        // A key that ends in a zero byte makes the reader believe in a file of the kind that has one at each end.
        if !index.has_nul() {
            assert_eq!(found, Ok(first), "an entry is not found");
        }
    }
}

/// An index file: read within bounds, and every search ends.
pub fn table_index(data: &[u8]) {
    let Ok(index) = Cdb::from_vec(data.to_vec()) else { return };
    let mut keys = vec![b"".to_vec(), b"postmaster".to_vec()];
    for (count, record) in index.records().enumerate() {
        assert!(count <= data.len(), "records without end");
        let Ok((key, _)) = record else { break };
        if keys.len() < 20 {
            keys.push(key.to_vec());
        }
    }
    for key in keys {
        if let Ok(Some(value)) = index.get(&key) {
            assert!(value.len() <= data.len());
        }
    }
}

/// Tables of patterns: read whatever they are; a lookup ends and its result is bounded.
pub fn patterns(mut data: &[u8]) {
    let kind = match take_byte(&mut data) & 3 {
        0 => "regexp",
        1 => "cidr",
        2 => "texthash",
        _ => "regexp",
    };
    let (text, key) = halves(data);
    let Ok(file) = sys::descriptors::memory_file("table", text) else { return };
    let spec = format!("{kind}:/proc/self/fd/{}", file.as_raw_fd());
    let key = String::from_utf8_lossy(key);
    if let Ok(table) = lookup::open(&spec) {
        for key in [key.as_ref(), "192.0.2.1", "user@example.com", ""] {
            if let Ok(Some(value)) = table.get(key) {
                assert!(!value.is_empty(), "an empty value");
                assert!(value.len() <= text.len() * (key.len() + 2) + 100, "{} bytes", value.len());
            }
        }
    }
}

/// Lists that are matched against, and the names of tables in them. Files are kept out: they could be any of this machine.
pub fn match_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace('/', "_").replace("_8", "/8").replace("_33", "/33");
    let items = config::split_list(&text);
    if items.iter().any(|item| item.starts_with('/') || item.starts_with("!/")) {
        return;
    }
    if let Ok(list) = MatchList::strings("fuzz", &items) {
        let _ = list.matches("example.com");
        if let Ok(ip) = "192.0.2.1".parse() {
            let _ = list.matches_host("mail.example.com", ip);
        }
    }
    for item in &items {
        if let Ok(network) = Network::parse(item) {
            assert_eq!(
                Network::parse(&network.to_string()).ok(),
                Some(network),
                "another network after it was printed"
            );
        }
    }
    if let Ok(maps) = Maps::open(&items) {
        let _ = maps.get("user@example.com");
    }
}

/// Restrictions and what access tables say: judged whatever they are.
pub fn access(data: &[u8]) {
    let text: String = String::from_utf8_lossy(data).replace('/', "_");
    let config = CONFIG
        .with_text("smtpd_restriction_classes", "one two")
        .with_text("one", &text)
        .with_text("two", "one two")
        .with_text("smtpd_recipient_restrictions", &text);
    let found = smtpd::restrictions::verify(&config);
    assert!(found.len() <= 100 + 10 * data.len());
    if let Some(reply) = Reply::parse(&text) {
        let mut wire = Vec::new();
        reply.write(&mut wire, true);
        let lines = wire.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        assert!(
            lines.into_iter().all(|line| line.len() >= 4 && line.ends_with(b"\r")),
            "a reply that is none"
        );
    }
}
