//! What `tests/fuzz` reaches of this crate: reports of what senders wrote and servers said. No program uses it.

use ipc::bounce::Kind;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use mail::{Address, Dsn, Outcome, QueueId};

use crate::policy::Text;
use crate::report::{Facts, Reader, Report, Reported, Returned};

/// What a failure report is made of, as others chose it.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The envelope sender.
    pub sender: &'a Address,
    /// The recipient.
    pub recipient: &'a Address,
    /// ORCPT.
    pub orcpt: &'a str,
    /// ENVID.
    pub envid: &'a str,
    /// The name that a server gives itself.
    pub host: &'a str,
    /// Its reply, or what became of the delivery otherwise.
    pub reply: &'a str,
    /// The message needs SMTPUTF8.
    pub smtputf8: bool,
}

/// The report before and behind the returned message.
#[must_use]
pub fn report(said: &Said<'_>, id: QueueId) -> (Vec<u8>, Vec<u8>) {
    let now = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    let outcome = Outcome::bounced(said.host, Dsn::new(5, 0, 0), said.reply);
    let recipients = [Reported {
        address: said.recipient.clone(),
        original: Some(said.sender.clone()),
        orcpt: Some(said.orcpt.to_owned()),
        outcome: outcome.said_by(said.host, Some(said.reply)),
        time: Some(now.clone()),
    }];
    let text = Text { charset: "us-ascii".into(), from: "a@b".into(), ..Text::default() };
    let report = Report::build(&Facts {
        kind: Kind::Failure,
        reader: Reader::Sender,
        report_id: id,
        to: said.sender,
        now: now.clone(),
        hostname: "mail.example.com",
        label: "Postfix",
        text: &text,
        queue_id: id,
        sender: said.sender,
        arrival: now,
        envid: Some(said.envid),
        retry_until: None,
        is_probe: false,
        recipients: &recipients,
        unlisted: 0,
        returned: Returned::Full,
        eight_bit: false,
        smtputf8: said.smtputf8,
    });
    (report.head, report.tail)
}
