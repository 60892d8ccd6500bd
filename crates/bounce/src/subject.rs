//! The message that is reported on, as its queue file tells it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use ipc::bounce::{Kind, Request};
use jiff::{Timestamp, Zoned};
use mail::{Body, Dsn, DsnReturn, Notify, Outcome, Served, Status};
use queue::{Attempt, Content, QueueError, Stored};

use crate::notice::is_wanted;
use crate::report::{Reader, Reported, Returned};

/// How many recipients are read at a time.
const BATCH: usize = 1000;

/// How much content is looked at or sent at a time.
const CHUNK: usize = 64 * 1024;

/// More recipients than this are counted, not listed, so that a list with a hundred thousand dead members makes a
/// report that somebody can read.
pub(crate) const MAX_LISTED: usize = 10_000;

/// The reasons of all that are listed, together; more of them makes each shorter.
const MAX_REASONS: usize = 4 * 1024 * 1024;

/// No reason is made shorter than this.
const MIN_REASON: usize = 128;

/// The message, and those of its recipients that are reported on.
pub(crate) struct Subject {
    pub(crate) stored: Stored,
    /// Those which the sender wants to hear of.
    wanted: Listed,
    /// All.
    all: Listed,
}

/// Recipients to tell of.
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) recipients: Vec<Reported>,
    /// How many there are beyond these.
    pub(crate) unlisted: usize,
}

impl Listed {
    fn add(&mut self, recipient: Reported) {
        if self.recipients.len() < MAX_LISTED {
            self.recipients.push(recipient);
        } else {
            self.unlisted += 1;
        }
    }
}

impl Subject {
    /// Reads what a request is about. Memory is bounded, however many recipients the message has.
    pub(crate) fn read(request: &Request, descriptor: OwnedFd) -> Result<Self, String> {
        let name = PathBuf::from(format!("the queue file of {}", request.id));
        let stored = Stored::from_file(File::from(descriptor), &name).map_err(said)?;
        let asked: HashSet<u32> = request.recipients.iter().copied().collect();
        let mut attempts = last_attempts(&stored, &asked)?;
        let (mut wanted, mut all) = (Listed::default(), Listed::default());
        let mut next = request.recipients.iter().copied().min().unwrap_or(u32::MAX);
        let last = request.recipients.iter().copied().max().unwrap_or_default();
        while next <= last {
            let batch = stored.recipients_from(next, BATCH).map_err(said)?;
            let Some(end) = batch.last().map(|recipient| recipient.index) else { break };
            for found in batch.into_iter().filter(|found| asked.contains(&found.index)) {
                let notify = found.recipient.notify;
                let attempt = attempts.remove(&found.index);
                let time = attempt.as_ref().map(|attempt| local(attempt.time));
                let outcome = attempt.map_or_else(|| unrecorded(notify), |attempt| attempt.outcome);
                let Some(outcome) = told_as(request.kind, outcome) else { continue };
                // Who took the request on will answer it.
                let is_passed_on = request.kind == Kind::Success && outcome.served == Served::PassedOn;
                let (address, original) = (found.recipient.address, found.recipient.original);
                let is_hidden = request.kind == Kind::Success && outcome.served == Served::Expanded;
                let (address, original) = match outcome.final_recipient.clone() {
                    // Whom an expansion reached is none of the sender's business.
                    Some(reached) if !is_hidden => (reached, original.or(Some(address))),
                    _ => (address, original),
                };
                let recipient = Reported { address, original, orcpt: found.recipient.orcpt, outcome, time };
                // With `confirm_delay_cleared` the queue manager asks for those who know of the delay as well.
                let is_cleared = request.kind == Kind::Success
                    && stored.delay_was_reported()
                    && is_wanted(Kind::Delay, notify);
                if (is_cleared || is_wanted(request.kind, notify)) && !is_passed_on {
                    wanted.add(recipient.clone());
                }
                all.add(recipient);
            }
            next = end.saturating_add(1);
        }
        Ok(Self { stored, wanted, all })
    }

    /// The recipients that a reader is told of: the postmaster of all, whatever the sender wants.
    pub(crate) fn reported_to(&self, reader: Reader) -> &Listed {
        match reader {
            Reader::Sender => &self.wanted,
            Reader::Postmaster => &self.all,
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
                // The empty line is no part of text/rfc822-headers (RFC 6522 section 4), nor is half a line.
                if header == b"\n" || header.ends_with(b"\n\n") {
                    header.pop();
                }
                let whole = header.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                header.truncate(whole);
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

/// The outcome as a report of this kind has it. In a report of success that is the expansion, whatever became of it; of
/// a failure without one there is nothing to tell.
fn told_as(kind: Kind, outcome: Outcome) -> Option<Outcome> {
    match (kind, outcome.status, outcome.served) {
        (Kind::Success, Status::Deferred | Status::Bounced, Served::Expanded) => {
            Some(Outcome::sent(&outcome.relay, "alias expanded").counted_as(Served::Expanded))
        }
        (Kind::Success, Status::Deferred | Status::Bounced, _) => None,
        _ => Some(outcome),
    }
}

fn said(error: QueueError) -> String {
    error.to_string()
}

/// The last attempt for each of these recipients, as far as they can be listed.
fn last_attempts(stored: &Stored, asked: &HashSet<u32>) -> Result<HashMap<u32, Attempt>, String> {
    let longest = (MAX_REASONS / asked.len().clamp(1, 2 * MAX_LISTED)).max(MIN_REASON);
    let mut attempts = HashMap::new();
    for attempt in stored.journal() {
        let mut attempt = attempt.map_err(|error| format!("read the queue file: {error}"))?;
        let is_new = !attempts.contains_key(&attempt.recipient);
        if !asked.contains(&attempt.recipient) || (is_new && attempts.len() >= 2 * MAX_LISTED) {
            continue;
        }
        let outcome = &mut attempt.outcome;
        for text in [Some(&mut outcome.text), outcome.diagnostic.as_mut()].into_iter().flatten() {
            text.truncate(text.floor_char_boundary(longest));
        }
        attempts.insert(attempt.recipient, attempt);
    }
    Ok(attempts)
}

/// A recipient that no attempt was made for: its address was replaced by others on arrival, or the journal lost the record
/// in a power cut, which the recipient's state survived.
fn unrecorded(notify: Notify) -> Outcome {
    if notify.contains(Notify::EXPANDED) {
        return Outcome::sent("none", "alias expanded").counted_as(Served::Expanded);
    }
    Outcome::bounced("none", Dsn::new(5, 0, 0), "delivery failed; the reason was not recorded")
}

/// A time beyond what calendars know is shown as their first one.
pub(crate) fn local(time: SystemTime) -> Zoned {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(ipc::log::zone())
}
