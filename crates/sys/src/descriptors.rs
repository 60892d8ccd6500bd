//! Descriptors that travel: inherited from a parent, or sent over a UNIX socket.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Takes over the descriptor that the parent process left at `number`, once.
///
/// # Errors
/// `EBADF` where nothing is open at that number, for 0, 1 and 2, which belong to the standard library, and for one that
/// is closed at `exec`: that cannot have come from the parent, or was taken before.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    // SAFETY: takes two numbers, and fails where nothing is open.
    let flags = unsafe { nix::libc::fcntl(number, nix::libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & nix::libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    // SAFETY: takes three numbers, and changes nothing but when the descriptor is closed.
    if unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, flags | nix::libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nobody else owns it: all that this process opens is close-on-exec from the
    // beginning, as is what was taken here before; both were refused above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes whatever a parent process left open from number `first` on, which is 3 or more.
///
/// Called first thing in `main`, before this process opens anything of its own: what is closed then belongs to nobody
/// here. A set-gid program does it so that its user cannot have filled the table of descriptors, and master so that what an
/// operator's shell has open is not handed to daemons.
///
/// # Errors
/// What `close_range` says (Linux 5.9 and later have it).
pub fn close_inherited(first: u32) -> io::Result<()> {
    // SAFETY: the standard descriptors stay, and no `OwnedFd` of this process exists yet, as the documentation above demands, so none loses its file.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first.max(3), u32::MAX, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends all of `bytes`, the first of them together with `descriptor` where there is one.
///
/// # Errors
/// What `sendmsg` says; `WriteZero` where the peer takes nothing.
pub fn send_with_descriptor(
    socket: &UnixStream,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    send_with_descriptors(socket, bytes, descriptor.as_slice())
}

/// The most descriptors that the kernel passes in one call.
pub const MOST_DESCRIPTORS: u32 = 253;

/// The same with many descriptors, [`MOST_DESCRIPTORS`] at most.
///
/// # Errors
/// As [`send_with_descriptor`], and what the kernel says to more.
pub fn send_with_descriptors(socket: &UnixStream, bytes: &[u8], descriptors: &[impl AsFd]) -> io::Result<()> {
    if descriptors.is_empty() {
        return (&*socket).write_all(bytes);
    }
    let raw: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_fd().as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let sent = loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            result => break result?,
        }
    };
    if sent == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    (&*socket).write_all(&bytes[sent..])
}

/// Room for as many descriptors as the kernel passes in one call.
const CONTROL_SIZE: usize = {
    // SAFETY: a computation with a number.
    let size = unsafe { nix::libc::CMSG_SPACE(MOST_DESCRIPTORS * 4) };
    size as usize
};

/// What comes along with bytes, aligned as its head wants it.
#[repr(align(8))]
struct Control([u8; CONTROL_SIZE]);

/// Receives into `buffer` and adds what descriptors came along to `descriptors` (close-on-exec). 0 is the end.
///
/// # Errors
/// What `recvmsg` says.
pub fn receive_with_descriptors(
    socket: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_SIZE]);
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control.0), flags) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just made these descriptors for this process; nobody else knows them.
                descriptors.extend(numbers.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        return Ok(message.bytes);
    }
}

/// Waits until something has come, or the peer is gone: for a socket that this process sends over as well. To receive would wait
/// for the same; but it is woken, too, whenever the peer has read what was sent, and finds nothing.
///
/// # Errors
/// What `poll` says.
pub fn wait_for_input(socket: &UnixStream) -> io::Result<()> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
        // Who receives now waits as well.
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// How much of what was sent the peer has not read yet, in the kernel's bytes; 0 means that it has read all.
///
/// # Errors
/// What `ioctl` says.
pub fn unread_by_peer(socket: &UnixStream) -> io::Result<u64> {
    let mut unread: nix::libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which sockets know as SIOCOUTQ, writes one int, and `unread` is one that outlives the call.
    let result = unsafe { nix::libc::ioctl(socket.as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut unread) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::try_from(unread).unwrap_or(0)) }
}

/// A file in memory that holds `bytes`, to be handed to a child process.
///
/// # Errors
/// What `memfd_create` or `write` says.
pub fn memory_file(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::{AsFd, IntoRawFd};

    use super::*;

    #[test]
    fn who_waits_for_input_goes_on_when_it_comes_and_when_nobody_is_left_to_send_it() {
        let (here, there) = UnixStream::pair().unwrap();
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..2 {
                    wait_for_input(&there).unwrap();
                    told.send((&there).read(&mut [0; 8]).unwrap()).unwrap();
                }
            });
            (&here).write_all(b"word").unwrap();
            assert_eq!(hears.recv().unwrap(), 4);
            drop(here);
            assert_eq!(hears.recv().unwrap(), 0);
        });
    }

    #[test]
    fn a_descriptor_travels_with_its_bytes() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = memory_file("test", b"hello").unwrap();
        send_with_descriptor(&here, b"frame", Some(file.as_fd())).unwrap();
        let (mut buffer, mut descriptors) = ([0; 64], Vec::new());
        assert_eq!(receive_with_descriptors(&there, &mut buffer, &mut descriptors).unwrap(), 5);
        let mut received = File::from(descriptors.pop().unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn what_the_peer_has_read_is_known() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&here).unwrap(), 0);
        here.write_all(b"hello").unwrap();
        assert_ne!(unread_by_peer(&here).unwrap(), 0);
        there.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unread_by_peer(&here).unwrap(), 0);
    }

    #[test]
    fn standard_streams_and_closed_numbers_are_not_inherited() {
        assert!(inherited(1).is_err());
        assert!(inherited(9_999).is_err());
    }

    #[test]
    fn what_this_process_has_opened_is_not_inherited_and_nothing_is_twice() {
        let file = memory_file("own", b"").unwrap();
        assert!(inherited(file.as_raw_fd()).is_err());
        // As after exec: open, and known to no owner.
        let number = nix::unistd::dup(&file).unwrap().into_raw_fd();
        let taken = inherited(number).unwrap();
        assert!(inherited(taken.as_raw_fd()).is_err());
    }
}
