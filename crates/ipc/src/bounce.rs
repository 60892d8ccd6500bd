//! qmgr → bounce: make a delivery status notification. A read-only descriptor of the queue file goes with each request;
//! the reasons are in its journal.

use mail::QueueId;
use serde::{Deserialize, Serialize};

/// What kind of report. What it says of each recipient comes from the last record of the queue file's journal: the
/// status of the outcome, and of those that are done how they were served ([`mail::Served`]). One without a record and
/// with [`mail::Notify::EXPANDED`] was expanded when the message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The recipients cannot be reached (RFC 3464 `Action: failed`).
    Failure,
    /// The recipients are still being tried (`Action: delayed`).
    Delay,
    /// The recipients were reached and the sender asked to know (`Action: delivered`, `relayed` or `expanded`). Those
    /// whose request was passed on ([`mail::Served::PassedOn`]) are left out.
    Success,
    /// What became of every recipient, because the sender of the message asked for it ([`mail::Trace::Deliveries`] and
    /// [`mail::Trace::Probe`]): whatever NOTIFY says, and instead of all other reports on a message that is a probe.
    Trace,
}

/// A report to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// qmgr's number for the request.
    pub number: u64,
    /// The message that is reported on.
    pub id: QueueId,
    /// What is reported.
    pub kind: Kind,
    /// The numbers, in the queue file, of the recipients to report on; the journal has the reason for each.
    pub recipients: Vec<u32>,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The number of the request.
    pub number: u64,
    /// Whether the report is in the queue, or needs not be; otherwise why not, and qmgr tries again later.
    pub result: Result<(), String>,
}
