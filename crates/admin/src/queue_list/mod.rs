//! The listing of the queue: read from the disk in one place, streamed in parts, shown as text or JSON.
//!
//! Contract: no part of this holds the queue in memory. showq sends a message while it reads the next; a message's
//! recipients come in slices; the listing that was cut off is told from the whole one by its last part.

pub(crate) mod connection;
mod json;
pub(crate) mod read;
mod text;

use std::io;
use std::time::Duration;

use mail::Address;
use serde::{Deserialize, Serialize};

pub(crate) use json::JsonListing;
pub(crate) use text::TextListing;

/// A piece of the listing, in the order in which they come: a message, its recipients, the next message … the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    Message(Listed),
    Recipients(Vec<ListedRecipient>),
    End,
}

/// A message of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) place: Place,
    /// The file name; that of a local submission is any user's choice.
    pub(crate) id: String,
    /// When it arrived, since the Unix epoch.
    pub(crate) arrival: Duration,
    pub(crate) size: u64,
    pub(crate) forced_expire: bool,
    /// The sender, or what stands in its place.
    pub(crate) sender: String,
    /// When a deferred message is tried next, since the Unix epoch.
    pub(crate) next_attempt: Option<Duration>,
}

/// A recipient that the message is still to be delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedRecipient {
    pub(crate) address: Address,
    /// Why the last attempt failed; none before the first one.
    pub(crate) reason: Option<String>,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    Maildrop,
    Incoming,
    Active,
    Deferred,
    Hold,
}

impl Place {
    /// `queue_name` in the JSON listing.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Maildrop => "maildrop",
            Self::Incoming => "incoming",
            Self::Active => "active",
            Self::Deferred => "deferred",
            Self::Hold => "hold",
        }
    }
}

/// What takes a listing part by part.
pub(crate) trait Listing {
    fn take(&mut self, part: Part) -> io::Result<()>;
}

impl<F: FnMut(Part) -> io::Result<()>> Listing for F {
    fn take(&mut self, part: Part) -> io::Result<()> {
        self(part)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use jiff::tz::TimeZone;

    use super::connection::{Sender, receive};
    use super::*;

    fn parts() -> Vec<Part> {
        let message = Listed {
            place: Place::Deferred,
            id: "4gXyZ12345z1000".into(),
            arrival: Duration::from_secs(1_795_362_868),
            size: 5_000,
            forced_expire: false,
            sender: "a\u{1b}[2J@example.org".into(),
            next_attempt: Some(Duration::from_secs(1_795_363_000)),
        };
        let recipient = |n| ListedRecipient {
            address: Address::new(format!("user{n}@example.com")).unwrap(),
            reason: Some("try\nagain".into()),
        };
        let slices = (0..30).map(|n| Part::Recipients((n * 1000..n * 1000 + 1000).map(recipient).collect()));
        std::iter::once(Part::Message(message)).chain(slices).chain([Part::End]).collect()
    }

    #[test]
    fn a_listing_comes_through_a_socket_as_it_was() {
        let (here, there) = UnixStream::pair().unwrap();
        let sending = std::thread::spawn(move || {
            let mut sender = Sender::new(here);
            parts().into_iter().try_for_each(|part| sender.take(part))
        });
        let mut received = Vec::new();
        receive(&there, &mut |part| {
            received.push(part);
            Ok(())
        })
        .unwrap();
        sending.join().unwrap().unwrap();
        assert!(received == parts());
    }

    #[test]
    fn a_listing_that_was_cut_off_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut bytes = Vec::new();
        parts().into_iter().take(2).for_each(|part| ipc::frame::push_message(&mut bytes, &part).unwrap());
        let sending = std::thread::spawn(move || io::Write::write_all(&mut &here, &bytes));
        let error = receive(&there, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        sending.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_steers_the_terminal_of_the_operator() {
        let (mut text, mut json) = (Vec::new(), Vec::new());
        let mut listing = TextListing::new(&mut text, TimeZone::UTC);
        parts().into_iter().for_each(|part| listing.take(part).unwrap());
        let mut listing = JsonListing::new(&mut json);
        parts().into_iter().for_each(|part| listing.take(part).unwrap());
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("a?[2J@example.org") && text.contains("(try?again)"));
        assert!(text.ends_with("\n\n-- 4 Kbytes in 1 Request.\n"));
        assert_eq!(json.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
    }
}
