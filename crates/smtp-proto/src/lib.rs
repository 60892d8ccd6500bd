//! SMTP on the wire, without the wire: bytes in, events and bytes out.
//!
//! Contract: pure. No sockets, no clock, no files, no threads; nothing here blocks, and no input makes it panic. A program
//! that speaks SMTP reads into [`server::Session`]'s buffer, acts upon the events, and writes what has gathered in the
//! output. Memory is bounded by the buffer that the program gives and by the limits in [`server::Settings`].
//!
//! - [`server`]: a server's session: who may say what when, limits on errors, pipelining.
//! - [`client`]: a client's session, SMTP and LMTP: replies matched to commands, pipelining, content on its way out.
//! - [`sasl`]: the mechanisms of AUTH, both sides.
//! - [`content`]: message content off the wire, after DATA and in BDAT chunks. What ends a message is decided there alone.
//! - [`command`]: the table of verbs, and how a line is taken apart.
//! - [`path`], [`parameter`]: the arguments of MAIL and RCPT.
//! - [`reply`]: replies, and the one place where a protocol error becomes one.

pub mod client;
pub mod command;
pub mod content;
pub mod input;
pub mod parameter;
pub mod path;
pub mod reply;
pub mod sasl;
pub mod server;
pub mod xtext;

pub use command::Verb;
pub use reply::{Fault, Reply};
