//! What became of one delivery to one recipient.

use serde::{Deserialize, Serialize};

use crate::Dsn;

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
        Self { status: Status::Sent, dsn: Dsn::new(2, 0, 0), text: text.into(), relay: relay.to_owned() }
    }

    /// To be tried again; `dsn` is given the class 4.
    #[must_use]
    pub fn deferred(relay: &str, dsn: Dsn, text: impl Into<String>) -> Self {
        let dsn = dsn.with_class(4);
        Self { status: Status::Deferred, dsn, text: text.into(), relay: relay.to_owned() }
    }

    /// Failed for good; `dsn` is given the class 5.
    #[must_use]
    pub fn bounced(relay: &str, dsn: Dsn, text: impl Into<String>) -> Self {
        let dsn = dsn.with_class(5);
        Self { status: Status::Bounced, dsn, text: text.into(), relay: relay.to_owned() }
    }
}
