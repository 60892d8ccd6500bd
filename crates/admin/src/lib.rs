//! Commands of the operator: `postroad`, `postconf`, and what shows and changes the queue. Each is a small binary over a module.

mod command;
pub mod postcat;
pub mod postconf;
pub mod postlog;
pub mod postqueue;
pub mod postroad;
pub mod postsuper;
mod queue_list;
pub mod showq;
