//! The PROXY protocol, versions 1 and 2, by which a load balancer says whose connection it passes on
//! (`smtpd_upstream_proxy_protocol = haproxy`).
//!
//! The header is the first that comes over a connection, before a greeting and before a TLS handshake: exactly its bytes
//! are read, none of what follows. A connection without a proper header is closed, and whoever can reach the port can
//! claim any address: it belongs behind the balancer only.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use service::Stream;

/// What a version 2 header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest version 1 header, with its line end.
const MAX_LINE: usize = 107;

/// The most that follows the fixed part of a version 2 header: more than any balancer sends.
const MAX_EXTRA: usize = 4096;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A client's, from the first to the second address.
    Proxied(SocketAddr, SocketAddr),
    /// The balancer's own, as for a health check.
    Local,
}

/// A stream that is read with one time limit for everything: a byte now and then does not prolong it.
pub(crate) struct Timed<'a> {
    stream: &'a Stream,
    ends: Instant,
}

impl<'a> Timed<'a> {
    pub(crate) fn new(stream: &'a Stream, limit: Duration) -> Self {
        Self { stream, ends: Instant::now() + limit }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

/// Reads the header.
///
/// # Errors
/// What `read` says; `InvalidData` for what is no header, with the reason.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Header> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start[..1])?;
    match start[0] {
        b'\r' => {
            stream.read_exact(&mut start[1..])?;
            if start != SIGNATURE {
                return Err(invalid("bad signature"));
            }
            read_binary(stream)
        }
        b'P' => read_line(stream),
        _ => Err(invalid("unexpected protocol header")),
    }
}

/// Version 1: one line of text. Its `P` has been read.
fn read_line(stream: &mut impl Read) -> io::Result<Header> {
    let mut line = vec![b'P'];
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(invalid("the line is too long"));
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| invalid("not ASCII"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let (family, rest) = match words.split_first() {
        Some((&"PROXY", [family, rest @ ..])) => (*family, rest),
        _ => return Err(invalid("the line does not begin with PROXY and a protocol")),
    };
    if family == "UNKNOWN" {
        return Ok(Header::Local);
    }
    let [from, to, from_port, to_port] = rest else {
        return Err(invalid("there must be two addresses and two ports"));
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| invalid("bad IPv4 address")),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| invalid("bad IPv6 address")),
        _ => Err(invalid("the protocol must be TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Header::Proxied(
        SocketAddr::new(address(from)?, port(from_port)?),
        SocketAddr::new(address(to)?, port(to_port)?),
    ))
}

fn port(text: &str) -> io::Result<u16> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or_else(|| invalid("bad port"))
}

/// Version 2: command, family, the length of what follows, addresses and ports, extensions. Its signature has been read.
fn read_binary(stream: &mut impl Read) -> io::Result<Header> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed)?;
    let [command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Err(invalid("unsupported version"));
    }
    if length > MAX_EXTRA {
        return Err(invalid("the header is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest)?;
    match (command & 15, family) {
        (0, _) => Ok(Header::Local),
        (1, 0x11) => addresses::<4>(&rest, |octets| Ipv4Addr::from(octets).into()),
        (1, 0x21) => addresses::<16>(&rest, |octets| Ipv6Addr::from(octets).into()),
        (1, _) => Err(invalid("the family must be TCP over IPv4 or IPv6")),
        _ => Err(invalid("unknown command")),
    }
}

fn addresses<const N: usize>(bytes: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> io::Result<Header> {
    let parts = bytes.split_first_chunk::<N>().and_then(|(from, rest)| {
        let (to, rest) = rest.split_first_chunk::<N>()?;
        let (ports, _) = rest.split_first_chunk::<4>()?;
        Some((from, to, ports))
    });
    let (from, to, [a, b, c, d]) = parts.ok_or_else(|| invalid("the addresses are cut off"))?;
    Ok(Header::Proxied(
        SocketAddr::new(ip(*from), u16::from_be_bytes([*a, *b])),
        SocketAddr::new(ip(*to), u16::from_be_bytes([*c, *d])),
    ))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of `tests/proxy/headers.txt`: `header => what it says`; escapes as in Rust.
    #[test]
    fn headers() {
        let table = include_str!("../tests/proxy/headers.txt");
        let mut count = 0;
        for line in table.lines().filter(|line| line.starts_with('"')) {
            let (text, expected) = line.split_once("\" => ").unwrap();
            let bytes = unescape(&text[1..]);
            let mut input = &bytes[..];
            let got = match read(&mut input) {
                Ok(Header::Proxied(from, to)) => format!("{from} {to} rest {}", input.len()),
                Ok(Header::Local) => format!("local rest {}", input.len()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "cut off".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected, "{line}");
            count += 1;
        }
        assert!(count > 30);
    }

    #[test]
    fn no_input_panics() {
        let good =
            [&SIGNATURE[..], b"\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x19\x00\x1a"].concat();
        for length in 0..good.len() {
            assert!(read(&mut &good[..length]).is_err());
            for byte in 0..=255 {
                let mut bad = good.clone();
                bad[length] = byte;
                let _ = read(&mut &bad[..]);
            }
        }
    }

    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            out.push(match bytes.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b'0' => 0,
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        out
    }
}
