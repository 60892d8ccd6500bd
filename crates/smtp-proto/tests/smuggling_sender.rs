//! SMTP smuggling, seen from the sender: nothing that a careless server takes for the end of content is sent within it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use smtp_proto::client::{Encoder, Framing};
use smtp_proto::content::{BareNewline, Data};

/// The sequences, and whether they are kept in without the help of cleanup.
fn table() -> Vec<(Vec<u8>, bool)> {
    let rows =
        include_str!("end-of-data.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let sequence = fields.next().unwrap().replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
        (sequence.into_bytes(), fields.next().unwrap() == "stuffing")
    };
    rows.map(row).collect()
}

/// What goes out for content that came in like this, in pieces of `step` bytes.
fn relay(wire: &[u8], replace: bool, step: usize) -> Vec<u8> {
    let mut pending = [wire, b"\r\nlast\r\n.\r\n"].concat();
    let decoded = Data::new(BareNewline::Normalize).decode(&mut pending);
    let mut content = pending[..decoded.made].to_vec();
    if replace {
        content.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
    }
    let (mut encoder, mut out) = (Encoder::new(Framing::Dots, 998), Vec::new());
    content.chunks(step).for_each(|piece| encoder.encode(piece, &mut out));
    encoder.finish(&mut out);
    out
}

fn holds(bytes: &[u8], sequence: &[u8]) -> bool {
    bytes.windows(sequence.len()).any(|window| window == sequence)
}

#[test]
fn no_end_that_a_careless_server_sees_is_sent_within_content() {
    let table = table();
    assert!(table.len() > 20);
    for (attack, _) in &table {
        for replace in [true, false] {
            for step in [1, 2, 3, 5, 1000] {
                let sent = relay(
                    &[b"Subject: x\r\n\r\na", attack.as_slice(), b"MAIL FROM:<x@y>"].concat(),
                    replace,
                    step,
                );
                let within = sent.strip_suffix(b".\r\n").unwrap();
                let without_nul: Vec<u8> = within.iter().copied().filter(|byte| *byte != 0).collect();
                assert!(
                    !holds(within, b"\r\n.\r\n"),
                    "{:?} became {:?}",
                    attack.escape_ascii(),
                    sent.escape_ascii()
                );
                for (end, by_itself) in table.iter().filter(|(_, by_itself)| replace || *by_itself) {
                    // `\r.\n` is kept in by cleanup alone, and so is what it is part of.
                    let careless = [within, without_nul.as_slice()].iter().any(|bytes| holds(bytes, end));
                    let place = (attack.escape_ascii(), end.escape_ascii(), by_itself, replace);
                    assert!(!careless, "{place:?}: {}", sent.escape_ascii());
                }
            }
        }
    }
}

/// A server that knows the protocol gets what was meant, dots, NULs and all.
#[test]
fn stuffing_is_undone_by_the_receiver() {
    for content in [b"\0.\n.\n..\n\0\n\0.".as_slice(), b".\0\n", b"a\r.\r\nb\n", b"\r\n.\r\n"] {
        let (mut encoder, mut wire) = (Encoder::new(Framing::Dots, 998), Vec::new());
        encoder.encode(content, &mut wire);
        encoder.finish(&mut wire);
        let decoded = Data::new(BareNewline::Normalize).decode(&mut wire);
        assert!(decoded.end && decoded.used == wire.len());
        let last = if content.ends_with(b"\n") { b"".as_slice() } else { b"\n" };
        assert_eq!(
            wire[..decoded.made].escape_ascii().to_string(),
            [content, last].concat().escape_ascii().to_string()
        );
    }
}
