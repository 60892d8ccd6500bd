//! The envelope of a message: who sent it to whom, how it came, and what the sender asked to be told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Address;

/// All that cleanup is told about a message before its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Reverse path; null for notifications.
    pub sender: Address,
    /// Forward paths, in the order they were given.
    pub recipients: Vec<Recipient>,
    /// When the message began to arrive, as the time since the Unix epoch.
    pub arrival: Duration,
    /// How the message entered the mail system.
    pub origin: Origin,
    /// The client that sent it, as `Received:` and the log show it.
    pub client: Client,
    /// ENVID of RFC 3461 section 4.4, as received (xtext).
    pub envid: Option<String>,
    /// RET of RFC 3461 section 4.3.
    pub ret: Option<DsnReturn>,
    /// BODY of RFC 6152.
    pub body: Body,
    /// SMTPUTF8 of RFC 6531 was asked for, or found to be needed.
    pub smtputf8: bool,
    /// `transport:nexthop` of `content_filter` or a `FILTER` action: where the message goes for all its recipients,
    /// whatever their addresses say.
    pub content_filter: Option<String>,
    /// Whether what becomes of it is reported in any case.
    pub trace: Trace,
    /// What a content filter said of where it came from: XFORWARD.
    pub forwarded: Option<Forwarded>,
}

impl Envelope {
    /// A message that this mail system made, of which nothing is asked but its delivery. What is otherwise is said with
    /// `..` behind it.
    #[must_use]
    pub fn new(sender: Address, recipients: Vec<Recipient>, arrival: Duration) -> Self {
        Self {
            sender,
            recipients,
            arrival,
            origin: Origin::Internal,
            client: Client::default(),
            envid: None,
            ret: None,
            body: Body::Unspecified,
            smtputf8: false,
            content_filter: None,
            trace: Trace::None,
            forwarded: None,
        }
    }

    /// The client that had the message first, as far as is known: the one to name to commands and to the next host.
    #[must_use]
    pub fn first_client(&self) -> Client {
        let forwarded = self.forwarded.as_ref().and_then(|forwarded| forwarded.client.as_ref());
        forwarded.map_or_else(
            || self.client.clone(),
            |first| Client {
                name: first.name.clone(),
                address: first.address.clone(),
                port: first.port,
                helo: first.helo.clone(),
                protocol: first.protocol.clone(),
                ..self.client.clone()
            },
        )
    }

    /// Whether its headers are those of local mail: it was made here, or came from a client that counts as local.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        !matches!(self.origin, Origin::Smtp { rewrite_headers: false })
    }

    /// The time of arrival as a point in time.
    #[must_use]
    pub fn arrived_at(&self) -> SystemTime {
        UNIX_EPOCH + self.arrival
    }
}

/// What is asked for besides, or instead of, delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Trace {
    /// Nothing: the message is delivered.
    #[default]
    None,
    /// `sendmail -v`: the message is delivered, and its sender is told what came of the first attempt.
    Deliveries,
    /// `sendmail -bv`: nothing is delivered; the sender is told what would have become of it.
    Probe,
    /// Address verification: nothing is delivered; the mail system itself wants to know.
    Verification,
}

impl Trace {
    /// Whether the message must not be delivered: agents find out whether they could.
    #[must_use]
    pub const fn is_probe(self) -> bool {
        matches!(self, Self::Probe | Self::Verification)
    }
}

/// One forward path with its history and its delivery status requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where the message goes.
    pub address: Address,
    /// The address before aliases and rewriting, where it differs: `orig_to` in the log, `X-Original-To` in the mailbox.
    pub original: Option<Address>,
    /// NOTIFY of RFC 3461 section 4.1.
    pub notify: Notify,
    /// ORCPT of RFC 3461 section 4.2, as received (`rfc822;xtext`).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without history or requests.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, original: None, notify: Notify::UNSET, orcpt: None }
    }
}

/// When the sender wants to be told about a recipient: NOTIFY of RFC 3461 section 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify(u8);

impl Notify {
    /// Nothing was said: failures are reported, as always.
    pub const UNSET: Self = Self(0);
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self(1);
    /// `NOTIFY=SUCCESS`, alone or with others.
    pub const SUCCESS: Self = Self(2);
    /// `NOTIFY=FAILURE`, alone or with others.
    pub const FAILURE: Self = Self(4);
    /// `NOTIFY=DELAY`, alone or with others.
    pub const DELAY: Self = Self(8);
    /// No request of a sender: the address was replaced by what it stands for. Nothing is delivered to it; that it was
    /// expanded is all that its success report says.
    pub const EXPANDED: Self = Self(16);

    /// Both requests.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` was asked for.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0 && other.0 != 0
    }

    /// Whether a failure is to be reported: asked for, or not spoken of.
    #[must_use]
    pub const fn wants_failure(self) -> bool {
        self.0 == 0 || self.contains(Self::FAILURE)
    }

    /// The same without the request for a success report: never is what is left of nothing else.
    #[must_use]
    pub const fn without_success(self) -> Self {
        match self {
            Self::SUCCESS => Self::NEVER,
            Self(bits) => Self(bits & !Self::SUCCESS.0),
        }
    }

    /// What a sender can have asked for.
    #[must_use]
    pub const fn as_requested(self) -> Self {
        Self(self.0 & !Self::EXPANDED.0)
    }

    /// The bits as they are stored: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY, 16 EXPANDED.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From stored bits; unknown ones are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 31)
    }
}

/// RET of RFC 3461 section 4.3: how much of the message a failure report returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

/// BODY of RFC 6152.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Body {
    /// Nothing was declared.
    #[default]
    Unspecified,
    /// `BODY=7BIT`.
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// How a message entered the mail system; it decides what cleanup does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Over SMTP.
    Smtp {
        /// The client matches `local_header_rewrite_clients`: its headers are completed like those of local mail.
        rewrite_headers: bool,
    },
    /// Through `sendmail`, by the user with this uid.
    Local {
        /// The submitting user.
        uid: u32,
    },
    /// Made by the mail system: a notification, or mail that local forwards.
    Internal,
}

/// The client of a message, as smtpd knows it; for other origins, what Postfix writes in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Client {
    /// The verified host name, or `unknown`.
    pub name: String,
    /// The numeric address, IPv6 without the `IPv6:` prefix.
    pub address: String,
    /// The port, 0 where there is none.
    pub port: u16,
    /// What HELO, EHLO or LHLO said.
    pub helo: String,
    /// `SMTP`, `ESMTP`, `ESMTPS`, `ESMTPA`, `UTF8SMTP` … (RFC 3848, RFC 6531), empty where there was none.
    pub protocol: String,
    /// The mechanism of AUTH (RFC 4954), empty where there was none; so are the following two.
    pub sasl_method: String,
    /// Who authenticated.
    pub sasl_username: String,
    /// AUTH of MAIL: who submitted the message elsewhere.
    pub sasl_sender: String,
    /// What the `Received:` header says of the client's TLS, with line feeds between its lines; the queue does not keep it.
    pub tls: String,
}

/// What a content filter said of a message that it brings back. It is logged and passed on, never trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Forwarded {
    /// The client that had the message first; none where nothing was said of it. What was not said is empty.
    pub client: Option<Client>,
    /// The message's queue id there.
    pub id: Option<String>,
}
