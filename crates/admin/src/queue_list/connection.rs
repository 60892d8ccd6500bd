//! A listing as it comes over a UNIX socket.

use std::io;
use std::os::unix::net::UnixStream;

use ipc::frame::Receiver;

use super::{Listing, Part};

/// Takes a listing from a socket.
///
/// # Errors
/// What the socket or the receiver of the listing says; `UnexpectedEof` where it was cut off.
pub(crate) fn receive(stream: &UnixStream, to: &mut impl Listing) -> io::Result<()> {
    let mut receiver = Receiver::new();
    loop {
        let part = receiver.next_message::<Part<'_>>(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let last = part == Part::End;
        to.take(part)?;
        if last {
            return Ok(());
        }
    }
}
