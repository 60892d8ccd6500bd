//! What one side writes, the other reads as the same, whatever it is.

use mail::Address;
use proptest::collection::vec;
use proptest::prelude::*;
use smtp_proto::client::{Encoder, Framing};
use smtp_proto::content::{BareNewline, Data};
use smtp_proto::path::{self, PathRules};
use smtp_proto::xtext;

/// Content full of what matters to dot-stuffing.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![3 => Just(b'.'), 3 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(0), 2 => any::<u8>()];
    vec(byte, 0..300)
}

/// `bytes` in pieces of these sizes, again and again.
fn cut<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |size| {
        let (piece, rest) = bytes.split_at_checked(*size).unwrap_or((bytes, &[]));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The content of a message whose end is the end of `wire`, which comes in pieces.
fn decoded(wire: &[u8], sizes: &[usize]) -> Option<Vec<u8>> {
    let (mut data, mut pending, mut content) = (Data::new(BareNewline::Normalize), Vec::new(), Vec::new());
    let mut left = wire.len();
    for piece in cut(wire, sizes) {
        left -= piece.len();
        pending.extend_from_slice(piece);
        let decoded = data.decode(&mut pending);
        content.extend_from_slice(&pending[..decoded.made]);
        pending.drain(..decoded.used);
        if decoded.end {
            return (left == 0 && pending.is_empty()).then_some(content);
        }
    }
    None
}

fn piece_sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..40, 1..8)
}

proptest! {
    #[test]
    fn content_arrives_as_it_was_sent_however_it_is_cut(
        content in content(), sent in piece_sizes(), received in piece_sizes()
    ) {
        let (mut encoder, mut wire) = (Encoder::new(Framing::Dots, 0), Vec::new());
        cut(&content, &sent).for_each(|piece| encoder.encode(piece, &mut wire));
        encoder.finish(&mut wire);
        let mut expected = content;
        if !expected.is_empty() && !expected.ends_with(b"\n") {
            expected.push(b'\n');
        }
        prop_assert_eq!(decoded(&wire, &received), Some(expected));
    }

    #[test]
    fn any_local_part_is_the_same_behind_its_quotes(local in "\\PC{1,60}", strict: bool) {
        let address = Address::new(format!("{local}@example.com")).unwrap();
        let path = format!("<{}>", address.to_path());
        prop_assert_eq!(path::split(&path), (path.as_str(), ""));
        prop_assert_eq!(path::parse(&path, PathRules { strict, ..PathRules::default() }), Ok(address));
    }

    #[test]
    fn any_printable_text_goes_through_xtext(text in "\\PC{0,80}") {
        let encoded = xtext::encode(&text);
        prop_assert!(!encoded.contains([' ', '=']));
        prop_assert_eq!(xtext::decode(&encoded), Some(text));
    }
}
