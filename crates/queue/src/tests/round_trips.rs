//! A queue file and its journal give back what was put into them, whatever that was.

use mail::{Forwarded, Status, Trace};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::format::attempt;
use crate::{Folder, RecipientState};

/// The last second that the format knows.
const LATEST: u64 = attempt::LATEST;

fn any_address() -> impl Strategy<Value = Address> {
    "\\PC{1,40}".prop_map(|text| Address::new(text).unwrap())
}

/// Of one byte at least: what is empty is as good as none.
fn text() -> impl Strategy<Value = Option<String>> {
    option::of("\\PC{1,40}")
}

fn recipient() -> impl Strategy<Value = Recipient> {
    (any_address(), option::of(any_address()), 0_u8..32, text()).prop_map(
        |(address, original, notify, orcpt)| Recipient {
            address,
            original,
            notify: Notify::from_bits(notify),
            orcpt,
        },
    )
}

/// A client as another mail system knows it: without what only a session knows.
fn remote_client() -> impl Strategy<Value = Client> {
    let words = ["\\PC{0,40}", "\\PC{0,40}", "\\PC{0,40}", "\\PC{0,40}"];
    (words, any::<u16>()).prop_map(|([name, address, helo, protocol], port)| Client {
        name,
        address,
        port,
        helo,
        protocol,
        ..Client::default()
    })
}

fn client() -> impl Strategy<Value = Client> {
    (remote_client(), ["\\PC{0,40}", "\\PC{0,40}", "\\PC{0,40}"]).prop_map(
        |(client, [sasl_method, sasl_username, sasl_sender])| Client {
            sasl_method,
            sasl_username,
            sasl_sender,
            ..client
        },
    )
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let origin = prop_oneof![
        any::<bool>().prop_map(|rewrite_headers| Origin::Smtp { rewrite_headers }),
        any::<u32>().prop_map(|uid| Origin::Local { uid }),
        Just(Origin::Internal),
    ];
    let options = (
        select(vec![None, Some(DsnReturn::Full), Some(DsnReturn::Headers)]),
        select(vec![Body::Unspecified, Body::SevenBit, Body::EightBitMime]),
        select(vec![Trace::None, Trace::Deliveries, Trace::Probe, Trace::Verification]),
        any::<bool>(),
        text(),
        text(),
    );
    let forwarded = (option::of(remote_client()), text()).prop_map(|(client, id)| Forwarded { client, id });
    let sender = prop_oneof![Just(Address::null()), any_address()];
    let arrival = (0..LATEST, 0_u32..1_000_000_000).prop_map(|(s, nanos)| Duration::new(s, nanos));
    (sender, vec(recipient(), 0..20), arrival, origin, client(), options, option::of(forwarded)).prop_map(
        |(sender, recipients, arrival, origin, client, options, forwarded)| {
            let (ret, body, trace, smtputf8, envid, content_filter) = options;
            Envelope {
                origin,
                client,
                envid,
                ret,
                body,
                smtputf8,
                content_filter,
                trace,
                forwarded,
                ..Envelope::new(sender, recipients, arrival)
            }
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let kinds = (
        select(vec![Status::Sent, Status::Deferred, Status::Bounced]),
        select(vec![Served::Delivered, Served::Relayed, Served::Expanded, Served::PassedOn]),
        (0_u16..1000, 0_u16..1000),
    );
    let said = ("\\PC{0,40}", "\\PC{0,300}", text(), text());
    (kinds, said, option::of(any_address())).prop_map(|(kinds, said, final_recipient)| {
        let ((status, served, (subject, detail)), (relay, text, remote_mta, diagnostic)) = (kinds, said);
        let class = match status {
            Status::Sent => 2,
            Status::Deferred => 4,
            Status::Bounced => 5,
        };
        let dsn = Dsn::new(class, subject, detail);
        let plain = Outcome::sent(&relay, text);
        Outcome { status, dsn, served, remote_mta, diagnostic, final_recipient, ..plain }
    })
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    // Microseconds are kept; the epoch itself stands for none.
    let time = || (1..LATEST * 1_000_000).prop_map(|micros| UNIX_EPOCH + Duration::from_micros(micros));
    (time(), any::<u32>(), outcome(), option::of(time())).prop_map(
        |(time, recipient, outcome, next_attempt)| Attempt { time, recipient, outcome, next_attempt },
    )
}

proptest! {
    #[test]
    fn an_attempt_is_read_as_it_was_recorded(recorded in any_attempt(), behind in vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        attempt::encode(&recorded, &mut bytes);
        let length = bytes.len();
        for end in 0..length {
            prop_assert_eq!(attempt::decode(&bytes[..end]), None, "torn after {} bytes", end);
        }
        bytes.extend_from_slice(&behind);
        prop_assert_eq!(attempt::decode(&bytes), Some((recorded, length)));
    }
}

proptest! {
    // Each makes a queue, and syncs.
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_message_is_read_as_it_was_queued(
        envelope in envelope(),
        content in vec(any::<u8>(), 0..5000),
        attempts in vec(any_attempt(), 0..10),
        marks in vec(any::<u32>(), 0..10),
    ) {
        let queue = queue();
        let id = queue.commit(&envelope, &content);
        let mut message = queue.active.claim_verified(id).unwrap();
        let count = u32::try_from(envelope.recipients.len()).unwrap().max(1);
        let marks: Vec<_> = marks.into_iter().map(|number| (number % count, RecipientState::Done)).collect();
        message.append(&attempts, &marks).unwrap();
        message.hold().unwrap();
        let stored = queue.root.read_only().unwrap().open(Folder::Hold, id).unwrap();
        let recipients = stored.recipients_from(0, usize::MAX).unwrap();
        for recipient in &recipients {
            let is_marked = marks.contains(&(recipient.index, RecipientState::Done));
            prop_assert_eq!(is_marked, recipient.state == RecipientState::Done);
        }
        let recipients = recipients.into_iter().map(|one| one.recipient).collect();
        let read = Envelope { recipients, ..stored.envelope_without_recipients().clone() };
        prop_assert_eq!(read, envelope);
        let journal: Vec<Attempt> = stored.journal().map(Result::unwrap).collect();
        prop_assert_eq!(journal, attempts);
        let mut copied = Vec::new();
        stored.content().copy_to(&mut copied).unwrap();
        prop_assert_eq!(copied, content);
        stored.verify_content().unwrap();
    }
}
