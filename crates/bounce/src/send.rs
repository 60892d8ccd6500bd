//! A notice becomes a message in the queue.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use ipc::bounce::{Kind, Request};
use ipc::cleanup::{self, CleanupError, Options, Refusal};
use ipc::log;
use mail::{Body, Envelope, QueueId, Recipient};

use crate::notice::Notice;
use crate::policy::Policy;
use crate::report::{Facts, Reader, Report, Returned, return_path};
use crate::subject::{Excerpt, Subject, local};

/// Sends one notice. `Ok` also where it cannot be sent and never will: that is logged, and there is nobody to tell.
///
/// # Errors
/// Why it should be tried again.
pub(crate) fn send(
    notice: &Notice,
    request: &Request,
    subject: &Subject,
    policy: &Policy,
    client: &cleanup::Client,
) -> Result<(), String> {
    let returned = subject.returned(notice.returned, policy.size_limit);
    let result = match attempt(notice, request, subject, policy, client, returned) {
        // The whole message may be as large as messages may be, and the report is larger.
        Err(CleanupError::Refused(Refusal::TooBig)) if returned == Returned::Full => {
            attempt(notice, request, subject, policy, client, Returned::Headers)
        }
        result => result,
    };
    match result {
        Ok(id) => {
            note(notice, request, id);
            Ok(())
        }
        Err(CleanupError::Refused(refusal)) if refusal.dsn().class() == 5 => {
            let (id, to) = (request.id, &notice.to);
            log::warning!("{id}: notification to <{to}> was refused and is dropped: {refusal}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn attempt(
    notice: &Notice,
    request: &Request,
    subject: &Subject,
    policy: &Policy,
    client: &cleanup::Client,
    returned: Returned,
) -> Result<QueueId, CleanupError> {
    let now = SystemTime::now();
    let id = QueueId::generate(now);
    let excerpt = subject.excerpt(returned, policy.header_limit).map_err(reading_failed)?;
    let stored = &subject.stored;
    let listed = subject.reported_to(notice.reader);
    let report = Report::build(&Facts {
        kind: request.kind,
        reader: notice.reader,
        report_id: id,
        to: &notice.to,
        now: local(now),
        hostname: &policy.hostname,
        label: &policy.label,
        text: policy.text(request.kind),
        queue_id: request.id,
        sender: stored.sender(),
        arrival: local(stored.arrival()),
        envid: stored.envid(),
        retry_until: (request.kind == Kind::Delay).then(|| local(stored.arrival() + policy.lifetime)),
        is_probe: stored.trace().is_probe(),
        recipients: &listed.recipients,
        unlisted: listed.unlisted,
        returned,
        eight_bit: subject.is_eight_bit(&excerpt).map_err(reading_failed)?,
        smtputf8: stored.smtputf8(),
    });
    let envelope = Envelope {
        body: if report.eight_bit { Body::EightBitMime } else { Body::SevenBit },
        smtputf8: stored.smtputf8(),
        ..Envelope::new(
            notice.sender.clone(),
            vec![Recipient::new(notice.to.clone())],
            now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        )
    };
    let options = Options { filter: policy.filter, ..Options::default() };
    let mut out = client.begin(id, &envelope, options)?;
    let return_path = return_path(stored.sender(), &policy.hostname);
    write(&report, &return_path, &excerpt, &mut out).map_err(CleanupError::Unreachable)?;
    out.commit()?;
    Ok(id)
}

fn write(report: &Report, return_path: &str, excerpt: &Excerpt, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&report.head)?;
    out.write_all(return_path.as_bytes())?;
    excerpt.write_to(out)?;
    out.write_all(&report.tail)
}

fn reading_failed(error: io::Error) -> CleanupError {
    CleanupError::Unreachable(io::Error::new(error.kind(), format!("read the queue file: {error}")))
}

fn note(notice: &Notice, request: &Request, id: QueueId) {
    let kind = match request.kind {
        Kind::Failure => "non-delivery",
        Kind::Delay => "delay",
        Kind::Success | Kind::Trace => "delivery status",
    };
    match notice.reader {
        Reader::Sender => log::notified(request.id, kind, id),
        Reader::Postmaster => log::info!("{}: postmaster {kind} notification: {id}", request.id),
    }
}
