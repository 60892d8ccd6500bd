//! The domain of mail: what every program of the suite talks about, and nothing that touches the outside.
//!
//! Contract: pure. No sockets, no files, no clock but the one a caller hands in. A value of one of these types has been
//! checked when it was made; nobody checks it again, and every process makes it anew from bytes.

mod address;
pub mod date;
mod dsn;
mod envelope;
pub mod fields;
pub mod header;
pub mod header_address;
pub mod mime;
mod outcome;
mod queue_id;
pub mod submission;

pub use address::{Address, AddressError};
pub use dsn::Dsn;
pub use envelope::{Body, Client, DsnReturn, Envelope, Forwarded, Notify, Origin, Recipient, Trace};
pub use outcome::{Outcome, Served, Status};
pub use queue_id::{QueueId, QueueIdError};
