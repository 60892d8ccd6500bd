//! Commands of the operator: `postroad`, `postconf`, and what shows and changes the queue. Each is a small binary over a module.

pub mod postroad;
