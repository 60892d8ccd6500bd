//! AUTH (RFC 4954): when it may come, and lines that are responses rather than commands.
//!
//! The program answers [`Event::Auth`](super::Event::Auth) and [`Event::AuthResponse`](super::Event::AuthResponse) with
//! [`Session::challenge`], or with [`Session::answer`]: a positive reply there says that the client is known.

use std::sync::Arc;

use super::{Question, Session, Step};
use crate::command::Verb;
use crate::input::Line;
use crate::parameter::Extensions;
use crate::reply::Fault;
use crate::sasl::Secret;

/// What is offered to a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthOffer {
    /// The mechanisms, parted by blanks; empty where there is none, now.
    pub mechanisms: String,
    /// `smtpd_tls_auth_only` while there is no TLS: AUTH is not offered, and refused with that reason.
    pub needs_tls: bool,
    /// `broken_sasl_auth_clients`: `AUTH=` is offered as well.
    pub broken_clients: bool,
    /// `smtpd_sasl_response_limit`.
    pub response_limit: usize,
}

/// Where authentication stands.
#[derive(Debug, Default)]
pub(super) struct Auth {
    offer: Option<Arc<AuthOffer>>,
    /// A challenge is out.
    challenged: bool,
    done: bool,
}

impl Session {
    /// Says what this client is offered, none for no AUTH at all. It also stands in EHLO's reply.
    pub fn offer_auth(&mut self, offer: Option<Arc<AuthOffer>>) {
        self.auth.offer = offer;
    }

    /// Whether the client is known, by [`Session::answer`] or [`Session::set_authenticated`].
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        self.auth.done
    }

    /// Says by other means whether the client is known: by XCLIENT, or no more because TLS has begun.
    pub const fn set_authenticated(&mut self, authenticated: bool) {
        self.auth.done = authenticated;
    }

    /// The longest line that is awaited: the buffer must hold it.
    #[must_use]
    pub fn line_limit(&self) -> usize {
        let limit = self.settings.line_length_limit;
        match &self.auth.offer {
            Some(offer) if self.auth.challenged => limit.max(offer.response_limit),
            _ => limit,
        }
    }

    /// Answers the question with a challenge, in base64.
    pub fn challenge(&mut self, base64: &str) {
        if self.question.take().is_some() {
            self.auth.challenged = true;
            self.output.extend_from_slice(b"334 ");
            self.output.extend(base64.bytes().filter(|byte| byte.is_ascii_graphic()));
            self.output.extend_from_slice(b"\r\n");
        }
    }

    pub(super) const fn is_challenged(&self) -> bool {
        self.auth.challenged
    }

    /// The lines of EHLO's reply.
    pub(super) fn auth_lines(&self) -> Option<String> {
        let offer = self.auth.offer.as_ref().filter(|_| self.policy.extensions.contains(Extensions::AUTH))?;
        if offer.needs_tls || offer.mechanisms.is_empty() {
            return None;
        }
        let mut lines = format!("\nAUTH {}", offer.mechanisms);
        if offer.broken_clients {
            lines.push_str(&format!("\nAUTH={}", offer.mechanisms));
        }
        Some(lines)
    }

    /// The verb AUTH.
    pub(super) fn auth(&self, arguments: &str) -> Result<Question, Fault> {
        if self.helo.is_none() {
            return Err(Fault::NeedHelo);
        }
        let offered = self.policy.extensions.contains(Extensions::AUTH);
        let Some(offer) = self.auth.offer.as_ref().filter(|_| offered) else {
            return Err(Fault::AuthNotEnabled);
        };
        if self.transaction().is_some() {
            return Err(Fault::MailInProgress);
        }
        if offer.needs_tls {
            return Err(Fault::AuthNeedsTls);
        }
        if self.auth.done {
            return Err(Fault::AlreadyAuthenticated);
        }
        let mut words = arguments.split_ascii_whitespace();
        let (mechanism, initial) = match (words.next(), words.next(), words.next()) {
            (Some(mechanism), initial, None) => (mechanism, initial),
            _ => return Err(Fault::AuthSyntax),
        };
        Ok(Question::Auth(mechanism.to_ascii_uppercase(), initial.map(Secret::from)))
    }

    /// Takes the line that answers a challenge.
    pub(super) fn auth_response(&mut self) -> Option<Step> {
        let line = self.input.line(self.line_limit());
        self.verb = Verb::Auth;
        let place = match line {
            Line::Partial => return Some(Step::Read),
            Line::TooLong => return Some(self.auth_refused(&Fault::AuthTooLong)),
            Line::Whole { place, .. } => place,
        };
        // RFC 4954 section 4: base64, or the client has thought better of it.
        let response = match self.input.at(place.clone()) {
            b"*" => None,
            line => Some(Secret::new(line.to_vec())),
        };
        self.input.wipe(place);
        let Some(response) = response else { return Some(self.auth_refused(&Fault::AuthAborted)) };
        if response.as_str().is_none() {
            return Some(self.auth_refused(&Fault::AuthMalformed));
        }
        self.auth.challenged = false;
        self.question = Some(Question::AuthResponse(response));
        Some(Step::Asked)
    }

    fn auth_refused(&mut self, fault: &Fault) -> Step {
        self.auth.challenged = false;
        self.arguments.clear();
        self.refuse(fault)
    }
}
