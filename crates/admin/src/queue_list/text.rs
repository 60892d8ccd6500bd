//! The listing as `mailq` shows it: Postfix's columns, which scripts take apart.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Listed, ListedRecipient, Listing, Part, Place};

/// The column in which recipients stand.
const RECIPIENT_COLUMN: usize = 41;

/// The column before which reasons end; a longer one begins at the left margin.
const REASON_END: usize = 76;

/// Writes the listing as text.
pub(crate) struct TextListing<W> {
    out: W,
    zone: TimeZone,
    messages: u64,
    bytes: u64,
    /// The reason that stands above the last recipient.
    reason: String,
}

impl<W: Write> TextListing<W> {
    pub(crate) fn new(out: W, zone: TimeZone) -> Self {
        Self { out, zone, messages: 0, bytes: 0, reason: String::new() }
    }

    fn message(&mut self, message: &Listed) -> io::Result<()> {
        if self.messages == 0 {
            writeln!(self.out, "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------")?;
        } else {
            writeln!(self.out)?;
        }
        let status = match (message.place, message.forced_expire) {
            (Place::Active, false) => "*",
            (Place::Active, true) => "*#",
            (Place::Hold, false) => "!",
            (Place::Hold, true) => "!#",
            (_, true) => "#",
            (_, false) => "",
        };
        let id = format!("{}{status}", shown(&message.id));
        let (time, sender) = (self.time(message), shown(&message.sender));
        writeln!(self.out, "{id:<11} {:>7} {time:>19}  {sender}", message.size)?;
        self.messages += 1;
        self.bytes += message.size;
        self.reason.clear();
        Ok(())
    }

    fn time(&self, message: &Listed) -> String {
        let seconds = i64::try_from(message.arrival.as_secs()).unwrap_or(i64::MAX);
        let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_zoned(self.zone.clone());
        time.strftime("%a %b %e %H:%M:%S").to_string()
    }

    /// A reason stands above the recipients it holds for, and is not repeated for neighbours.
    fn recipient(&mut self, recipient: &ListedRecipient) -> io::Result<()> {
        let reason = recipient.reason.as_deref().unwrap_or_default();
        if reason != self.reason {
            let text = if reason.is_empty() { "reason unavailable".into() } else { shown(reason) };
            let indent = REASON_END.saturating_sub(text.len());
            writeln!(self.out, "{:indent$}({text})", "")?;
            reason.clone_into(&mut self.reason);
        }
        writeln!(self.out, "{:RECIPIENT_COLUMN$}{}", "", shown(recipient.address.as_str()))
    }

    fn end(&mut self) -> io::Result<()> {
        match self.messages {
            0 => writeln!(self.out, "Mail queue is empty"),
            messages => {
                let plural = if messages == 1 { "" } else { "s" };
                writeln!(self.out, "\n-- {} Kbytes in {messages} Request{plural}.", self.bytes / 1024)
            }
        }
    }
}

/// What a peer or a user wrote must not steer the operator's terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl<W: Write> Listing for TextListing<W> {
    fn take(&mut self, part: Part) -> io::Result<()> {
        match part {
            Part::Message(message) => self.message(&message),
            Part::Recipients(recipients) => {
                recipients.iter().try_for_each(|recipient| self.recipient(recipient))
            }
            Part::End => self.end(),
        }
    }
}
