//! qmgr ↔ delivery agents: requests multiplexed over one lasting connection, each with a read-only descriptor of the
//! queue file, or of the same in memory; one outcome comes back for each recipient as soon as it is known.

use std::time::Duration;

use mail::{Address, Body, Client, Dsn, DsnReturn, Notify, Outcome, QueueId, Trace};
use serde::{Deserialize, Serialize};

/// One delivery: a message, a next hop, some of its recipients. A read-only descriptor of the queue file goes with it, or
/// of a file in memory that holds the same and cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// qmgr's number for this delivery, repeated in each [`Reply`].
    pub delivery: u64,
    /// The message.
    pub id: QueueId,
    /// Where to: what the transport map, `relayhost` or the recipient's domain says.
    pub nexthop: String,
    /// Reverse path.
    pub sender: Address,
    /// Time of arrival since the Unix epoch.
    pub arrival: Duration,
    /// When qmgr took it up for this attempt, since the Unix epoch.
    pub active_since: Duration,
    /// Size of the content in bytes.
    pub size: u64,
    /// ENVID as received.
    pub envid: Option<String>,
    /// RET as received.
    pub ret: Option<DsnReturn>,
    /// BODY as received.
    pub body: Body,
    /// The message needs SMTPUTF8.
    pub smtputf8: bool,
    /// Whether the sender is told of each step. [`Trace::is_probe`]: find out whether it could be delivered, and let
    /// it be; the outcome is `sent` where it could.
    pub trace: Trace,
    /// The client that had it first, for `XFORWARD` and the environment of commands.
    pub client: Client,
    /// Its queue id at that client's server, where another one has passed it on.
    pub first_id: Option<String>,
    /// Its headers are those of local mail ([`mail::Envelope::is_local`]).
    pub is_local: bool,
    /// Who shall get it.
    pub recipients: Vec<RequestRecipient>,
}

/// A recipient of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecipient {
    /// The recipient's number in the queue file.
    pub index: u32,
    /// Where the message goes.
    pub address: Address,
    /// The address before rewriting, where it differs.
    pub original: Option<Address>,
    /// NOTIFY as received.
    pub notify: Notify,
    /// ORCPT as received.
    pub orcpt: Option<String>,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The agent has taken the connection: said once, before anything else. An agent that cannot be started never says
    /// it, though its socket can be connected to.
    Ready,
    /// What became of one recipient.
    Outcome {
        /// The delivery's number.
        delivery: u64,
        /// The recipient's number in the queue file.
        recipient: u32,
        /// The result.
        outcome: Outcome,
    },
    /// Every recipient of the delivery has its outcome.
    Done {
        /// The delivery's number.
        delivery: u64,
        /// Set where the destination itself could not be reached or would not talk, whoever the recipients are.
        site: Option<SiteFailure>,
    },
    /// The agent is about to do what a crash may leave half done: the message must come again then, and is not yet in the
    /// queue for good. The agent waits until its file says that it is (`sys::lent`).
    Keep {
        /// The delivery's number.
        delivery: u64,
    },
}

/// Why a destination takes no mail at all: what the queue manager's concurrency feedback goes by, and what it says
/// of the mail that waits for a destination it gave up for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFailure {
    /// The enhanced status code.
    pub dsn: Dsn,
    /// The reason, as in an outcome.
    pub text: String,
}
