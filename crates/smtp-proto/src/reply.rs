//! Replies, and the one place where a protocol error becomes one.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use mail::Dsn;

/// What a server says to one command: a code, an enhanced code where there is one, and lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    dsn: Option<Dsn>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced code (RFC 2034). Lines of `text` are parted by `\n`.
    #[must_use]
    pub fn new(code: u16, dsn: Dsn, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, dsn: Some(dsn), text: text.into() }
    }

    /// A reply without one: to HELO and EHLO, the greeting, and 354.
    #[must_use]
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, dsn: None, text: text.into() }
    }

    /// Reads `550 5.7.1 text`, `550 text`: the form in which access tables and operators write replies.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let (code, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let code = code.parse().ok().filter(|n| code.len() == 3 && (200..600).contains(n))?;
        let rest = rest.trim_start();
        let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        Some(match first.parse::<Dsn>() {
            Ok(dsn) => Self { code, dsn: Some(dsn), text: Cow::Owned(after.trim_start().to_owned()) },
            Err(_) => Self { code, dsn: None, text: Cow::Owned(rest.to_owned()) },
        })
    }

    /// The three digits.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code.
    #[must_use]
    pub const fn dsn(&self) -> Option<Dsn> {
        self.dsn
    }

    /// The text without codes.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the command did what it was asked.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Whether the connection ends with this reply: 421 (RFC 5321 section 3.8), and 521, by which Postfix and its tables
    /// hang up on a client for good.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(self.code, 421 | 521)
    }

    /// The same refusal as one that may be tried again, as `soft_bounce` wants it; 521 becomes 421.
    #[must_use]
    pub fn softened(mut self) -> Self {
        if self.code >= 500 {
            self.code -= 100;
            self.dsn = self.dsn.map(|dsn| dsn.with_class(4));
        }
        self
    }

    /// The same with more text: on lines of its own, or, behind [`SAME_LINE`], where this one ends.
    ///
    /// [`SAME_LINE`]: crate::server::SAME_LINE
    #[must_use]
    pub fn with_footer(mut self, footer: &str) -> Self {
        let text = self.text.to_mut();
        match footer.strip_prefix(crate::server::SAME_LINE) {
            Some(rest) => text.push_str(rest),
            None => {
                text.push('\n');
                text.push_str(footer);
            }
        }
        self
    }

    /// Appends the reply as it goes over the wire. `enhanced` is false for a client from whom ENHANCEDSTATUSCODES is
    /// hidden.
    pub fn write(&self, out: &mut Vec<u8>, enhanced: bool) {
        let dsn = self.dsn.filter(|_| enhanced);
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            // Writing into memory does not fail.
            let _ = write!(out, "{}{separator}", self.code);
            if let Some(dsn) = dsn {
                let _ = write!(out, "{dsn} ");
            }
            // A reply often quotes what the client said: nothing in it may start a line of its own.
            out.extend(line.bytes().map(|b| if b < b' ' || b == 0x7f { b'?' } else { b }));
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl fmt::Display for Reply {
    /// On one line, as the log has it: `550 5.1.1 <user>: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(dsn) = self.dsn {
            write!(f, "{dsn} ")?;
        }
        f.write_str(&self.text.replace('\n', " "))
    }
}

/// What a client did wrong, so far as the protocol itself can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An empty line where a command should be.
    BadSyntax,
    /// A command that is not UTF-8.
    BadUtf8,
    /// A command line over `line_length_limit`.
    LineTooLong,
    /// A word that is no command.
    NotRecognized,
    /// A command that is not offered.
    NotImplemented,
    /// HELO, EHLO or LHLO without a name.
    HeloSyntax(&'static str),
    /// A command that wants HELO or EHLO before it.
    NeedHelo,
    /// A command in clear where nothing goes without encryption (RFC 3207 section 4).
    NeedEncryption,
    /// STARTTLS with arguments.
    StartTlsSyntax,
    /// STARTTLS where the session is encrypted already.
    TlsActive,
    /// MAIL within a transaction.
    NestedMail,
    /// A command within a transaction that has no place there.
    MailInProgress,
    /// MAIL that is not `MAIL FROM:`.
    MailSyntax,
    /// No sender address.
    SenderSyntax,
    /// SIZE that is no number.
    SizeSyntax,
    /// SIZE over `message_size_limit`.
    SizeOverLimit,
    /// RET, ENVID or NOTIFY where DSN is not offered.
    DsnDisabled,
    /// RET that is neither FULL nor HDRS, or given twice.
    RetSyntax,
    /// ENVID that is no xtext, or given twice.
    EnvidSyntax,
    /// AUTH of MAIL given twice.
    MultipleAuth,
    /// A parameter that is not offered.
    UnsupportedOption(String),
    /// A UTF-8 address without SMTPUTF8.
    NeedSmtpUtf8,
    /// RCPT before MAIL.
    NeedMail,
    /// RCPT between BDAT chunks.
    RcptAfterBdat,
    /// RCPT that is not `RCPT TO:`.
    RcptSyntax,
    /// No recipient address.
    RecipientSyntax,
    /// NOTIFY that is none of NEVER or a list of SUCCESS, FAILURE, DELAY.
    NotifySyntax,
    /// ORCPT that is not `type;xtext`.
    OrcptSyntax,
    /// More than `smtpd_recipient_limit`.
    TooManyRecipients,
    /// DATA or BDAT before RCPT.
    NeedRcpt,
    /// DATA or BDAT when every RCPT was refused.
    NoValidRecipients,
    /// DATA between BDAT chunks.
    DataAfterBdat,
    /// DATA with an argument.
    DataSyntax,
    /// RSET with an argument.
    RsetSyntax,
    /// BDAT without a count: where the next command begins is unknown.
    BdatSyntax,
    /// BDAT where CHUNKING is not offered: the chunk cannot be told from commands.
    BdatNotOffered,
    /// `BDAT 0` without LAST.
    NullBdat,
    /// A chunk that takes the message over `message_size_limit`.
    ChunkTooBig,
    /// A chunk of this size after a refused one.
    ChunkDiscarded(u64),
    /// Content over `message_size_limit`.
    MessageTooBig,
    /// A bare line feed where `smtpd_forbid_bare_newline = reject`, with the configured code.
    BareNewline(u16),
    /// Commands sent without waiting where the client must wait.
    OutOfStep,
    /// `smtpd_hard_error_limit` is reached.
    TooManyErrors,
    /// A command from a client that was refused at its greeting, named here.
    AccessDenied(String),
    /// VRFY where `disable_vrfy_command = yes`.
    VrfyDisabled,
    /// VRFY without an address.
    VrfySyntax {
        /// SMTPUTF8 is offered, also here.
        utf8: bool,
    },
    /// ETRN without a domain.
    EtrnSyntax,
    /// ETRN for a domain whose mail is not kept for it.
    EtrnNotServed(String),
    /// AUTH where it is not offered.
    AuthNotEnabled,
    /// AUTH in clear where `smtpd_tls_auth_only = yes`.
    AuthNeedsTls,
    /// AUTH from a client that is known.
    AlreadyAuthenticated,
    /// AUTH without a mechanism, or with too much after it.
    AuthSyntax,
    /// A response that is not even text.
    AuthMalformed,
    /// A response over `smtpd_sasl_response_limit`.
    AuthTooLong,
    /// The client has broken the exchange off.
    AuthAborted,
    /// XCLIENT and XFORWARD from a client that may not use them.
    NotAuthorized,
    /// A command that the program left without an answer.
    Unanswered,
}

impl Fault {
    /// The reply to it. `hostname` stands in those that end the connection.
    #[must_use]
    pub fn reply(&self, hostname: &str) -> Reply {
        let (code, dsn, text): (u16, (u16, u16), &'static str) = match self {
            Self::HeloSyntax(verb) => return Reply::plain(501, format!("Syntax: {verb} hostname")),
            Self::EtrnSyntax => return Reply::plain(500, "Syntax: ETRN domain"),
            Self::EtrnNotServed(domain) => {
                return Reply::plain(459, format!("<{domain}>: service unavailable"));
            }
            Self::UnsupportedOption(option) => {
                return Reply::new(555, Dsn::new(5, 5, 4), format!("Unsupported option: {option}"));
            }
            Self::ChunkDiscarded(size) => {
                let text = format!("Discarded {size} bytes after earlier error");
                return Reply::new(551, Dsn::new(5, 0, 0), text);
            }
            Self::BareNewline(code) => {
                let text = format!("{hostname} Error: bare <LF> received");
                return Reply::new(*code, Dsn::new(5, 5, 2), text);
            }
            Self::TooManyErrors => {
                return Reply::new(421, Dsn::new(4, 7, 0), format!("{hostname} Error: too many errors"));
            }
            Self::AccessDenied(client) => {
                return Reply::new(503, Dsn::new(5, 7, 0), format!("Error: access denied for {client}"));
            }
            Self::Unanswered => {
                return Reply::new(421, Dsn::new(4, 3, 0), format!("{hostname} Server local error"));
            }
            Self::BadSyntax => (500, (5, 2), "Error: bad syntax"),
            Self::BadUtf8 => (500, (5, 2), "Error: bad UTF-8 syntax"),
            Self::LineTooLong => (500, (5, 2), "Error: line too long"),
            Self::NotRecognized => (500, (5, 2), "Error: command not recognized"),
            Self::NotImplemented => (502, (5, 1), "Error: command not implemented"),
            Self::NeedHelo => (503, (5, 1), "Error: send HELO/EHLO first"),
            Self::NeedEncryption => (530, (7, 0), "Must issue a STARTTLS command first"),
            Self::StartTlsSyntax => (501, (5, 4), "Syntax: STARTTLS"),
            Self::TlsActive => (554, (5, 1), "Error: TLS already active"),
            Self::NestedMail => (503, (5, 1), "Error: nested MAIL command"),
            Self::MailSyntax => (501, (5, 4), "Syntax: MAIL FROM:<address>"),
            Self::SenderSyntax => (501, (1, 7), "Bad sender address syntax"),
            Self::SizeSyntax => (501, (5, 4), "Bad message size syntax"),
            Self::SizeOverLimit => (552, (3, 4), "Message size exceeds fixed limit"),
            Self::DsnDisabled => (501, (7, 1), "DSN support is disabled"),
            Self::RetSyntax => (501, (5, 4), "Bad RET parameter syntax"),
            Self::EnvidSyntax => (501, (5, 4), "Bad ENVID parameter syntax"),
            Self::MultipleAuth => (503, (5, 4), "Error: multiple AUTH= options"),
            Self::NeedSmtpUtf8 => (553, (6, 7), "Must declare SMTPUTF8 to send unicode address"),
            Self::NeedMail => (503, (5, 1), "Error: need MAIL command"),
            Self::RcptAfterBdat => (503, (5, 1), "Error: RCPT after BDAT"),
            Self::RcptSyntax => (501, (5, 4), "Syntax: RCPT TO:<address>"),
            Self::RecipientSyntax => (501, (1, 3), "Bad recipient address syntax"),
            Self::NotifySyntax => (501, (5, 4), "Error: Bad NOTIFY parameter syntax"),
            Self::OrcptSyntax => (501, (5, 4), "Error: Bad ORCPT parameter syntax"),
            Self::TooManyRecipients => (452, (5, 3), "Error: too many recipients"),
            Self::NeedRcpt => (503, (5, 1), "Error: need RCPT command"),
            Self::NoValidRecipients => (554, (5, 1), "Error: no valid recipients"),
            Self::DataAfterBdat => (503, (5, 1), "Error: DATA after BDAT"),
            Self::DataSyntax => (501, (5, 4), "Syntax: DATA"),
            Self::RsetSyntax => (501, (5, 4), "Syntax: RSET"),
            Self::BdatSyntax => (521, (5, 4), "Syntax: BDAT count [LAST]"),
            Self::BdatNotOffered => (521, (5, 1), "Error: command not implemented"),
            Self::NullBdat => (551, (7, 1), "Null BDAT request"),
            Self::ChunkTooBig => (552, (3, 4), "Chunk exceeds message size limit"),
            Self::MessageTooBig => (552, (3, 4), "Error: message file too big"),
            Self::OutOfStep => (554, (5, 0), "Error: SMTP protocol synchronization"),
            Self::VrfyDisabled => (502, (5, 1), "VRFY command is disabled"),
            Self::VrfySyntax { utf8: true } => (501, (5, 4), "Syntax: VRFY address [SMTPUTF8]"),
            Self::VrfySyntax { utf8: false } => (501, (5, 4), "Syntax: VRFY address"),
            Self::AuthNotEnabled => (503, (5, 1), "Error: authentication not enabled"),
            Self::MailInProgress => (503, (5, 1), "Error: MAIL transaction in progress"),
            Self::AuthNeedsTls => (504, (5, 4), "Encryption required for requested authentication mechanism"),
            Self::AlreadyAuthenticated => (503, (5, 1), "Error: already authenticated"),
            Self::AuthSyntax => (501, (5, 4), "Syntax: AUTH mechanism"),
            Self::AuthMalformed => (501, (5, 2), "Error: malformed authentication response"),
            Self::AuthTooLong => (500, (5, 6), "SASL response limit exceeded"),
            Self::AuthAborted => (501, (7, 0), "Authentication aborted"),
            Self::NotAuthorized => (550, (7, 0), "Error: insufficient authorization"),
        };
        let class = if code < 500 { 4 } else { 5 };
        Reply::new(code, Dsn::new(class, dsn.0, dsn.1), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out, true);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_but_the_last_has_a_hyphen() {
        assert_eq!(
            wire(&Reply::plain(250, "mx\nPIPELINING\nCHUNKING")),
            "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
        );
        let refusal = Reply::new(550, Dsn::new(5, 1, 1), "a\nb");
        assert_eq!(wire(&refusal), "550-5.1.1 a\r\n550 5.1.1 b\r\n");
    }

    #[test]
    fn what_a_client_said_cannot_start_a_line() {
        assert_eq!(wire(&Reply::plain(500, "a\r250 b\0")), "500 a?250 b?\r\n");
    }

    #[test]
    fn replies_are_read_as_access_tables_write_them() {
        assert_eq!(Reply::parse("554 5.7.1 Go away"), Some(Reply::new(554, Dsn::new(5, 7, 1), "Go away")));
        assert_eq!(Reply::parse("450 later"), Some(Reply::plain(450, "later")));
        assert_eq!(Reply::parse("REJECT"), None);
        assert_eq!(Reply::parse("99 x"), None);
    }

    #[test]
    fn softened_refusals_may_be_tried_again() {
        assert_eq!(
            Fault::SenderSyntax.reply("mx").softened().to_string(),
            "401 4.1.7 Bad sender address syntax"
        );
    }
}
