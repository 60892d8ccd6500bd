//! What the suite asks of the system beyond the standard library and nix: the only crate with `unsafe` code.
//!
//! Contract: each function is a safe wrapper whose precondition is its type. Nothing here knows of mail.

pub mod accounts;
pub mod clock;
pub mod credentials;
pub mod descriptors;
pub mod fs;
pub mod lent;
pub mod map;
pub mod memory;
pub mod process;
pub mod sandbox;
pub mod stack;
pub mod start;
pub mod unfinished;

pub use map::{Mmap, map_file};
