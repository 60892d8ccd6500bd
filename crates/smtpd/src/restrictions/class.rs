//! What a refusal is about: which list, and whose name stands in the reply.

use mail::Dsn;
use smtp_proto::Reply;

use crate::report::Subject;

/// What a restriction is evaluated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Client,
    /// The name that the address of the client leads to, whether it leads back or not.
    ReverseClient,
    /// The name that the client logged in with.
    Login,
    Helo,
    Sender,
    Recipient,
    Data,
    EndOfData,
    Etrn,
}

impl Class {
    /// Before `rejected:` in a reply.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Client => "Client host",
            Self::ReverseClient => "Unverified Client host",
            Self::Login => "SASL login name",
            Self::Helo => "Helo command",
            Self::Sender => "Sender address",
            Self::Recipient => "Recipient address",
            Self::Data => "Data command",
            Self::EndOfData => "End-of-data",
            Self::Etrn => "Etrn command",
        }
    }

    /// Between the angle brackets of a reply.
    pub(super) fn name_in(self, subject: &Subject<'_>) -> String {
        match self {
            Self::Client => subject.client.to_string(),
            Self::ReverseClient => subject.client.reverse_name.clone(),
            Self::Login => {
                subject.client.login.as_ref().map(|login| login.username.clone()).unwrap_or_default()
            }
            Self::Helo => subject.helo.unwrap_or_default().to_owned(),
            Self::Sender => subject.sender.map(ToString::to_string).unwrap_or_default(),
            Self::Recipient => subject.recipient.map(ToString::to_string).unwrap_or_default(),
            Self::Data => "DATA".to_owned(),
            Self::EndOfData => "END-OF-MESSAGE".to_owned(),
            Self::Etrn => subject.etrn_domain.unwrap_or_default().to_owned(),
        }
    }

    /// The enhanced code that fits what the refusal is about: the same table may be asked about senders, recipients and
    /// hosts. The second number is 1 for addresses; the third means a recipient up to 6, a sender beyond.
    pub(super) fn fitting(self, dsn: Dsn) -> Dsn {
        let status = dsn.class();
        let Some(detail) = (0..=8).find(|detail| dsn == Dsn::new(status, 1, *detail)) else { return dsn };
        match (self, detail) {
            (_, 0) => dsn,
            (Self::Sender, 2 | 8) => Dsn::new(status, 1, 8),
            (Self::Sender, _) => Dsn::new(status, 1, 7),
            (Self::Recipient, 7) => Dsn::new(status, 1, 3),
            (Self::Recipient, 8) => Dsn::new(status, 1, 2),
            (Self::Recipient, _) => dsn,
            _ => Dsn::new(status, 0, 0),
        }
    }
}

/// `CODE DSN <name>: CLASS rejected: TEXT`; the class of the enhanced code follows the reply code.
pub(super) fn refuse(subject: &Subject<'_>, class: Class, code: u16, dsn: (u16, u16), text: &str) -> Reply {
    let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, dsn.0, dsn.1);
    Reply::new(code, dsn, format!("<{}>: {} rejected: {text}", class.name_in(subject), class.words()))
}
