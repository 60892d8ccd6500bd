//! One message on its way from the client to cleanup.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use ipc::cleanup::{CleanupError, Late, Submission};
use ipc::log;
use mail::{Address, Client as MailClient, Dsn, Envelope, Notify, Origin, QueueId, Recipient};
use smtp_proto::Reply;
use smtp_proto::parameter::Rcpt;
use smtp_proto::server::Transaction;

use crate::refusal;
use crate::restrictions::Effects;
use crate::server::Server;

/// A message whose content is coming in. Dropping it sends nothing on.
pub(crate) struct Transfer {
    pub(crate) id: QueueId,
    target: Target,
}

/// Where a message comes from.
pub(crate) struct Source {
    /// As the log shows it.
    pub(crate) shown: String,
    pub(crate) client: MailClient,
    /// Its headers are completed like those of local mail.
    pub(crate) rewrite_headers: bool,
    /// Where it came from before, as XFORWARD has it.
    pub(crate) forwarded: Option<mail::Forwarded>,
}

enum Target {
    Cleanup(Submission),
    /// A restriction said DISCARD: the client is told that it was taken.
    Nowhere,
    /// Cleanup went away; the client hears it at the end.
    Failed(CleanupError),
}

impl Transfer {
    /// Opens the way to cleanup.
    ///
    /// # Errors
    /// The reply for a message that cannot even begin.
    pub(crate) fn begin(
        server: &Server,
        transaction: &Transaction,
        source: Source,
        effects: &Effects,
    ) -> Result<Self, Reply> {
        let now = SystemTime::now();
        let id = QueueId::generate(now);
        log::client(id, &source.shown);
        let mail = &transaction.mail;
        let envelope = Envelope {
            origin: Origin::Smtp { rewrite_headers: source.rewrite_headers },
            client: source.client,
            forwarded: source.forwarded,
            envid: mail.envid.clone(),
            ret: mail.ret,
            body: mail.body,
            smtputf8: mail.smtputf8,
            content_filter: filter(server, effects),
            ..Envelope::new(
                mail.sender.clone(),
                recipients(transaction, effects),
                now.duration_since(UNIX_EPOCH).unwrap_or_default(),
            )
        };
        if effects.discard {
            return Ok(Self { id, target: Target::Nowhere });
        }
        let options = ipc::cleanup::Options { hold: effects.hold, ..server.cleanup_options };
        match server.cleanup.begin(id, &envelope, options) {
            Ok(submission) => {
                let mut transfer = Self { id, target: Target::Cleanup(submission) };
                for header in &effects.prepend {
                    transfer.content(format!("{header}\n").as_bytes());
                }
                Ok(transfer)
            }
            Err(error) => {
                log::warning!("{id}: {error}");
                Err(refusal::from_cleanup(&error))
            }
        }
    }

    /// A piece of the content.
    pub(crate) fn content(&mut self, bytes: &[u8]) {
        if let Target::Cleanup(submission) = &mut self.target
            && let Err(error) = submission.write_all(bytes)
        {
            self.target = Target::Failed(CleanupError::Unreachable(error));
        }
    }

    /// The end of the content: waits until the message is durable. `chunked` is the size of a message that came by
    /// BDAT, `effects` what was decided when it was there.
    pub(crate) fn commit(self, chunked: Option<u64>, effects: Effects) -> Reply {
        let id = self.id;
        let Effects { hold, filter, redirect, bcc, .. } = effects;
        let result = match self.target {
            Target::Cleanup(_) if effects.discard => Ok(()),
            Target::Cleanup(submission) => {
                submission.commit_with(Late { hold, filter, redirect, bcc }).map(drop)
            }
            Target::Nowhere => Ok(()),
            Target::Failed(error) => Err(error),
        };
        match result {
            Ok(()) => {
                let size = chunked.map(|size| format!("{size} bytes ")).unwrap_or_default();
                Reply::new(250, Dsn::new(2, 0, 0), format!("Ok: {size}queued as {id}"))
            }
            Err(error) => {
                if !matches!(&error, CleanupError::Refused(refusal) if refusal.dsn().class() == 5) {
                    log::warning!("{id}: {error}");
                }
                refusal::from_cleanup(&error)
            }
        }
    }
}

/// What the message goes through: REDIRECT overrides FILTER, and that overrides `content_filter`.
fn filter(server: &Server, effects: &Effects) -> Option<String> {
    let usual = || server.content_filter.clone();
    if effects.redirect.is_some() { None } else { effects.filter.clone().or_else(usual) }
}

/// Who gets the message: REDIRECT stands for all recipients, BCC is one more who is not to be heard of.
fn recipients(transaction: &Transaction, effects: &Effects) -> Vec<Recipient> {
    let mut recipients: Vec<Recipient> = match &effects.redirect {
        Some(address) => vec![Recipient::new(address.clone())],
        None => transaction.recipients.iter().map(recipient).collect(),
    };
    let silent = |address: &Address| Recipient { notify: Notify::NEVER, ..Recipient::new(address.clone()) };
    recipients.extend(effects.bcc.as_ref().filter(|_| effects.redirect.is_none()).map(silent));
    recipients
}

fn recipient(rcpt: &Rcpt) -> Recipient {
    Recipient {
        address: rcpt.recipient.clone(),
        original: None,
        notify: rcpt.notify,
        orcpt: rcpt.orcpt.clone(),
    }
}
