//! The listing as `mailq` shows it: Postfix's columns, which scripts take apart.

use std::borrow::Cow;
use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Listed, ListedRecipient, Listing, Part, Place};

/// Where a recipient stands in its line.
const BEFORE_RECIPIENT: &str = "                                         ";

/// The column before which reasons end; a longer one begins at the left margin.
const REASON_END: usize = 76;

/// The column of the id and what its message's state is told by.
const ID_WIDTH: usize = 11;

/// As many as are ever wanted: to have a column filled up by the formatter is a call for each blank.
const BLANKS: &str = "                                                                                ";

/// Writes the listing as text.
pub(crate) struct TextListing<W> {
    out: W,
    zone: TimeZone,
    /// A second, and how it is written: most messages of a long list came in the same one as the one before.
    moment: Option<(u64, String)>,
    messages: u64,
    bytes: u64,
    /// The reason that stands above the last recipient.
    reason: String,
}

impl<W: Write> TextListing<W> {
    pub(crate) fn new(out: W, zone: TimeZone) -> Self {
        Self { out, zone, moment: None, messages: 0, bytes: 0, reason: String::new() }
    }

    fn message(&mut self, message: &Listed<'_>) -> io::Result<()> {
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
        let (id, sender) = (shown(message.id), shown(message.sender));
        let fill = blanks(ID_WIDTH.saturating_sub(id.chars().count() + status.len()));
        self.know(message.arrival.as_secs());
        let time = self.moment.as_ref().map_or("", |(_, time)| time);
        writeln!(self.out, "{id}{status}{fill} {:>7} {time:>19}  {sender}", message.size)?;
        self.messages += 1;
        self.bytes += message.size;
        self.reason.clear();
        Ok(())
    }

    /// Has a second be the known one.
    fn know(&mut self, second: u64) {
        if self.moment.as_ref().is_some_and(|(known, _)| *known == second) {
            return;
        }
        let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
        let time = time.unwrap_or(Timestamp::MAX).to_zoned(self.zone.clone());
        self.moment = Some((second, time.strftime("%a %b %e %H:%M:%S").to_string()));
    }

    /// A reason stands above the recipients it holds for, and is not repeated for neighbours.
    fn recipient(&mut self, recipient: &ListedRecipient<'_>) -> io::Result<()> {
        let reason = recipient.reason.unwrap_or_default();
        if reason != self.reason {
            let text = if reason.is_empty() { "reason unavailable".into() } else { shown(reason) };
            writeln!(self.out, "{}({text})", blanks(REASON_END.saturating_sub(text.len())))?;
            reason.clone_into(&mut self.reason);
        }
        writeln!(self.out, "{BEFORE_RECIPIENT}{}", shown(recipient.address))
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

fn blanks(count: usize) -> &'static str {
    BLANKS.get(..count).unwrap_or(BLANKS)
}

/// What a peer or a user wrote must not steer the operator's terminal.
fn shown(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl<W: Write> Listing for TextListing<W> {
    fn take(&mut self, part: Part<'_>) -> io::Result<()> {
        match part {
            Part::Message(message) => self.message(&message),
            Part::Recipients(recipients) => {
                recipients.iter().try_for_each(|recipient| self.recipient(recipient))
            }
            Part::End => self.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_message_has_its_own_time() {
        let mut text = Vec::new();
        let mut listing = TextListing::new(&mut text, TimeZone::UTC);
        for second in [0, 0, 86_400, 0, u64::MAX] {
            let message = Listed {
                place: Place::Hold,
                id: "4gXyZ12345z1000",
                arrival: Duration::from_secs(second),
                size: 5,
                forced_expire: false,
                sender: "a@example.org",
                next_attempt: None,
            };
            listing.take(Part::Message(message)).unwrap();
        }
        let text = String::from_utf8(text).unwrap();
        let first = "4gXyZ12345z1000!       5 Thu Jan  1 00:00:00  a@example.org";
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("4gXyZ")).collect();
        assert_eq!(lines[..2], [first, first]);
        assert_eq!(lines[2], first.replace("Thu Jan  1", "Fri Jan  2"));
        assert_eq!(lines[3], first);
        assert_eq!(lines.len(), 5);
    }
}
