//! smtpd and `postroad ban` → anvil, over `private/anvil`: what clients did, what users have used up, who is banned.
//!
//! The list of bans goes the other way as a file that anvil alone writes, [`BANS_FILE`] in `data_directory`, so that a
//! server need ask nobody when a client connects.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::frame::{self, Receiver};

/// The name of the file of bans.
pub const BANS_FILE: &str = "bans";

/// A larger file of bans is read no further.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// How long anvil is waited for: it must not hold up mail.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most idle connections a client keeps.
const MAX_IDLE: usize = 8;

/// A network of clients that is counted, or banned, as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientNetwork {
    ip: IpAddr,
    prefix: u8,
}

impl ClientNetwork {
    /// The network of this prefix length that the address is in.
    #[must_use]
    pub fn of(ip: IpAddr, prefix: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                Self { ip: IpAddr::V4((u32::from(ip) & mask).into()), prefix }
            }
            IpAddr::V6(ip) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                Self { ip: IpAddr::V6((u128::from(ip) & mask).into()), prefix }
            }
        }
    }

    /// The length of the prefix.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is one of IPv6.
    #[must_use]
    pub const fn is_v6(self) -> bool {
        self.ip.is_ipv6()
    }
}

impl fmt::Display for ClientNetwork {
    /// `192.0.2.1` for a single address, else `192.0.2.0/24`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.is_v6() { 128 } else { 32 };
        if self.prefix == whole { write!(f, "{}", self.ip) } else { write!(f, "{}/{}", self.ip, self.prefix) }
    }
}

impl FromStr for ClientNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: must be an address or address/prefix, such as 192.0.2.0/24");
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| wrong())?;
        let whole = if ip.is_ipv6() { 128 } else { 32 };
        let prefix = prefix.map_or(Ok(whole), |prefix| prefix.parse().map_err(|_| wrong()))?;
        if prefix > whole { Err(wrong()) } else { Ok(Self::of(ip, prefix)) }
    }
}

/// What a client did that it should not do often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Offence {
    /// A login with wrong credentials.
    FailedLogin,
    /// A recipient that does not exist.
    UnknownRecipient,
    /// Something that no mail program says.
    ProtocolError,
}

impl Offence {
    /// In the plural, for the log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::FailedLogin => "failed logins",
            Self::UnknownRecipient => "unknown recipients",
            Self::ProtocolError => "protocol errors",
        }
    }
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Who is banned.
    pub network: ClientNetwork,
    /// When it ends, as seconds since the Unix epoch.
    pub until: u64,
    /// Why, on one line.
    pub reason: String,
}

/// How much an authenticated user may send; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLimits {
    /// Messages in an hour.
    pub messages_per_hour: u64,
    /// Messages in a day.
    pub messages_per_day: u64,
    /// Recipients in an hour.
    pub recipients_per_hour: u64,
    /// Recipients in a day.
    pub recipients_per_day: u64,
}

/// What anvil is told or asked. [`Request::Offended`] is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A client of this network did this.
    Offended(ClientNetwork, Offence),
    /// A user wants to send so much more.
    Spend {
        /// The name that the user has authenticated with.
        user: String,
        /// Messages.
        messages: u64,
        /// Recipients.
        recipients: u64,
        /// What the user may use up.
        limits: UserLimits,
    },
    /// Ban a network: for so many seconds, or for as long as an automatic ban lasts.
    Ban(ClientNetwork, Option<u64>, String),
    /// Lift the ban of exactly this network.
    Unban(ClientNetwork),
}

/// Anvil's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done: counted, banned.
    Done,
    /// There is no such ban; or no room for another.
    Refused(String),
    /// The user has used up a limit.
    Exceeded {
        /// The limit in words: `100 recipients per hour`.
        limit: String,
        /// It is the first refusal for this limit since its time began.
        is_first: bool,
    },
}

/// The way to anvil, shared by the threads of a process.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

impl Client {
    /// A client of the anvil service at this socket; connects when there is something to say.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, idle: Mutex::default() }
    }

    /// Says something that is not answered.
    ///
    /// # Errors
    /// What connect or write say.
    pub fn tell(&self, request: &Request) -> io::Result<()> {
        self.converse(request, |_| Ok(()))
    }

    /// Asks something.
    ///
    /// # Errors
    /// What connect, write or read say; an answer that is none.
    pub fn ask(&self, request: &Request) -> io::Result<Answer> {
        self.converse(request, |socket| {
            let answer = Receiver::new().next_message(socket)?;
            answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }

    /// Over a connection that is open, or, where that is gone, over another.
    fn converse<T>(&self, request: &Request, then: impl Fn(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(socket) = idle
            && frame::send(&socket, request, None).is_ok()
            && let Ok(result) = then(&socket)
        {
            self.keep(socket);
            return Ok(result);
        }
        let socket = UnixStream::connect(&self.socket)
            .map_err(|e| io::Error::new(e.kind(), format!("connect to {}: {e}", self.socket.display())))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        frame::send(&socket, request, None)?;
        let result = then(&socket)?;
        self.keep(socket);
        Ok(result)
    }

    fn keep(&self, socket: UnixStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(socket);
        }
    }
}

/// Reads the file of bans; a line is `NETWORK UNTIL REASON`. A file that is not there has none.
///
/// # Errors
/// What reading says. A line that is none is left out.
pub fn read_bans(data_directory: &Path) -> io::Result<Vec<Ban>> {
    use std::io::Read;
    let mut text = String::new();
    match std::fs::File::open(data_directory.join(BANS_FILE)) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(parse_bans(&text))
}

/// The bans that the text of the file lists.
#[must_use]
pub fn parse_bans(text: &str) -> Vec<Ban> {
    let ban = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (network, until) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Ban { network, until, reason: words.next().unwrap_or_default().to_owned() })
    };
    text.lines().filter_map(ban).collect()
}

/// The text of that file.
#[must_use]
pub fn format_bans<'a>(bans: impl Iterator<Item = &'a Ban>) -> String {
    let mut text = String::from("# Written by anvil. Use `postroad ban` to change it.\n");
    for ban in bans {
        let reason: String = ban.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.push_str(&format!("{} {} {reason}\n", ban.network, ban.until));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_they_are_shown() {
        for (text, shown) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.77", "192.0.2.77"),
            ("[2001:db8::77]/32", "2001:db8::/32"),
            ("::1/128", "::1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            let network: ClientNetwork = text.parse().unwrap();
            assert_eq!(network.to_string(), shown);
            assert_eq!(shown.parse(), Ok(network));
        }
        for bad in ["", "192.0.2.1/33", "x", "192.0.2.1/", "::1/129", "192.0.2"] {
            assert!(bad.parse::<ClientNetwork>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bans_survive_their_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_bans(folder.path()).unwrap(), []);
        let bans = [
            Ban { network: "192.0.2.0/24".parse().unwrap(), until: 17, reason: "9 failed logins".into() },
            Ban { network: "::1".parse().unwrap(), until: u64::MAX, reason: String::new() },
        ];
        let text = format_bans(bans.iter()) + "rubbish\n192.0.2.1 x\n";
        std::fs::write(folder.path().join(BANS_FILE), text).unwrap();
        assert_eq!(read_bans(folder.path()).unwrap(), bans);
    }
}
