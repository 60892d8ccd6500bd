//! What decides how a session goes: for all clients, and for one.

use crate::content::BareNewline;
use crate::parameter::{ArgumentRules, Extensions};
use crate::reply::Reply;

/// What holds for every session of a service; named after the parameters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `myhostname`, as it stands in replies.
    pub hostname: String,
    /// The longest command line.
    pub line_length_limit: usize,
    /// 0 for none.
    pub message_size_limit: u64,
    /// MAIL only after HELO or EHLO.
    pub helo_required: bool,
    /// Nothing but a greeting goes before STARTTLS.
    pub must_encrypt: bool,
    /// RFC 5321 addresses only.
    pub strict_envelopes: bool,
    /// `resolve_numeric_domain`: an IP address without brackets is a domain.
    pub numeric_domain: bool,
    /// A UTF-8 address only after SMTPUTF8.
    pub strict_smtputf8: bool,
    /// VRFY is answered 502.
    pub disable_vrfy: bool,
    /// Recipients of one message.
    pub recipient_limit: usize,
    /// So many recipients above the limit are refused without being counted as errors.
    pub recipient_overshoot_limit: u32,
    /// From so many errors on, replies are delayed.
    pub soft_error_limit: u32,
    /// With so many errors, the session ends.
    pub hard_error_limit: u32,
    /// Commands without use from which on each counts as an error.
    pub junk_command_limit: u32,
    /// Words that are answered like NOOP.
    pub noop_commands: Vec<String>,
    /// Refusals for good are made refusals for now.
    pub soft_bounce: bool,
    /// A client that does not wait where it must is dropped.
    pub forbid_unauth_pipelining: bool,
    /// The reply code for `smtpd_forbid_bare_newline = reject`.
    pub bare_newline_reject_code: u16,
}

impl Default for Settings {
    /// Postfix's defaults.
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            line_length_limit: 2048,
            message_size_limit: 10_240_000,
            helo_required: false,
            must_encrypt: false,
            strict_envelopes: false,
            numeric_domain: false,
            strict_smtputf8: false,
            disable_vrfy: false,
            recipient_limit: 1000,
            recipient_overshoot_limit: 1000,
            soft_error_limit: 10,
            hard_error_limit: 20,
            junk_command_limit: 100,
            noop_commands: Vec::new(),
            soft_bounce: false,
            forbid_unauth_pipelining: true,
            bare_newline_reject_code: 550,
        }
    }
}

/// What holds for one client: it may depend on its address.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What EHLO offers.
    pub extensions: Extensions,
    /// How bare line feeds are taken.
    pub bare_newline: BareNewline,
}

impl Default for Policy {
    fn default() -> Self {
        Self { extensions: Extensions::ALL_PLAIN, bare_newline: BareNewline::default() }
    }
}

impl Settings {
    /// The greeting of EHLO, in Postfix's order.
    pub(super) fn ehlo_reply(&self, policy: &Policy, auth: Option<String>) -> Reply {
        let size = match self.message_size_limit {
            0 => "SIZE".to_owned(),
            limit => format!("SIZE {limit}"),
        };
        let lines = [
            (Extensions::PIPELINING, "PIPELINING"),
            (Extensions::SIZE, size.as_str()),
            (Extensions::VRFY, "VRFY"),
            (Extensions::ETRN, "ETRN"),
            (Extensions::STARTTLS, "STARTTLS"),
            (Extensions::XCLIENT, "XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT"),
            (Extensions::XFORWARD, "XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT"),
            (Extensions::ENHANCEDSTATUSCODES, "ENHANCEDSTATUSCODES"),
            (Extensions::EIGHTBITMIME, "8BITMIME"),
            (Extensions::DSN, "DSN"),
            (Extensions::SMTPUTF8, "SMTPUTF8"),
            (Extensions::CHUNKING, "CHUNKING"),
        ];
        let mut text = self.hostname.clone();
        for (extension, line) in lines {
            let hidden = extension == Extensions::VRFY && self.disable_vrfy;
            if policy.extensions.contains(extension) && !hidden {
                text.push('\n');
                text.push_str(line);
            }
            if extension == Extensions::STARTTLS {
                text.push_str(auth.as_deref().unwrap_or_default());
            }
        }
        Reply::plain(250, text)
    }

    pub(super) const fn argument_rules(&self, policy: &Policy) -> ArgumentRules {
        ArgumentRules {
            strict_envelopes: self.strict_envelopes,
            numeric_domain: self.numeric_domain,
            strict_smtputf8: self.strict_smtputf8,
            extensions: policy.extensions,
            message_size_limit: self.message_size_limit,
        }
    }
}
