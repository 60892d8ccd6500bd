//! One submission: from its file, or from memory, to cleanup.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::cleanup::{CleanupError, Client, Options, Refusal};
use ipc::log;
use mail::submission::{
    Arriving, Head, LostBlock, MAX_HEAD, SubmissionError, TRAILER_LENGTH, content_length,
};
use mail::{Envelope, Origin, QueueId};

use super::notice;

/// How much of the file is read at once; most submissions are smaller.
const PIECE: usize = 64 * 1024;

/// What brings submissions to cleanup.
pub(super) struct Submitter {
    pub(super) cleanup: Client,
    pub(super) options: Options,
    /// `transport:nexthop` that all mail goes through; `None` for none.
    pub(super) content_filter: Option<String>,
    pub(super) myhostname: String,
}

/// A finished file in `maildrop/`.
pub(super) struct Found {
    pub(super) file: File,
    pub(super) uid: u32,
    pub(super) modified: SystemTime,
    pub(super) size: u64,
}

/// Why a file stays.
pub(super) enum Failure {
    /// It is no submission.
    Malformed(String),
    /// Something else is at fault: try again.
    Later(String),
}

impl Submitter {
    /// Submits the message in a file. It is in the queue when this returns, or its sender has been told why not.
    pub(super) fn submit(&self, found: &Found) -> Result<(), Failure> {
        // Were it delivered before, its file would bring it once more after a crash, besides the one in the queue.
        let options = Options { can_wait: false, ..self.options };
        self.bring(&open(found)?, found.uid, found.modified, options)
    }

    /// The same for a message that this user has handed over as a whole.
    pub(super) fn submit_handed(&self, arrived: Arriving, uid: u32) -> Result<(), Failure> {
        let (head, content) = arrived.open().map_err(|error| Failure::Malformed(error.to_string()))?;
        // He waits for a moment.
        let options = Options { can_wait: true, ..self.options };
        self.bring(&Opened { head, content, rest: None }, uid, SystemTime::now(), options)
    }

    fn bring(
        &self,
        opened: &Opened<'_>,
        uid: u32,
        arrival: SystemTime,
        options: Options,
    ) -> Result<(), Failure> {
        let id = QueueId::generate(SystemTime::now());
        log::submitted(id, uid, &opened.head.sender);
        let content_filter = self.content_filter.clone();
        let envelope = Envelope { content_filter, ..envelope(&opened.head, uid, arrival) };
        match self.transmit(id, &envelope, opened, options) {
            Ok(()) => Ok(()),
            Err(Failed::Torn) => Err(Failure::Malformed("a part of it was lost".into())),
            Err(Failed::Reading(error)) => Err(Failure::Later(format!("read: {error}"))),
            Err(Failed::Cleanup(CleanupError::Refused(refusal))) if refusal.dsn().class() == 5 => {
                self.refused(id, &envelope, opened, &refusal)
            }
            Err(Failed::Cleanup(error)) => Err(Failure::Later(error.to_string())),
        }
    }

    fn transmit(
        &self,
        id: QueueId,
        envelope: &Envelope,
        opened: &Opened<'_>,
        options: Options,
    ) -> Result<(), Failed> {
        let mut submission = self.cleanup.begin_as(&opened.head.full_name, id, envelope, options)?;
        // The head was understood, so that nothing of it is lost.
        let mut lost = LostBlock::default();
        let mut write = |bytes: &[u8]| {
            if lost.is_in(bytes) {
                return Err(Failed::Torn);
            }
            submission.write_all(bytes).map_err(|error| Failed::Cleanup(CleanupError::Unreachable(error)))
        };
        write(&opened.content)?;
        if let Some((file, Range { start: mut at, end })) = opened.rest.clone() {
            let mut piece = Vec::new();
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                piece.resize(length, 0);
                file.read_exact_at(&mut piece, at).map_err(Failed::Reading)?;
                write(&piece)?;
                at += length as u64;
            }
        }
        submission.commit()?;
        Ok(())
    }

    /// Cleanup will never take this message: its sender is told.
    fn refused(
        &self,
        id: QueueId,
        envelope: &Envelope,
        opened: &Opened<'_>,
        refusal: &Refusal,
    ) -> Result<(), Failure> {
        log::warning!("{id}: submission refused: {refusal}");
        if envelope.sender.is_null() {
            return Err(Failure::Malformed(format!("{refusal}; there is no sender to tell")));
        }
        let notice =
            notice::Notice { id, envelope, refusal, content: &opened.content, host: &self.myhostname };
        let number = notice.send(&self.cleanup).map_err(|error| match error {
            CleanupError::Refused(other) if other.dsn().class() == 5 => {
                Failure::Malformed(format!("{refusal}; the notice to its sender: {other}"))
            }
            error => Failure::Later(error.to_string()),
        })?;
        log::notified(id, "non-delivery", number);
        Ok(())
    }
}

enum Failed {
    /// A power cut has taken a block of it, before its submitter was told that it is taken.
    Torn,
    Reading(io::Error),
    Cleanup(CleanupError),
}

impl From<CleanupError> for Failed {
    fn from(error: CleanupError) -> Self {
        Self::Cleanup(error)
    }
}

/// A submission whose head was read and whose length is right.
struct Opened<'a> {
    head: Head,
    /// The content as far as it was read with the head.
    content: Vec<u8>,
    /// Where the rest of it is.
    rest: Option<(&'a File, Range<u64>)>,
}

fn open(found: &Found) -> Result<Opened<'_>, Failure> {
    let end = content_end(found)?;
    let (head, start, mut bytes) = read_head(&found.file)?;
    let start_of_content = start as u64;
    if end.checked_sub(start_of_content) != stated_length(found, end)? {
        return Err(Failure::Malformed("its length is not what its end says".into()));
    }
    let next = (bytes.len() as u64).min(end);
    bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    bytes.drain(..start);
    Ok(Opened { head, content: bytes, rest: Some((&found.file, next..end)) })
}

fn content_end(found: &Found) -> Result<u64, Failure> {
    let end = found.size.checked_sub(TRAILER_LENGTH as u64);
    end.ok_or_else(|| Failure::Malformed("it was cut short".into()))
}

fn stated_length(found: &Found, end: u64) -> Result<Option<u64>, Failure> {
    let mut trailer = [0; TRAILER_LENGTH];
    found.file.read_exact_at(&mut trailer, end).map_err(|error| Failure::Later(format!("read: {error}")))?;
    match content_length(&trailer) {
        None => Err(Failure::Malformed("it was cut short".into())),
        length => Ok(length),
    }
}

/// The head, where the content begins, and all that was read.
fn read_head(file: &File) -> Result<(Head, usize, Vec<u8>), Failure> {
    let mut bytes = Vec::with_capacity(PIECE);
    loop {
        // Twice as much each time, so that a long head is not decoded too often.
        let wanted = bytes.len().max(PIECE) as u64;
        let count = file.take(wanted).read_to_end(&mut bytes);
        let count = count.map_err(|error| Failure::Later(format!("read: {error}")))?;
        match Head::decode(&bytes) {
            Ok(Some((head, start))) => return Ok((head, start, bytes)),
            Ok(None) if count > 0 && bytes.len() <= 2 * MAX_HEAD => {}
            Ok(None) => return Err(Failure::Malformed(SubmissionError::HeadTooLong.to_string())),
            Err(error) => return Err(Failure::Malformed(error.to_string())),
        }
    }
}

fn envelope(head: &Head, uid: u32, modified: SystemTime) -> Envelope {
    // The owner of a file may set its time to anything.
    let arrival = modified.min(SystemTime::now());
    Envelope {
        origin: Origin::Local { uid },
        envid: head.envid.clone(),
        ret: head.ret,
        body: head.body,
        smtputf8: head.smtputf8,
        trace: head.trace,
        ..Envelope::new(
            head.sender.clone(),
            head.recipients.clone(),
            arrival.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
        )
    }
}
