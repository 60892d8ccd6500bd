//! What can go wrong with a queue file, and with its bytes.

use std::fmt;
use std::io;
use std::path::PathBuf;

use mail::QueueId;
use nix::errno::Errno;

/// An operation on the queue that failed.
#[derive(Debug)]
pub enum QueueError {
    /// The disk or the quota is full: the client is asked to come again (452 4.3.1).
    NoSpace {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// `ENOSPC` or `EDQUOT`.
        source: io::Error,
    },
    /// A file of that name is there already: a bug, or a queue that was restored over a running system.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The message is not there (any more): delivered, or the operator deleted, held or moved it.
    NotFound(QueueId),
    /// Cleanup is still writing the message.
    NotReady(QueueId),
    /// The bytes are not a whole message. [`crate::Active`] has moved the file to `corrupt/`.
    Damaged {
        /// Where the file is now.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The envelope has a part that the format has no room for.
    Oversized(&'static str),
    /// The system refused.
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl QueueError {
    /// Sorts an error of the system.
    pub(crate) fn new(operation: &'static str, path: PathBuf, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::NoSpace { operation, path, source },
            Some(Errno::EEXIST) => Self::Exists { path },
            _ => Self::Io { operation, path, source },
        }
    }

    /// Whether the system said that there is no such file.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::NotFound(_))
            || matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace { operation, path, source } | Self::Io { operation, path, source } => {
                write!(f, "{operation} {}: {source}", path.display())
            }
            Self::Exists { path } => {
                write!(f, "create {}: a message of that id is there already", path.display())
            }
            Self::NotFound(id) => write!(f, "{id}: no such message in the queue"),
            Self::NotReady(id) => write!(f, "{id}: still being written"),
            Self::Damaged { path, damage } => write!(f, "{}: {damage}", path.display()),
            Self::Oversized(part) => write!(f, "{part} is larger than a queue file has room for"),
        }
    }
}

impl std::error::Error for QueueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoSpace { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Damaged { damage, .. } => Some(damage),
            Self::Exists { .. } | Self::NotFound(_) | Self::NotReady(_) | Self::Oversized(_) => None,
        }
    }
}

/// Why bytes are not a queue file that can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing was ever written: the file of a commit that a crash cut short.
    Empty,
    /// The head is still blank: the message is being written, or its writer died.
    Unfinished,
    /// The file begins with something else.
    NotAQueueFile,
    /// Written by a newer Postroad; this is its format version.
    Version(u32),
    /// The file ends before the content does.
    Truncated,
    /// Offsets and counts of the head contradict each other or a limit.
    Head,
    /// The checksum of head and envelope is wrong.
    EnvelopeChecksum,
    /// The checksum is right, yet a record is malformed: written by a program with a bug.
    Envelope(&'static str),
    /// The checksum of the content is wrong.
    ContentChecksum,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty queue file",
            Self::Unfinished => "queue file without a head: it was never finished",
            Self::NotAQueueFile => "not a queue file",
            Self::Version(version) => {
                return write!(f, "queue file of format version {version}; this program reads version 1");
            }
            Self::Truncated => "truncated queue file",
            Self::Head => "queue file whose head contradicts itself",
            Self::EnvelopeChecksum => "damaged queue file: the checksum of its envelope is wrong",
            Self::Envelope(what) => return write!(f, "malformed envelope in queue file: {what}"),
            Self::ContentChecksum => "damaged queue file: the checksum of its content is wrong",
        })
    }
}

impl std::error::Error for Damage {}
