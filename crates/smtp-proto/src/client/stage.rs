//! Where a client's dialogue is, in the words of Postfix's log.

use super::Protocol;

/// What the client waits for, or has had an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The server's first words.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// LHLO.
    Lhlo,
    /// STARTTLS.
    StartTls,
    /// AUTH, with all its steps.
    Auth,
    /// XFORWARD with the client's name, address and port.
    ForwardClient,
    /// XFORWARD with the protocol, HELO name, identity and source.
    ForwardProtocol,
    /// MAIL.
    Mail,
    /// RCPT for the recipient with this number.
    Recipient(usize),
    /// DATA.
    Data,
    /// Content on its way, after DATA or in BDAT chunks.
    Content,
    /// The final dot, or the last chunk.
    End,
    /// The same, over LMTP: the answer for the recipient with this number.
    EndFor(usize),
    /// RSET before the next message.
    Reset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// Nothing.
    Idle,
}

impl Stage {
    /// After `in reply to`: `RCPT TO command`.
    #[must_use]
    pub const fn request(self) -> &'static str {
        match self {
            Self::Greeting => "initial server greeting",
            Self::Ehlo => "EHLO command",
            Self::Helo => "HELO command",
            Self::Lhlo => "LHLO command",
            Self::StartTls => "STARTTLS command",
            Self::Auth => "AUTH command",
            Self::ForwardClient => "XFORWARD name/address command",
            Self::ForwardProtocol => "XFORWARD helo/protocol command",
            Self::Mail => "MAIL FROM command",
            Self::Recipient(_) => "RCPT TO command",
            Self::Data => "DATA command",
            Self::Content => "message body",
            Self::End | Self::EndFor(_) => "end of DATA command",
            Self::Reset => "RSET command",
            Self::Noop => "NOOP command",
            Self::Quit => "QUIT command",
            Self::Idle => "no command",
        }
    }

    /// After `lost connection with HOST while` and `conversation with HOST timed out while`: `sending RCPT TO`.
    #[must_use]
    pub const fn activity(self) -> &'static str {
        match self {
            Self::Greeting => "receiving the initial server greeting",
            Self::Ehlo => "performing the EHLO handshake",
            Self::Helo => "performing the HELO handshake",
            Self::Lhlo => "performing the LHLO handshake",
            Self::StartTls => "receiving the STARTTLS response",
            Self::Auth => "performing SASL authentication",
            Self::ForwardClient => "sending XFORWARD name/address",
            Self::ForwardProtocol => "sending XFORWARD protocol/helo_name",
            Self::Mail => "sending MAIL FROM",
            Self::Recipient(_) => "sending RCPT TO",
            Self::Data => "sending DATA command",
            Self::Content => "sending message body",
            // The server may have taken the message although its answer did not arrive.
            Self::End | Self::EndFor(_) => "sending end of data -- message may be sent more than once",
            Self::Reset => "sending RSET probe",
            Self::Noop => "sending NOOP",
            Self::Quit => "sending QUIT",
            Self::Idle => "waiting for work",
        }
    }

    pub(super) const fn hello(protocol: Protocol, extended: bool) -> Self {
        match (protocol, extended) {
            (Protocol::Lmtp, _) => Self::Lhlo,
            (Protocol::Smtp, true) => Self::Ehlo,
            (Protocol::Smtp, false) => Self::Helo,
        }
    }
}
