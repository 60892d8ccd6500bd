//! What `tests/fuzz` reaches of this crate. No program uses it.

use config::Config;
use lookup::{Generic, Maps};
use mail::QueueId;
use smtp_proto::client::Protocol;

use crate::content::{Checks, Transformer};
use crate::reply_filter::ReplyFilter;
use crate::settings::Own;
pub use crate::token::is_granted;

/// What a message whose 8-bit parts are to become 7-bit looks like on its way out.
#[must_use]
pub fn seven_bits<'a>(
    config: &Config,
    id: QueueId,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<u8>> {
    let own = Own { config, protocol: Protocol::Smtp };
    let generic = Generic::from_config(config, "smtp_generic_maps", &[]).ok()?;
    let checks = Checks::new(&own).ok()?;
    Transformer { id, generic: &generic, checks: &checks, to_seven_bits: true }.transformed(pieces)
}

/// What a server said, after `smtp_reply_filter`.
#[must_use]
pub fn filtered<'a>(maps: &Maps, pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut filter = ReplyFilter::new(maps)?;
    Some(pieces.flat_map(|piece| filter.take(piece)).collect())
}
