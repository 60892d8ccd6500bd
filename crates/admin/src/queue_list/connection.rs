//! Parts of a listing over a UNIX socket: showq sends, postqueue receives.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use ipc::frame::{self, Receiver};

use super::{Listing, Part};

/// What is sent with one call.
const BATCH: usize = 64 * 1024;

/// Sends a listing; complete once it was given [`Part::End`].
pub(crate) struct Sender<W> {
    stream: W,
    batch: Vec<u8>,
}

impl<W: Write> Sender<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, batch: Vec::new() }
    }
}

impl<W: Write> Listing for Sender<W> {
    fn take(&mut self, part: Part) -> io::Result<()> {
        frame::push_message(&mut self.batch, &part)?;
        if self.batch.len() >= BATCH || part == Part::End {
            self.stream.write_all(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

/// Takes a listing from a socket.
///
/// # Errors
/// What the socket or the receiver of the listing says; `UnexpectedEof` where it was cut off.
pub(crate) fn receive(stream: &UnixStream, to: &mut impl Listing) -> io::Result<()> {
    let mut receiver = Receiver::new();
    loop {
        let part = receiver.next_message::<Part>(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let last = part == Part::End;
        to.take(part)?;
        if last {
            return Ok(());
        }
    }
}
