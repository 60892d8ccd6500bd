//! The listing of the queue: read from the disk in one place, streamed in parts, shown as text or JSON.
//!
//! Contract: no part of this holds the queue in memory. showq sends messages while it reads others; a message's
//! recipients come in slices; the listing that was cut off is told from the whole one by its last part.
//!
//! A part owns no text: it is written from what the queue file has, and shown from what came over the socket.

pub(crate) mod connection;
mod json;
pub(crate) mod read;
mod text;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use json::JsonListing;
pub(crate) use text::TextListing;

/// A piece of the listing, in the order in which they come: a message, its recipients, the next message … the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part<'a> {
    #[serde(borrow)]
    Message(Listed<'a>),
    #[serde(borrow)]
    Recipients(Vec<ListedRecipient<'a>>),
    End,
}

/// A message of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed<'a> {
    pub(crate) place: Place,
    /// The file name; that of a local submission is any user's choice.
    pub(crate) id: &'a str,
    /// When it arrived, since the Unix epoch.
    pub(crate) arrival: Duration,
    pub(crate) size: u64,
    pub(crate) forced_expire: bool,
    /// The sender, or what stands in its place.
    pub(crate) sender: &'a str,
    /// When a deferred message is tried next, since the Unix epoch.
    pub(crate) next_attempt: Option<Duration>,
}

/// A recipient that the message is still to be delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedRecipient<'a> {
    pub(crate) address: &'a str,
    /// Why the last attempt failed; none before the first one.
    pub(crate) reason: Option<&'a str>,
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
    fn take(&mut self, part: Part<'_>) -> io::Result<()>;
}

impl<F: FnMut(Part<'_>) -> io::Result<()>> Listing for F {
    fn take(&mut self, part: Part<'_>) -> io::Result<()> {
        self(part)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use ipc::frame::push_message;
    use jiff::tz::TimeZone;

    use super::connection::receive;
    use super::*;

    /// Calls it with each part of a listing.
    fn each_part(mut take: impl FnMut(Part<'_>)) {
        take(Part::Message(Listed {
            place: Place::Deferred,
            id: "4gXyZ12345z1000",
            arrival: Duration::from_secs(1_795_362_868),
            size: 5_000,
            forced_expire: false,
            sender: "a\u{1b}[2J@example.org",
            next_attempt: Some(Duration::from_secs(1_795_363_000)),
        }));
        for slice in 0..30 {
            let addresses: Vec<_> =
                (slice * 1000..slice * 1000 + 1000).map(|n| format!("user{n}@example.com")).collect();
            let recipient = |address| ListedRecipient { address, reason: Some("try\nagain") };
            take(Part::Recipients(addresses.iter().map(|address| recipient(address.as_str())).collect()));
        }
        take(Part::End);
    }

    /// The frames of that listing, and where each ends.
    fn frames() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        each_part(|part| {
            push_message(&mut bytes, &part).unwrap();
            ends.push(bytes.len());
        });
        (bytes, ends)
    }

    #[test]
    fn a_listing_comes_through_a_socket_as_it_was() {
        let (here, there) = UnixStream::pair().unwrap();
        let (bytes, _) = frames();
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || io::Write::write_all(&mut &here, &sent));
        let mut received = Vec::new();
        receive(&there, &mut |part: Part<'_>| push_message(&mut received, &part)).unwrap();
        sending.join().unwrap().unwrap();
        assert!(received == bytes);
    }

    #[test]
    fn a_listing_that_was_cut_off_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut bytes, ends) = frames();
        bytes.truncate(ends[1]);
        let sending = std::thread::spawn(move || io::Write::write_all(&mut &here, &bytes));
        let error = receive(&there, &mut |_: Part<'_>| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        sending.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_steers_the_terminal_of_the_operator() {
        let (mut text, mut json) = (Vec::new(), Vec::new());
        let mut listing = TextListing::new(&mut text, TimeZone::UTC);
        each_part(|part| listing.take(part).unwrap());
        let mut listing = JsonListing::new(&mut json);
        each_part(|part| listing.take(part).unwrap());
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("a?[2J@example.org") && text.contains("(try?again)"));
        assert!(text.ends_with("\n\n-- 4 Kbytes in 1 Request.\n"));
        assert_eq!(json.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
    }
}
