//! The header fields that programs know by name: whose addresses are rewritten, which are counted and missed.

/// What the addresses of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of who sent or answers.
    Sender,
    /// Of who receives.
    Recipient,
    /// There are none.
    Other,
}

/// A field that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "most are the names of fields")]
pub enum Kind {
    To,
    Cc,
    From,
    Date,
    MessageId,
    Received,
    ResentTo,
    ResentCc,
    ResentFrom,
    ResentDate,
    ResentMessageId,
    /// `Content-…` and `MIME-Version`: looked at by `mime_header_checks`.
    Mime,
    /// Another one whose addresses matter.
    Address,
    /// Another of the `Resent-` fields.
    Resent,
}

impl Kind {
    /// Whether the field says that the message was sent on by a user (RFC 5322 section 3.6.6).
    const fn is_resent(self) -> bool {
        matches!(
            self,
            Self::ResentTo
                | Self::ResentCc
                | Self::ResentFrom
                | Self::ResentDate
                | Self::ResentMessageId
                | Self::Resent
        )
    }
}

const KNOWN: [(&str, Kind, Role); 30] = [
    ("Received", Kind::Received, Role::Other),
    ("From", Kind::From, Role::Sender),
    ("To", Kind::To, Role::Recipient),
    ("Cc", Kind::Cc, Role::Recipient),
    ("Date", Kind::Date, Role::Other),
    ("Message-Id", Kind::MessageId, Role::Other),
    ("Reply-To", Kind::Address, Role::Sender),
    ("Sender", Kind::Address, Role::Sender),
    ("MIME-Version", Kind::Mime, Role::Other),
    ("Content-Type", Kind::Mime, Role::Other),
    ("Content-Transfer-Encoding", Kind::Mime, Role::Other),
    ("Content-Disposition", Kind::Mime, Role::Other),
    ("Content-Description", Kind::Mime, Role::Other),
    ("Content-Id", Kind::Mime, Role::Other),
    ("Return-Path", Kind::Address, Role::Sender),
    ("Bcc", Kind::Address, Role::Recipient),
    ("Apparently-To", Kind::Address, Role::Recipient),
    ("Errors-To", Kind::Address, Role::Sender),
    ("Return-Receipt-To", Kind::Address, Role::Sender),
    ("Disposition-Notification-To", Kind::Address, Role::Sender),
    ("Mail-Followup-To", Kind::Address, Role::Sender),
    ("Resent-From", Kind::ResentFrom, Role::Sender),
    ("Resent-To", Kind::ResentTo, Role::Recipient),
    ("Resent-Cc", Kind::ResentCc, Role::Recipient),
    ("Resent-Date", Kind::ResentDate, Role::Other),
    ("Resent-Message-Id", Kind::ResentMessageId, Role::Other),
    ("Resent-Sender", Kind::Resent, Role::Sender),
    ("Resent-Reply-To", Kind::Resent, Role::Sender),
    ("Resent-Bcc", Kind::Resent, Role::Recipient),
    ("Mail-Reply-To", Kind::Address, Role::Sender),
];

/// What is known of the fields of this name.
#[must_use]
pub fn find(name: &[u8]) -> Option<(Kind, Role)> {
    let known = KNOWN.iter().find(|(known, ..)| name.eq_ignore_ascii_case(known.as_bytes()))?;
    Some((known.1, known.2))
}

/// The kinds that were seen in a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    kinds: u32,
    /// One of the `Resent-` fields was.
    pub resent: bool,
}

impl Seen {
    /// Takes note of one.
    pub fn add(&mut self, kind: Kind) {
        self.kinds |= 1 << kind as u32;
        self.resent |= kind.is_resent();
    }

    /// Whether one of this kind was seen.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.kinds & (1 << kind as u32) != 0
    }

    /// Whether the kind is missing, or its `Resent-` form in a message that was sent on.
    #[must_use]
    pub fn lacks(self, kind: Kind, resent_kind: Kind) -> bool {
        !self.has(if self.resent { resent_kind } else { kind })
    }

    /// Whether the message says to whom it goes.
    #[must_use]
    pub fn names_a_recipient(self) -> bool {
        [Kind::To, Kind::Cc, Kind::ResentTo, Kind::ResentCc].into_iter().any(|kind| self.has(kind))
    }
}
