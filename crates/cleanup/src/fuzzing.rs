//! What `tests/fuzz` reaches of this crate. No program uses it.

use ipc::cleanup::{Options, Refusal};
use jiff::tz::TimeZone;
use mail::{Envelope, QueueId};

use crate::Rules;
use crate::clock::Clock;
use crate::message::{Buffers, Given, Message, Sink};

/// The content of the message that becomes of `pieces`; none where it is refused or discarded.
#[must_use]
pub fn message<'a>(
    rules: &Rules,
    id: QueueId,
    envelope: Envelope,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<u8>> {
    let mut sink = Kept::default();
    let mut clock = Clock::new(TimeZone::UTC);
    let mut buffers = Buffers::default();
    let given = Given { id, envelope, options: Options::default(), full_name: String::new() };
    let mut message = Message::begin(rules, &mut clock, &mut buffers, given).ok()?;
    for piece in pieces {
        message.take(piece, &mut sink).ok()?;
    }
    message.finish(&mut sink).ok()?.then_some(sink.content)
}

#[derive(Default)]
struct Kept {
    content: Vec<u8>,
}

impl Sink for Kept {
    fn open(&mut self, _envelope: &Envelope, _hold: bool) -> Result<(), Refusal> {
        Ok(())
    }

    fn append(&mut self, content: &[u8]) -> Result<(), Refusal> {
        self.content.extend_from_slice(content);
        Ok(())
    }

    fn replace_envelope(&mut self, _envelope: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    fn hold(&mut self) {}
}
