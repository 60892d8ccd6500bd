//! What one program sends, the other receives, in whatever pieces it comes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use ipc::agent::Reply;
use ipc::frame::{Frame, Receiver, decode, push_content, push_message};
use mail::{Address, Dsn, Outcome};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Message(Reply),
    Content(Vec<u8>),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![reply().prop_map(Part::Message), vec(any::<u8>(), 1..3000).prop_map(Part::Content)]
}

fn reply() -> impl Strategy<Value = Reply> {
    let text = || option::of("\\PC{0,40}");
    let said = ("\\PC{0,40}", "\\PC{0,200}", text(), text());
    let address = option::of("\\PC{0,40}".prop_map(|text| Address::new(text).unwrap()));
    let keep = any::<u64>().prop_map(|delivery| Reply::Keep { delivery });
    let outcome = (any::<u64>(), any::<u32>(), said, address).prop_map(
        |(delivery, recipient, said, final_recipient)| {
            let (relay, text, remote_mta, diagnostic) = said;
            let outcome = Outcome::deferred(&relay, Dsn::new(4, 4, 1), text);
            let outcome = Outcome { remote_mta, diagnostic, final_recipient, ..outcome };
            Reply::Outcome { delivery, recipient, outcome }
        },
    );
    prop_oneof![4 => outcome, 1 => keep]
}

fn received(socket: &UnixStream) -> Vec<Part> {
    let (mut receiver, mut parts) = (Receiver::new(), Vec::new());
    while let Some(frame) = receiver.next_frame(socket).unwrap() {
        parts.push(match frame {
            Frame::Message(body) => Part::Message(decode(body).unwrap()),
            Frame::Content(body) => Part::Content(body.to_vec()),
        });
    }
    parts
}

proptest! {
    #[test]
    fn frames_are_received_as_they_were_sent(sent in vec(part(), 0..8), size in 1_usize..3000) {
        let mut bytes = Vec::new();
        for part in &sent {
            match part {
                Part::Message(reply) => push_message(&mut bytes, reply).unwrap(),
                Part::Content(content) => push_content(&mut bytes, content),
            }
        }
        let (mut here, there) = UnixStream::pair().unwrap();
        let parts = std::thread::scope(|scope| {
            let reader = scope.spawn(|| received(&there));
            bytes.chunks(size).for_each(|piece| here.write_all(piece).unwrap());
            drop(here);
            reader.join().unwrap()
        });
        prop_assert_eq!(parts, sent);
    }
}
