//! What is written is read as the same, whatever it is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mail::header::{self, Next};
use mail::submission::Head;
use mail::{Address, Body, DsnReturn, Notify, Recipient, Trace, header_address};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A field as it may be folded: its name, and the lines of its value.
fn field() -> impl Strategy<Value = String> {
    let lines = vec(("[ \t]{1,3}", "[^\r\n]{0,30}"), 1..4);
    ("[A-Za-z][A-Za-z0-9-]{0,15}", lines).prop_map(|(name, lines)| {
        let value: Vec<String> = lines.into_iter().map(|(blank, text)| blank + &text).collect();
        format!("{name}:{}\n", value.join("\n"))
    })
}

fn head() -> impl Strategy<Value = Head> {
    // Of one byte at least: an empty one is as good as none.
    let text = || option::of("[!-~]{1,40}");
    let address = || "\\PC{1,30}@[a-z.]{1,20}".prop_map(|text| Address::new(text).unwrap());
    let recipient = (address(), 0_u8..16, text()).prop_map(|(address, notify, orcpt)| Recipient {
        notify: Notify::from_bits(notify),
        orcpt,
        ..Recipient::new(address)
    });
    let options = (
        select(vec![None, Some(DsnReturn::Full), Some(DsnReturn::Headers)]),
        select(vec![Body::Unspecified, Body::SevenBit, Body::EightBitMime]),
        select(vec![Trace::None, Trace::Deliveries, Trace::Probe]),
        any::<bool>(),
    );
    let sender = prop_oneof![Just(Address::null()), address()];
    (sender, vec(recipient, 0..5), "\\PC{0,40}", text(), options).prop_map(
        |(sender, recipients, full_name, envid, (ret, body, trace, smtputf8))| Head {
            sender,
            recipients,
            full_name,
            envid,
            ret,
            body,
            smtputf8,
            trace,
        },
    )
}

proptest! {
    #[test]
    fn any_local_part_is_the_same_in_a_header(local in "\\PC{1,60}") {
        let address = Address::new(format!("{local}@example.com")).unwrap();
        let value = format!("A Name (comment) <{}>, other@example.com", address.to_path());
        prop_assert_eq!(header_address::parse_first(&value), Ok(Some(address)));
    }

    #[test]
    fn folded_fields_are_read_one_by_one(fields in vec(field(), 0..6), body in "\\PC{0,20}\n") {
        let text = format!("{}\n{body}", fields.concat());
        let mut rest = text.as_bytes();
        for field in &fields {
            let Next::Field(found) = header::next(rest, true) else {
                return Err(TestCaseError::fail(format!("no field at {rest:?}")));
            };
            prop_assert_eq!(found.bytes(), field.as_bytes());
            rest = &rest[field.len()..];
        }
        prop_assert_eq!(header::next(rest, true), Next::End);
    }

    #[test]
    fn a_submission_says_what_its_sender_said(head in head(), content in vec(any::<u8>(), 0..50)) {
        let mut bytes = head.encode();
        let length = bytes.len();
        bytes.extend_from_slice(&content);
        prop_assert_eq!(Head::decode(&bytes), Ok(Some((head, length))));
    }
}
