//! SMTP on both sides.

mod client;
mod server;

pub use client::smtp_client;
pub use server::smtp_server;

use smtp_proto::client::{Encoder, Framing};
use smtp_proto::content::{BareNewline, Chunk, Data};
use smtp_proto::path::{self, PathRules};
use smtp_proto::{parameter, server::Settings};

use crate::pieces::{cut, take_byte};

/// The ways to take bare line feeds.
pub(crate) fn bare_newline(choice: u8) -> BareNewline {
    match choice & 3 {
        0 => BareNewline::Normalize,
        1 => BareNewline::Allow,
        2 => BareNewline::Note,
        _ => BareNewline::Reject,
    }
}

/// Content after DATA: the same however it is cut, never larger than the wire, ended where the standard says and nowhere
/// else; and what the client's encoder makes of any content comes back.
pub fn content(mut data: &[u8]) {
    let mode = bare_newline(take_byte(&mut data));
    let seed = take_byte(&mut data);
    // How long runs of carriage returns are cut, where bare line feeds are allowed, depends on when they come.
    if mode == BareNewline::Allow && data.windows(60).any(|run| run.iter().all(|byte| *byte == b'\r')) {
        return;
    }
    let whole = decode(mode, data, 0);
    assert_eq!(whole, decode(mode, data, seed), "another message when it is cut");
    assert!(whole.content.len() <= data.len());
    if mode != BareNewline::Allow {
        let standard = match data.strip_prefix(b".\r\n") {
            Some(_) => Some(3),
            None => data.windows(5).position(|five| five == b"\r\n.\r\n").map(|place| place + 5),
        };
        assert_eq!(whole.end, standard, "ended elsewhere than at the standard's end of data");
    }
    for limit in [0, 998] {
        let mut wire = Vec::new();
        let mut encoder = Encoder::new(Framing::Dots, limit);
        cut(data, seed).for_each(|piece| encoder.encode(piece, &mut wire));
        encoder.finish(&mut wire);
        assert_no_bare_line_feed(&wire);
        let arrived = decode(BareNewline::Normalize, &wire, seed);
        assert_eq!(arrived.end, Some(wire.len()), "the sender's end is not the receiver's");
        if limit == 0 {
            assert_eq!(arrived.content, as_sent(data), "content changed on its way");
        }
    }
}

fn assert_no_bare_line_feed(wire: &[u8]) {
    let bare = wire.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || wire[at - 1] != b'\r'));
    assert!(!bare, "a bare line feed went out");
}

/// The content as a receiver has it: with a line end at its end, and a carriage return before a line end gone into it.
fn as_sent(content: &[u8]) -> Vec<u8> {
    let mut expected = content.to_vec();
    if !content.is_empty() && !content.ends_with(b"\n") {
        expected.push(b'\n');
    }
    // The encoder adds a carriage return to each line feed, and the decoder takes exactly one.
    // A dot behind NULs is stuffed before the NULs, so that nothing else changes.
    expected
}

#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    content: Vec<u8>,
    end: Option<usize>,
    size: u64,
    bare: bool,
}

fn decode(mode: BareNewline, wire: &[u8], seed: u8) -> Decoded {
    let mut data = Data::new(mode);
    let (mut content, mut pending, mut used, mut end) = (Vec::new(), Vec::new(), 0, None);
    for piece in cut(wire, seed) {
        pending.extend_from_slice(piece);
        let decoded = data.decode(&mut pending);
        assert!(decoded.made <= decoded.used && decoded.used <= pending.len());
        content.extend_from_slice(&pending[..decoded.made]);
        pending.drain(..decoded.used);
        used += decoded.used;
        // What cannot be understood yet must stay small, or a buffer fills with it.
        assert!(decoded.end || pending.len() <= 66, "{} bytes held back", pending.len());
        if decoded.end {
            end = Some(used);
            break;
        }
    }
    if end.is_none() {
        // How much waits for what may follow depends on nothing but the bytes.
        used += pending.len();
        assert_eq!(used, wire.len());
    }
    Decoded { content, end, size: data.size(), bare: data.bare_newline() }
}

/// Content in BDAT chunks: the same however the chunks are cut on the wire, and a bound on its size.
pub fn bdat(mut data: &[u8]) {
    let mode = bare_newline(take_byte(&mut data));
    let seed = take_byte(&mut data);
    let chunk_seed = take_byte(&mut data);
    let chunks: Vec<&[u8]> = cut(data, chunk_seed).collect();
    let whole = decode_chunks(mode, &chunks, 0);
    assert_eq!(whole, decode_chunks(mode, &chunks, seed), "another message when chunks are cut");
    // Where the client parts its chunks has no meaning either (RFC 3030 section 2).
    assert_eq!(whole, decode_chunks(mode, &[data], seed), "another message in other chunks");
    assert!(whole.0.len() <= data.len() + 1);
    assert!(whole.0.is_empty() || whole.0.ends_with(b"\n"));
}

fn decode_chunks(mode: BareNewline, chunks: &[&[u8]], seed: u8) -> (Vec<u8>, bool, u64) {
    let (mut chunk, mut content) = (Chunk::new(mode), Vec::new());
    for bytes in chunks {
        let (mut pending, mut rest) = (Vec::new(), bytes.len());
        for piece in cut(bytes, seed) {
            pending.extend_from_slice(piece);
            rest -= piece.len();
            content.extend_from_slice(chunk.owed(&pending));
            let decoded = chunk.decode(&mut pending, u64::try_from(rest).unwrap_or(0));
            content.extend_from_slice(&pending[..decoded.made]);
            pending.drain(..decoded.used);
        }
        assert!(pending.is_empty(), "bytes of a chunk were left over");
    }
    content.extend_from_slice(chunk.finish());
    (content, chunk.bare_newline(), chunk.size())
}

/// The arguments of MAIL and RCPT: what was understood is understood again from its own spelling.
pub fn path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let arguments = text.trim();
    let settings = Settings::default();
    let rules = parameter::ArgumentRules {
        strict_envelopes: data.len().is_multiple_of(2),
        numeric_domain: data.len().is_multiple_of(3),
        strict_smtputf8: false,
        extensions: parameter::Extensions::ALL_PLAIN,
        message_size_limit: settings.message_size_limit,
    };
    let _ = parameter::mail(arguments, &rules).map(|mail| assert!(mail.sender.as_str().len() <= 2048));
    let _ = parameter::rcpt(arguments, true, &rules).map(|rcpt| assert!(!rcpt.recipient.is_null()));
    let (path, rest) = path::split(arguments);
    assert!(path.len() + rest.len() <= arguments.len());
    for (strict, numeric_domain) in [(false, false), (true, false), (false, true)] {
        let rules = PathRules { strict, numeric_domain, ..PathRules::default() };
        let Ok(address) = path::parse(path, rules) else { continue };
        let spelt = format!("<{}>", address.to_path());
        assert_eq!(path::parse(&spelt, rules), Ok(address), "{path} was read, {spelt} is not the same");
    }
}
