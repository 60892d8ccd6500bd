//! What became of one delivery to one recipient.

use serde::{Deserialize, Serialize};

use crate::{Address, Dsn};

/// The result of one delivery attempt for one recipient. Agents return it; shared code logs, records and reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What happened.
    pub status: Status,
    /// The enhanced status code; its class agrees with `status`.
    pub dsn: Dsn,
    /// Why, as it stands in parentheses in the log and in a notification.
    pub text: String,
    /// Who took or refused the message: `local`, `virtual`, `none`, or a remote `host[address]:port`.
    pub relay: String,
    /// How a recipient that is done counts in a success report; of no meaning for the others.
    pub served: Served,
    /// The name of the remote host that said so (`Remote-MTA`), where one did.
    pub remote_mta: Option<String>,
    /// What a program other than this one said, with its type, as `smtp; 550 5.1.1 unknown` or `x-unix; exit status 1`
    /// (`Diagnostic-Code`); where there is none, a report gives `text`.
    pub diagnostic: Option<String>,
    /// The address that the recipient became on the way through the agent's own aliases, where it is another.
    pub final_recipient: Option<Address>,
    /// Another agent, to which this one handed the message, has logged it. Not kept.
    pub logged: bool,
}

/// What was done for a recipient that needs no further attempt (RFC 3461 section 5.2, RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Served {
    /// It is in the recipient's mailbox, or with the recipient's program.
    #[default]
    Delivered,
    /// Another mail system has it, which does not know of success reports.
    Relayed,
    /// It goes to what the address stands for; whether it arrives there is not told.
    Expanded,
    /// Another mail system has it and the request for a success report with it: there is none from here.
    PassedOn,
}

/// What happened to the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Delivered or handed on: the recipient is done.
    Sent,
    /// To be tried again.
    Deferred,
    /// Failed for good: the sender is told.
    Bounced,
}

impl Status {
    /// The word after `status=` in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Deferred => "deferred",
            Self::Bounced => "bounced",
        }
    }
}

impl Outcome {
    /// Delivered.
    #[must_use]
    pub fn sent(relay: &str, text: impl Into<String>) -> Self {
        Self::new(Status::Sent, Dsn::new(2, 0, 0), text.into(), relay)
    }

    /// To be tried again; `dsn` is given the class 4.
    #[must_use]
    pub fn deferred(relay: &str, dsn: Dsn, text: impl Into<String>) -> Self {
        Self::new(Status::Deferred, dsn.with_class(4), text.into(), relay)
    }

    /// Failed for good; `dsn` is given the class 5.
    #[must_use]
    pub fn bounced(relay: &str, dsn: Dsn, text: impl Into<String>) -> Self {
        Self::new(Status::Bounced, dsn.with_class(5), text.into(), relay)
    }

    /// The same as `soft_bounce` has it: what failed for good is to be tried again.
    #[must_use]
    pub fn softened(self) -> Self {
        match self.status {
            Status::Bounced => Self { status: Status::Deferred, dsn: self.dsn.with_class(4), ..self },
            Status::Sent | Status::Deferred => self,
        }
    }

    fn new(status: Status, dsn: Dsn, text: String, relay: &str) -> Self {
        let relay = relay.to_owned();
        Self {
            status,
            dsn,
            text,
            relay,
            served: Served::Delivered,
            remote_mta: None,
            diagnostic: None,
            final_recipient: None,
            logged: false,
        }
    }

    /// The same, counted in another way.
    #[must_use]
    pub fn counted_as(self, served: Served) -> Self {
        Self { served, ..self }
    }

    /// The same, as a remote host decided it. `reply` is what it said, without what was sent before: `550 5.1.1 unknown`.
    #[must_use]
    pub fn said_by(self, host: &str, reply: Option<&str>) -> Self {
        let diagnostic = reply.map(|reply| format!("smtp; {reply}")).or(self.diagnostic);
        Self { remote_mta: Some(host.to_owned()), diagnostic, ..self }
    }
}
