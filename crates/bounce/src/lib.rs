//! Delivery status notifications, and the two agents that deliver nothing.
//!
//! Contract: bounce touches nothing but its connections to qmgr and cleanup. It is handed a read-only descriptor of the
//! queue file with each request, and answers when the notifications are in the queue, or need not be. It remembers
//! nothing: a request whose answer is lost is simply made again.

mod agents;
mod findings;
#[doc(hidden)]
pub mod fuzzing;
mod notice;
mod policy;
mod report;
mod send;
mod server;
mod subject;

pub use agents::{discard, error};
pub use server::run;
