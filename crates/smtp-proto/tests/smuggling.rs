//! The table of SMTP smuggling: `smuggling.txt` says what each variant must become.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use smtp_proto::Reply;
use smtp_proto::content::BareNewline;
use smtp_proto::server::{Event, Policy, Session, Settings};

#[test]
fn no_variant_ends_content_but_the_standard_one() {
    let table = include_str!("smuggling.txt");
    let mut rows = 0;
    for (number, line) in
        table.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    {
        let mut fields = line.split_whitespace();
        let (mode, wire, ends) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let content = fields.next().unwrap_or("");
        let modes: &[&str] = if mode == "safe" { &["normalize", "note", "reject"] } else { &[mode] };
        for mode in modes {
            for step in [1, 2, 3, 5, 1000] {
                let seen = receive(mode_of(mode), &unescape(wire), step);
                let mut expected = unescape(content);
                if ends == "no" {
                    expected.extend_from_slice(b"x\n");
                }
                let expected = if content == "refused" { None } else { Some(expected) };
                let place = format!("smuggling.txt:{}: {mode}, in steps of {step}", number + 1);
                assert_eq!(seen, (expected, ends == "yes"), "{place}");
            }
        }
        rows += 1;
    }
    assert!(rows > 40);
}

fn mode_of(word: &str) -> BareNewline {
    match word {
        "no" => BareNewline::Allow,
        "normalize" => BareNewline::Normalize,
        "note" => BareNewline::Note,
        "reject" => BareNewline::Reject,
        _ => panic!("{word} is no mode"),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut chars) = (Vec::new(), text.chars());
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('r')) => out.push(b'\r'),
            (_, Some('n')) => out.push(b'\n'),
            (_, Some('t')) => out.push(b'\t'),
            (_, Some('0')) => out.push(0),
            (_, Some('x')) => {
                let digits: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            (c, _) => out.extend(c.to_string().bytes()),
        }
    }
    out
}

/// The content of the first message, none if it was refused, and whether `x` came to be taken for a command.
fn receive(mode: BareNewline, wire: &[u8], step: usize) -> (Option<Vec<u8>>, bool) {
    let settings = Settings { forbid_unauth_pipelining: false, ..Settings::default() };
    let policy = Policy { bare_newline: mode, ..Policy::default() };
    let mut session = Session::new(Arc::new(settings), policy, vec![0; 4096]);
    session.greet(&Reply::plain(220, "mx"), "client");
    let mut bytes = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n".to_vec();
    bytes.extend_from_slice(wire);
    bytes.extend_from_slice(b"x\r\n.\r\n");
    let (mut content, mut first, mut commands) = (Vec::new(), None, false);
    for piece in bytes.chunks(step) {
        session.input().space()[..piece.len()].copy_from_slice(piece);
        session.input().filled(piece.len());
        loop {
            match session.next_event() {
                Event::Read => break,
                Event::Content(bytes) => content.extend_from_slice(bytes),
                Event::End { .. } => {
                    first = Some(std::mem::take(&mut content));
                    session.answer(&Reply::plain(250, "Ok"));
                }
                Event::Abandoned(_) => content.clear(),
                Event::Unknown(word, _) => {
                    commands |= word == "x";
                    session.accept();
                }
                Event::Notice(_) | Event::Refused(..) | Event::Delay => {}
                _ => session.accept(),
            }
        }
    }
    (first, commands)
}
