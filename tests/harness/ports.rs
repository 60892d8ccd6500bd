//! Ports of the loopback interface for tests that run at the same time.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The ports that tests use, in blocks of so many.
const PORTS: Range<u16> = 10_000..30_000;
const BLOCK: u16 = 100;

/// A port of the loopback interface that nobody listens at: below those that the system gives to clients, and given to
/// nobody else, not by another test program either.
///
/// # Panics
/// When all are taken.
pub fn free_port() -> u16 {
    static OWN: Mutex<Ports> = Mutex::new(Ports { left: 0..0, reserved: Vec::new() });
    let mut ports = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = ports.next();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The ports of this process: blocks, each of which it has for itself while it has the UDP port of the first one's number.
struct Ports {
    /// What is left of the last block.
    left: Range<u16>,
    reserved: Vec<UdpSocket>,
}

impl Ports {
    fn next(&mut self) -> u16 {
        loop {
            if let Some(port) = self.left.next() {
                return port;
            }
            self.reserve();
        }
    }

    fn reserve(&mut self) {
        let blocks: Vec<u16> = PORTS.step_by(BLOCK.into()).collect();
        // Processes begin at different blocks: one that has just ended may have left connections behind.
        let begin = std::process::id() as usize % blocks.len();
        let (before, from) = blocks.split_at(begin);
        let reserve = |first: &u16| Some((*first, UdpSocket::bind((Ipv4Addr::LOCALHOST, *first)).ok()?));
        let found = from.iter().chain(before).find_map(reserve);
        let (first, socket) = found.expect("a block of ports that no other test program has");
        self.reserved.push(socket);
        self.left = first..first + BLOCK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let mut ports: Vec<u16> = (0..250).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 250);
        // Somebody else, as another test program would be.
        let mut others = Ports { left: 0..0, reserved: Vec::new() };
        assert!((0..250).all(|_| !ports.contains(&others.next())));
    }
}
