//! The listing as JSON: one object a line for each message, with Postfix's members and `next_attempt`.

use std::io::{self, Write};

use super::{Listed, ListedRecipient, Listing, Part};

/// Writes the listing as JSON lines.
pub(crate) struct JsonListing<W> {
    out: W,
    /// An object was begun whose recipients are not complete.
    open: bool,
    /// Recipients of the open object.
    recipients: u64,
}

impl<W: Write> JsonListing<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, open: false, recipients: 0 }
    }

    fn message(&mut self, message: &Listed<'_>) -> io::Result<()> {
        self.close()?;
        let out = &mut self.out;
        write!(out, "{{\"queue_name\": \"{}\", \"queue_id\": ", message.place.as_str())?;
        write_string(out, message.id)?;
        write!(out, ", \"arrival_time\": {}, \"message_size\": {}", message.arrival.as_secs(), message.size)?;
        if let Some(next) = message.next_attempt {
            write!(out, ", \"next_attempt\": {}", next.as_secs())?;
        }
        write!(out, ", \"forced_expire\": {}, \"sender\": ", message.forced_expire)?;
        write_string(out, message.sender)?;
        write!(out, ", \"recipients\": [")?;
        (self.open, self.recipients) = (true, 0);
        Ok(())
    }

    fn recipient(&mut self, recipient: &ListedRecipient<'_>) -> io::Result<()> {
        let out = &mut self.out;
        write!(out, "{}{{\"address\": ", if self.recipients > 0 { ", " } else { "" })?;
        write_string(out, recipient.address)?;
        if let Some(reason) = recipient.reason {
            write!(out, ", \"delay_reason\": ")?;
            write_string(out, reason)?;
        }
        self.recipients += 1;
        write!(out, "}}")
    }

    fn close(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.open) { writeln!(self.out, "]}}") } else { Ok(()) }
    }
}

fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

impl<W: Write> Listing for JsonListing<W> {
    fn take(&mut self, part: Part<'_>) -> io::Result<()> {
        match part {
            Part::Message(message) => self.message(&message),
            Part::Recipients(recipients) => {
                recipients.iter().try_for_each(|recipient| self.recipient(recipient))
            }
            Part::End => self.close(),
        }
    }
}
