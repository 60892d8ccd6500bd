//! The lines of the mail log that tools read: Postfix's fields, in Postfix's order.
//!
//! Each function is one kind of line. Lines that no tool reads are logged where they arise, with `info!` and its like.

use std::fmt;
use std::time::Duration;

use mail::{Address, Outcome, QueueId, Status};

use super::{Level, line, say};

/// smtpd: a client connected; here and below it is shown as `name[address]`, with `:port` behind it if so asked.
pub fn connected(client: &impl fmt::Display) {
    line(Level::Info, format_args!("connect from {client}"));
}

/// smtpd: a client is gone; `counts` is how often it gave each command, with a blank before each.
pub fn disconnected(client: &impl fmt::Display, counts: &impl fmt::Display) {
    line(Level::Info, format_args!("disconnect from {client}{counts}"));
}

/// smtpd: a session ended before its QUIT. `what` is `lost connection`, `timeout` or `too many errors`; `place` is the
/// command, `CONNECT`, `END-OF-MESSAGE` or `DATA (n bytes)`.
pub fn broke_off(what: &str, place: &str, client: &impl fmt::Display) {
    line(Level::Info, format_args!("{what} after {place} from {client}"));
}

/// smtpd: the verdict on a command. `action` is `reject`, `reject_warning`, `hold` …; `context` is what is known of the
/// session, each field with a blank before it: ` from=<> to=<> proto=ESMTP helo=<>`.
pub fn judged(
    id: Option<QueueId>,
    action: &str,
    place: &str,
    client: &impl fmt::Display,
    text: &impl fmt::Display,
    context: &impl fmt::Display,
) {
    let id = id.map_or_else(|| "NOQUEUE".to_owned(), |id| id.to_string());
    line(Level::Info, format_args!("{id}: {action}: {place} from {client}: {text};{context}"));
}

/// smtpd: a message begins; the line that ties a queue id to its client.
pub fn client(id: QueueId, client: &impl fmt::Display) {
    line(Level::Info, format_args!("{id}: client={client}"));
}

/// pickup: a local submission begins.
pub fn submitted(id: QueueId, uid: u32, sender: &Address) {
    line(Level::Info, format_args!("{id}: uid={uid} from=<{}>", Path(sender)));
}

/// cleanup: the message's identifier. `message_id` includes its angle brackets and may be empty.
pub fn message_id(id: QueueId, message_id: &str) {
    line(Level::Info, format_args!("{id}: message-id={message_id}"));
}

/// qmgr: a message was taken up.
pub fn active(id: QueueId, sender: &Address, size: u64, recipients: usize) {
    line(
        Level::Info,
        format_args!("{id}: from=<{}>, size={size}, nrcpt={recipients} (queue active)", Path(sender)),
    );
}

/// qmgr: a message is done with.
pub fn removed(id: QueueId) {
    say(Level::Info, format_args!("{id}: removed"), true);
}

/// qmgr: a message was given up after `maximal_queue_lifetime`.
pub fn expired(id: QueueId, sender: &Address) {
    line(Level::Info, format_args!("{id}: from=<{}>, status=expired, returned to sender", Path(sender)));
}

/// bounce: a notification was queued. `kind` is `non-delivery`, `delay` or `delivery status`.
pub fn notified(id: QueueId, kind: &str, notification: QueueId) {
    line(Level::Info, format_args!("{id}: sender {kind} notification: {notification}"));
}

/// Where the time of a delivery went: `delays=a/b/c/d` of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// From arrival until qmgr took the message up.
    pub queued: Duration,
    /// In qmgr, until the agent began.
    pub scheduled: Duration,
    /// Setting up the connection.
    pub connecting: Duration,
    /// Transmission or delivery.
    pub delivering: Duration,
    /// How many deliveries the connection has served, this one included; shown from the second on.
    pub connection_uses: u64,
}

/// An agent or qmgr: what became of one recipient.
pub fn outcome(
    id: QueueId,
    recipient: &Address,
    original: Option<&Address>,
    delays: Delays,
    outcome: &Outcome,
) {
    decided(id, recipient, original, delays, outcome, outcome.status.as_str());
}

/// An agent or qmgr: what would become of one recipient, in answer to a probe.
pub fn probed(
    id: QueueId,
    recipient: &Address,
    original: Option<&Address>,
    delays: Delays,
    outcome: &Outcome,
) {
    let status = if outcome.status == Status::Sent { "deliverable" } else { "undeliverable" };
    decided(id, recipient, original, delays, outcome, status);
}

/// An agent or qmgr: a failure for good that `soft_bounce` makes one for now.
pub fn softened(
    id: QueueId,
    recipient: &Address,
    original: Option<&Address>,
    delays: Delays,
    outcome: &Outcome,
) {
    decided(id, recipient, original, delays, outcome, "SOFTBOUNCE");
}

fn decided(
    id: QueueId,
    recipient: &Address,
    original: Option<&Address>,
    delays: Delays,
    outcome: &Outcome,
    status: &str,
) {
    if outcome.logged {
        return;
    }
    // What an agent's own alias made of a recipient is a recipient that was something else before.
    let (recipient, original) = match &outcome.final_recipient {
        Some(reached) => (reached, original.or(Some(recipient))),
        None => (recipient, original),
    };
    let total = delays.queued + delays.scheduled + delays.connecting + delays.delivering;
    line(
        Level::Info,
        format_args!(
            "{id}: to=<{}>,{} relay={},{} delay={}, delays={}/{}/{}/{}, dsn={}, status={status} ({})",
            Path(recipient),
            OrigTo(original),
            outcome.relay,
            ConnUse(delays.connection_uses),
            Seconds(total),
            Seconds(delays.queued),
            Seconds(delays.scheduled),
            Seconds(delays.connecting),
            Seconds(delays.delivering),
            outcome.dsn,
            outcome.text,
        ),
    );
}

/// postscreen: a client connected to this address; both here and below as `[address]:port`.
pub fn screening(client: &impl fmt::Display, local: &impl fmt::Display) {
    line(Level::Info, format_args!("CONNECT from {client} to {local}"));
}

/// postscreen: what is known of a client: `PASS NEW`, `PASS OLD`, `ALLOWLISTED`, `DENYLISTED`, `ALLOWLIST VETO`,
/// `DISCONNECT`.
pub fn screened(what: &str, client: &impl fmt::Display) {
    line(Level::Info, format_args!("{what} {client}"));
}

/// postscreen: a client spoke before its turn; `text` is escaped.
pub fn pregreeted(count: usize, after: Duration, client: &impl fmt::Display, text: &str) {
    line(Level::Info, format_args!("PREGREET {count} after {} from {client}: {text:.100}", Seconds(after)));
}

/// postscreen: a client went away.
pub fn hung_up(after: Duration, client: &impl fmt::Display, during: &str) {
    line(Level::Info, format_args!("HANGUP after {} from {client} in {during}", Seconds(after)));
}

struct OrigTo<'a>(Option<&'a Address>);

impl fmt::Display for OrigTo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |original| write!(f, " orig_to=<{}>,", Path(original)))
    }
}

/// An address as it stands in SMTP.
struct Path<'a>(&'a Address);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_path())
    }
}

struct ConnUse(u64);

impl fmt::Display for ConnUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " conn_use={},", self.0) } else { Ok(()) }
    }
}

/// Seconds in Postfix's manner: hundredths below one, tenths below ten, whole ones beyond; no trailing zeros.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (hundredths, tenths) = ((millis + 5) / 10, (millis + 50) / 100);
        if hundredths >= 100 {
            return match (tenths / 10, tenths % 10) {
                (whole @ 0..10, tenth @ 1..) => write!(f, "{whole}.{tenth}"),
                (whole, _) => write!(f, "{whole}"),
            };
        }
        match (hundredths / 10, hundredths % 10) {
            (0, 0) => f.write_str("0"),
            (tenth, 0) => write!(f, "0.{tenth}"),
            _ => write!(f, "0.{hundredths:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_short() {
        let text = |millis| Seconds(Duration::from_millis(millis)).to_string();
        for (millis, expected) in [
            (0, "0"),
            (4, "0"),
            (12, "0.01"),
            (130, "0.13"),
            (200, "0.2"),
            (1000, "1"),
            (1300, "1.3"),
            (12_345, "12"),
            (9_970, "10"),
        ] {
            assert_eq!(text(millis), expected, "{millis} ms");
        }
    }
}
