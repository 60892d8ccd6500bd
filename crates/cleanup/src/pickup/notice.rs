//! What the sender of a submission gets that cleanup will never take: a delivery status notification (RFC 3464). It is
//! written here because the message has no queue file that bounce could look at.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::cleanup::{CleanupError, Client, Options, Refusal};
use mail::header::{self, Next};
use mail::{Address, Envelope, QueueId, Recipient};

/// The most header bytes that are given back.
const MAX_RETURNED: usize = 16 * 1024;

/// The most recipients that are named.
const MAX_NAMED: usize = 100;

/// A submission that was refused.
pub(super) struct Notice<'a> {
    pub(super) id: QueueId,
    pub(super) envelope: &'a Envelope,
    pub(super) refusal: &'a Refusal,
    /// The content, or its beginning.
    pub(super) content: &'a [u8],
    pub(super) host: &'a str,
}

impl Notice<'_> {
    /// Puts it into the queue; gives its queue id.
    pub(super) fn send(&self, cleanup: &Client) -> Result<QueueId, CleanupError> {
        let now = SystemTime::now();
        let id = QueueId::generate(now);
        let envelope = Envelope {
            smtputf8: self.envelope.smtputf8,
            ..Envelope::new(
                Address::null(),
                vec![Recipient::new(self.envelope.sender.clone())],
                now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
            )
        };
        // A notice that header checks refuse, too, would go round in circles.
        let options = Options { filter: false, ..Options::default() };
        let mut submission = cleanup.begin(id, &envelope, options)?;
        let content = self.content_bytes();
        submission.write_all(&content).map_err(CleanupError::Unreachable)?;
        submission.commit()?;
        Ok(id)
    }

    fn content_bytes(&self) -> Vec<u8> {
        let (id, host, sender) = (self.id, self.host, self.envelope.sender.to_path());
        let border = format!("{id}/{host}");
        let mut text = format!(
            "From: MAILER-DAEMON (Mail Delivery System)\n\
             Subject: Undelivered Mail Returned to Sender\n\
             To: {sender}\n\
             Auto-Submitted: auto-replied\n\
             MIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"{border}\"\n\
             Content-Transfer-Encoding: 8bit\n\n\
             This is a MIME-encapsulated message.\n\n\
             --{border}\nContent-Description: Notification\nContent-Type: text/plain; charset=utf-8\n\n\
             This is the mail system at host {host}.\n\n\
             The message that you submitted on this host was not accepted, and\n\
             nobody will get it:\n\n    {}\n\n\
             --{border}\nContent-Description: Delivery report\nContent-Type: message/delivery-status\n\n\
             Reporting-MTA: dns; {host}\n",
            self.refusal,
        );
        for recipient in self.envelope.recipients.iter().take(MAX_NAMED) {
            let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\nFinal-Recipient: {kind}; {}\nAction: failed\nStatus: {}\nDiagnostic-Code: X-Postroad; {}\n",
                recipient.address.to_path(),
                self.refusal.dsn(),
                self.refusal,
            );
        }
        let _ = write!(
            text,
            "\n--{border}\nContent-Description: Undelivered Message Headers\nContent-Type: text/rfc822-headers\n\
             Content-Transfer-Encoding: 8bit\n\n"
        );
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(header_block(self.content));
        bytes.extend_from_slice(format!("\n--{border}--\n").as_bytes());
        bytes
    }
}

/// The header fields at the beginning of a message, as far as they are given back.
fn header_block(content: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Next::Field(field) = header::next(&content[end..], true) {
        let next = end + field.bytes().len();
        if next > MAX_RETURNED || field.bytes().is_empty() {
            break;
        }
        end = next;
    }
    &content[..end]
}
