//! The message that is reported on, as its queue file tells it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ipc::bounce::Request;
use mail::{Body, Dsn, DsnReturn, Outcome};
use queue::{Content, QueueError, Stored};

use crate::notice::is_wanted;
use crate::report::{Reader, Reported, Returned};

/// How many recipients are read at a time.
const BATCH: usize = 1000;

/// How much content is looked at or sent at a time.
const CHUNK: usize = 64 * 1024;

/// The message, and those of its recipients that are reported on.
pub(crate) struct Subject {
    pub(crate) stored: Stored,
    /// First those which the sender wants to hear of.
    reported: Vec<Reported>,
    /// How many these are.
    wanted: usize,
}

impl Subject {
    /// Reads what a request is about.
    pub(crate) fn read(request: &Request, descriptor: OwnedFd) -> Result<Self, QueueError> {
        let name = PathBuf::from(format!("the queue file of {}", request.id));
        let stored = Stored::from_file(File::from(descriptor), &name)?;
        let mut attempts = stored.last_attempts()?;
        let asked: HashSet<u32> = request.recipients.iter().copied().collect();
        let (mut reported, mut unwanted) = (Vec::new(), Vec::new());
        let mut next = request.recipients.iter().copied().min().unwrap_or(u32::MAX);
        let last = request.recipients.iter().copied().max().unwrap_or_default();
        while next <= last {
            let batch = stored.recipients_from(next, BATCH)?;
            let Some(end) = batch.last().map(|recipient| recipient.index) else { break };
            for found in batch.into_iter().filter(|found| asked.contains(&found.index)) {
                let is_wanted = is_wanted(request.kind, found.recipient.notify);
                let outcome =
                    attempts.remove(&found.index).map_or_else(unrecorded, |attempt| attempt.outcome);
                let list = if is_wanted { &mut reported } else { &mut unwanted };
                list.push(Reported {
                    address: found.recipient.address,
                    original: found.recipient.original,
                    orcpt: found.recipient.orcpt,
                    outcome,
                });
            }
            next = end.saturating_add(1);
        }
        let wanted = reported.len();
        reported.append(&mut unwanted);
        Ok(Self { stored, reported, wanted })
    }

    /// The recipients that a reader is told of: the postmaster of all, whatever the sender wants.
    pub(crate) fn reported_to(&self, reader: Reader) -> &[Reported] {
        match reader {
            Reader::Sender => &self.reported[..self.wanted],
            Reader::Postmaster => &self.reported,
        }
    }

    /// How much may go back, given what a notice may return at most.
    pub(crate) fn returned(&self, most: Returned, size_limit: u64) -> Returned {
        let is_small = self.stored.content_size() <= size_limit;
        match (most, self.stored.ret()) {
            (Returned::Full, None | Some(DsnReturn::Full)) if is_small => Returned::Full,
            _ => Returned::Headers,
        }
    }

    /// What goes back.
    pub(crate) fn excerpt(&self, returned: Returned, header_limit: usize) -> io::Result<Excerpt> {
        match returned {
            Returned::Full => Ok(Excerpt::Whole(self.stored.content())),
            Returned::Headers => {
                let mut header = self.stored.content().header(header_limit)?;
                // The empty line is no part of text/rfc822-headers (RFC 6522 section 4).
                if header.ends_with(b"\n\n") {
                    header.pop();
                }
                Ok(Excerpt::Header(header))
            }
        }
    }

    /// Whether what goes back has bytes above 127. What was declared as 8-bit is believed to be.
    pub(crate) fn is_eight_bit(&self, excerpt: &Excerpt) -> io::Result<bool> {
        match excerpt {
            Excerpt::Header(header) => Ok(!header.is_ascii()),
            Excerpt::Whole(_) if self.stored.body() == Body::EightBitMime => Ok(true),
            Excerpt::Whole(content) => {
                let mut content = content.clone();
                let mut buffer = vec![0; CHUNK];
                loop {
                    match content.read(&mut buffer)? {
                        0 => return Ok(false),
                        read if !buffer[..read].is_ascii() => return Ok(true),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// What a notification returns of the message.
pub(crate) enum Excerpt {
    Whole(Content),
    Header(Vec<u8>),
}

impl Excerpt {
    pub(crate) fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        match self {
            Self::Whole(content) => content.copy_to(out).map(drop),
            Self::Header(header) => out.write_all(header),
        }
    }
}

/// The journal lost the record in a power cut; the recipient's state survived.
fn unrecorded() -> Outcome {
    Outcome::bounced("none", Dsn::new(5, 0, 0), "delivery failed; the reason was not recorded")
}
