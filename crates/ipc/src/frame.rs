//! Frames over UNIX stream sockets: a length, a kind, a body; descriptors travel beside them.
//!
//! ```text
//! u32 little-endian: length of the body | u8: kind (0 message, 1 content) | body
//! ```
//! A message is a postcard-encoded value. Content is raw bytes, so that a mail is never copied into an encoder.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The largest body. A request with the most recipients that qmgr gives an agent at once, or that smtpd takes from a
/// client, is far below it.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// How much is asked of the socket at first: most conversations are a few words, and their buffers are kept.
const FIRST_READ: usize = 4 * 1024;

/// How much is asked of the socket at most, beside the rest of a frame.
const LARGEST_READ: usize = 64 * 1024;

/// The length of what stands before a body.
pub(crate) const HEAD: usize = 5;
const MESSAGE: u8 = 0;
const CONTENT: u8 = 1;

/// Appends a message frame to `out`, or nothing.
///
/// # Errors
/// A value whose encoding exceeds the frame limit.
pub fn push_message<T: Serialize>(out: &mut Vec<u8>, message: &T) -> io::Result<()> {
    let start = out.len();
    // What is there already goes out all the same: a piece of a frame would be taken for the next one.
    encode_frame(out, start, message).inspect_err(|_| out.truncate(start))
}

fn encode_frame<T: Serialize>(out: &mut Vec<u8>, start: usize, message: &T) -> io::Result<()> {
    out.extend_from_slice(&[0, 0, 0, 0, MESSAGE]);
    postcard::to_io(message, &mut *out).map_err(io::Error::other)?;
    let length = out.len() - start - HEAD;
    let length = u32::try_from(length).ok().filter(|_| length <= MAX_BODY);
    let length = length.ok_or_else(|| io::Error::other("message exceeds the frame limit of 16 MiB"))?;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Appends a content frame to `out`; `content` must not be longer than 64 KiB times a few, as its senders see to.
pub fn push_content(out: &mut Vec<u8>, content: &[u8]) {
    for part in content.chunks(MAX_BODY) {
        // A chunk is at most MAX_BODY long, which fits.
        let length = u32::try_from(part.len()).unwrap_or(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.push(CONTENT);
        out.extend_from_slice(part);
    }
}

/// Sends one message, with a descriptor where there is one.
///
/// # Errors
/// What the socket says.
pub fn send<T: Serialize>(socket: &UnixStream, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(256);
    push_message(&mut bytes, message)?;
    sys::descriptors::send_with_descriptor(socket, &bytes, fd)
}

/// What arrived.
#[derive(Debug)]
pub enum Frame<'a> {
    /// A message, to be decoded with [`decode`].
    Message(&'a [u8]),
    /// Raw content.
    Content(&'a [u8]),
}

/// Reads frames from a socket, many with one system call where they are there.
#[derive(Debug)]
pub struct Receiver {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How much is asked of the socket at once: more when a read has filled all there was, so that a connection over
    /// which mail comes takes in a whole small one with its envelope.
    read_size: usize,
    descriptors: VecDeque<OwnedFd>,
    /// The socket carries both sides of a conversation.
    talks: bool,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// A receiver that has allocated nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            read_size: FIRST_READ,
            descriptors: VecDeque::new(),
            talks: false,
        }
    }

    /// One for a socket without a time limit over which this process says much itself: it sleeps until it is answered
    /// ([`sys::descriptors::wait_for_input`]).
    #[must_use]
    pub fn of_conversation() -> Self {
        Self { talks: true, ..Self::new() }
    }

    /// The next frame; `None` when the peer closed between two frames.
    ///
    /// # Errors
    /// What the socket says, `UnexpectedEof` inside a frame, `InvalidData` for a frame of an unknown kind or size.
    pub fn next_frame(&mut self, socket: &UnixStream) -> io::Result<Option<Frame<'_>>> {
        while self.frame_end()?.is_none_or(|end| end > self.end) {
            if self.fill(socket)? == 0 {
                return if self.start == self.end {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        let end = self.frame_end()?.unwrap_or(self.end);
        let (kind, body) = (self.buffer[self.start + 4], self.start + HEAD..end);
        self.start = end;
        match kind {
            MESSAGE => Ok(Some(Frame::Message(&self.buffer[body]))),
            CONTENT => Ok(Some(Frame::Content(&self.buffer[body]))),
            _ => Err(invalid("unknown kind of frame")),
        }
    }

    /// The next message, decoded; `None` when the peer closed. It may borrow from what was received.
    ///
    /// # Errors
    /// As [`Receiver::next_frame`], and for content or a body that is not a `T`.
    pub fn next_message<'a, T: Deserialize<'a>>(&'a mut self, socket: &UnixStream) -> io::Result<Option<T>> {
        match self.next_frame(socket)? {
            None => Ok(None),
            Some(Frame::Message(body)) => decode(body).map(Some),
            Some(Frame::Content(_)) => Err(invalid("content where a message was expected")),
        }
    }

    /// As [`Receiver::next_message`], if the message is whole by then, however little of it comes at a time; what is there is
    /// taken in any case, and the rest of it by the next call. For a peer that must not hold this process up: the socket's
    /// time limit for reading is changed.
    ///
    /// # Errors
    /// As [`Receiver::next_message`]; `TimedOut` or `WouldBlock` where the message is not whole.
    pub fn next_message_by<'a, T: Deserialize<'a>>(
        &'a mut self,
        socket: &UnixStream,
        deadline: Instant,
    ) -> io::Result<Option<T>> {
        /// A socket that waits not at all is one that waits for ever.
        const LEAST: Duration = Duration::from_micros(1);
        let mut looked = false;
        while self.frame_end()?.is_none_or(|end| end > self.end) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && looked {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left.max(LEAST)))?;
            if self.fill(socket)? == 0 {
                break;
            }
            looked = true;
        }
        self.next_message(socket)
    }

    /// Whether a whole frame is already here, so that the next call will not wait.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        matches!(self.frame_end(), Ok(Some(end)) if end <= self.end)
    }

    /// The oldest descriptor that came along and was not taken yet.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Gives the buffer back while a connection is idle.
    pub fn release(&mut self) {
        if self.start == self.end {
            (self.buffer, self.start, self.end) = (Vec::new(), 0, 0);
        }
    }

    /// Where the frame at `start` ends, once its head is here.
    fn frame_end(&self) -> io::Result<Option<usize>> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > MAX_BODY {
            return Err(invalid("frame exceeds the limit of 16 MiB"));
        }
        Ok(Some(self.start + HEAD + length))
    }

    fn fill(&mut self, socket: &UnixStream) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        // Room for the whole frame that has begun, or for a good read.
        let wanted = self.frame_end()?.map_or(0, |end| end - self.start).max(self.read_size);
        if self.start > 0 && self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() < self.start + wanted {
            self.buffer.resize(self.start + wanted, 0);
        }
        if self.talks {
            sys::descriptors::wait_for_input(socket)?;
        }
        let mut received = Vec::new();
        let room = &mut self.buffer[self.end..];
        let count = sys::descriptors::receive_with_descriptors(socket, room, &mut received)?;
        if count == room.len() {
            self.read_size = (self.read_size * 4).min(LARGEST_READ);
        }
        self.descriptors.extend(received);
        self.end += count;
        Ok(count)
    }
}

/// Encodes a value as the body of a message frame: the smallest form to keep it in.
///
/// # Errors
/// A value that cannot be encoded.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    postcard::to_io(message, Vec::new()).map_err(io::Error::other)
}

/// Decodes the body of a message frame.
///
/// # Errors
/// `InvalidData` for what is not a `T`, or is one with something behind it.
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(invalid("bytes left over behind a message")),
        Err(error) => Err(invalid(error)),
    }
}

fn invalid(why: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("protocol error: {why}"))
}

/// A file that came along with a message.
///
/// # Errors
/// `InvalidData` where the peer sent none.
pub fn expect_descriptor(receiver: &mut Receiver) -> io::Result<File> {
    receiver.take_descriptor().map(File::from).ok_or_else(|| invalid("a descriptor is missing"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_content_and_descriptors_keep_their_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = sys::descriptors::memory_file("x", b"x").unwrap();
        send(&here, &"first", Some(file.as_fd())).unwrap();
        let mut rest = Vec::new();
        push_content(&mut rest, &vec![b'x'; 100_000]);
        push_message(&mut rest, &7_u32).unwrap();
        let writer = std::thread::spawn(move || (&here).write_all(&rest));
        let mut receiver = Receiver::new();
        assert_eq!(receiver.next_message::<String>(&there).unwrap().unwrap(), "first");
        assert!(receiver.take_descriptor().is_some());
        let Some(Frame::Content(content)) = receiver.next_frame(&there).unwrap() else {
            panic!("no content")
        };
        assert_eq!(content.len(), 100_000);
        assert_eq!(receiver.next_message::<u32>(&there).unwrap(), Some(7));
        writer.join().unwrap().unwrap();
        assert_eq!(receiver.next_message::<u32>(&there).unwrap(), None);
    }

    #[test]
    fn a_buffer_is_as_large_as_what_comes_over_the_connection() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut receiver = Receiver::new();
        for _ in 0..100 {
            send(&here, &"a word", None).unwrap();
            assert_eq!(receiver.next_message::<String>(&there).unwrap().unwrap(), "a word");
        }
        assert_eq!(receiver.buffer.len(), FIRST_READ);
        let mut mail = Vec::new();
        (0..100).for_each(|_| push_content(&mut mail, &[b'x'; 1000]));
        here.write_all(&mail).unwrap();
        (0..100).for_each(|_| assert!(receiver.next_frame(&there).unwrap().is_some()));
        assert_eq!(receiver.read_size, LARGEST_READ);
        receiver.release();
        assert_eq!((receiver.buffer.capacity(), receiver.read_size), (0, LARGEST_READ));
        send(&here, &"a word", None).unwrap();
        assert_eq!(receiver.next_message::<String>(&there).unwrap().unwrap(), "a word");
    }

    #[test]
    fn who_sends_byte_by_byte_holds_nobody_up() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut bytes = Vec::new();
        push_message(&mut bytes, &"a word".repeat(100)).unwrap();
        let mut receiver = Receiver::new();
        let began = Instant::now();
        // One byte is there at each look: the first deadline is gone before the second byte.
        for byte in &bytes[..bytes.len() - 1] {
            here.write_all(&[*byte]).unwrap();
            let error = receiver.next_message_by::<String>(&there, began).unwrap_err();
            assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        }
        here.write_all(&bytes[bytes.len() - 1..]).unwrap();
        let said = receiver.next_message_by::<String>(&there, began).unwrap();
        assert_eq!(said, Some("a word".repeat(100)));
        let writer = std::thread::spawn(move || {
            let sent = bytes.iter().take_while(|byte| {
                std::thread::sleep(Duration::from_millis(10));
                here.write_all(&[**byte]).is_ok()
            });
            sent.count()
        });
        let error = receiver.next_message_by::<String>(&there, Instant::now() + Duration::from_millis(50));
        let kind = error.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{kind}");
        drop(there);
        assert!(writer.join().unwrap() < 600);
    }

    #[test]
    fn what_is_too_long_leaves_no_piece_of_a_frame() {
        let mut out = Vec::new();
        push_message(&mut out, &1_u8).unwrap();
        let before = out.clone();
        assert!(push_message(&mut out, &"x".repeat(MAX_BODY)).is_err());
        assert_eq!(out, before);
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        for garbage in [&b"\xff\xff\xff\xff\0"[..], b"\x01\0\0\0\x09x", b"\x02\0\0\0\0\xff\xff", b"\x09\0\0"]
        {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(garbage).unwrap();
            drop(here);
            assert!(Receiver::new().next_message::<u16>(&there).is_err(), "{garbage:?}");
        }
    }
}
