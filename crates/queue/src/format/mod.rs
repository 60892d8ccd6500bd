//! The bytes of a queue file, version 1: postroad-queue(5) in code. Pure: slices in, values out, no panic on any input.
//!
//! ```text
//! 0            head, 128 bytes
//! 128          one byte for each recipient: the state that it arrived with
//! 128 + n      envelope: typed records, those of the message first, then one for each recipient
//! content      the message, verbatim, with LF line ends
//! journal      attempts and states, appended by qmgr, to the end of the file
//! ```

pub(crate) mod attempt;
pub(crate) mod envelope;
pub(crate) mod fields;
pub(crate) mod head;
pub(crate) mod mark;
