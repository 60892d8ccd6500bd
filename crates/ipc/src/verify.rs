//! smtpd and bounce → verify, over `private/verify`: what is known of an address, and what a probe has found out.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use mail::Address;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Receiver};

/// How long verify is waited for: it answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Mail to it can be delivered.
    Deliverable,
    /// That could not be found out: the last attempt failed for a time.
    Deferred,
    /// Mail to it fails for good.
    Undeliverable,
    /// A probe is under way.
    Pending,
}

/// What verify is asked or told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What is known of this address? Where that is nothing, or old, a probe is sent.
    Query(Address),
    /// A probe's result.
    Update {
        /// The address that was probed.
        address: Address,
        /// What came of it.
        standing: Standing,
        /// Why, as it stands in the log.
        text: String,
    },
}

/// Verify's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a query.
    Known {
        /// What is known.
        standing: Standing,
        /// Why.
        text: String,
    },
    /// To an update.
    Noted,
}

/// The way to verify.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the verify service at this socket.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// What is known of an address, and why.
    ///
    /// # Errors
    /// What connect, write or read say; an answer that is none.
    pub fn query(&self, address: &Address) -> io::Result<(Standing, String)> {
        match self.ask(&Request::Query(address.clone()))? {
            Answer::Known { standing, text } => Ok((standing, text)),
            Answer::Noted => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Tells the result of a probe.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub fn update(&self, address: Address, standing: Standing, text: String) -> io::Result<()> {
        self.ask(&Request::Update { address, standing, text }).map(drop)
    }

    /// A connection for each question: they are few, and probes cost so much more.
    fn ask(&self, request: &Request) -> io::Result<Answer> {
        let socket = UnixStream::connect(&self.socket)
            .map_err(|e| io::Error::new(e.kind(), format!("connect to {}: {e}", self.socket.display())))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        frame::send(&socket, request, None)?;
        let answer = Receiver::new().next_message(&socket)?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
