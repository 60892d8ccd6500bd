//! AUTH in a session: the exchange, its replies, and what the log says of it.

use std::sync::Arc;

use ipc::anvil::Offence;
use ipc::log;
use mail::Dsn;
use smtp_proto::Reply;
use smtp_proto::sasl::Secret;
use smtp_proto::server::AuthOffer;

use super::dialogue::Dialogue;
use crate::auth::Step;
use crate::client::Login;
use crate::limits::Happening;
use crate::tls::Encryption;

/// What to say to the client.
pub(super) enum Answer {
    /// A challenge, in base64.
    Challenge(String),
    Reply(Reply),
}

impl Dialogue<'_> {
    /// What the client is offered from now on.
    pub(super) fn auth_offer(&self) -> Option<Arc<AuthOffer>> {
        self.server.authentication.as_ref()?.offer(&self.client)
    }

    /// AUTH with a mechanism.
    pub(super) fn begin_auth(&mut self, mechanism: &str, initial: Option<&Secret>) -> Answer {
        let Some(authentication) = &self.server.authentication else {
            let text = "Error: authentication not enabled";
            return Answer::Reply(Reply::new(503, Dsn::new(5, 5, 1), text));
        };
        if let Some(reply) = self.limit(Happening::Auth) {
            return Answer::Reply(reply);
        }
        let (exchange, step) = authentication.begin(mechanism, initial, &self.client);
        self.exchange = exchange;
        self.auth_step(mechanism, step)
    }

    /// The client's answer to a challenge.
    pub(super) fn go_on_with_auth(&mut self, response: &Secret) -> Answer {
        let Some(mut exchange) = self.exchange.take() else {
            return Answer::Reply(Reply::new(503, Dsn::new(5, 5, 1), "Error: no authentication in progress"));
        };
        let step = exchange.go_on(response);
        let mechanism = exchange.mechanism.clone();
        self.exchange = Some(exchange);
        self.auth_step(&mechanism, step)
    }

    /// The client has broken the exchange off, or said what is no response.
    pub(super) fn auth_aborted(&mut self, reply: &Reply) {
        if let Some(exchange) = self.exchange.take() {
            match reply.dsn() == Some(Dsn::new(5, 7, 0)) {
                true => log::warning!("{}: SASL {} authentication aborted", self.client, exchange.mechanism),
                false => self.warn_of_failure(&exchange.mechanism, reply.text(), None),
            }
        }
    }

    fn auth_step(&mut self, mechanism: &str, step: Step) -> Answer {
        if let Step::Challenge(challenge) = step {
            return Answer::Challenge(challenge);
        }
        self.exchange = None;
        Answer::Reply(match step {
            Step::Accepted(username) => {
                self.client.login = Some(Login { method: mechanism.to_owned(), username });
                Reply::new(235, Dsn::new(2, 7, 0), "Authentication successful")
            }
            Step::Unavailable(reason) => {
                self.warn_of_failure(mechanism, &reason, None);
                Reply::new(454, Dsn::new(4, 7, 0), format!("Temporary authentication failure: {reason}"))
            }
            Step::Refused(username, reason) => {
                self.server.limits.offended(&self.client, Offence::FailedLogin);
                self.warn_of_failure(mechanism, &reason, username.as_deref());
                Reply::new(535, Dsn::new(5, 7, 8), format!("Error: authentication failed: {reason}"))
            }
            Step::Challenge(_) => Reply::new(454, Dsn::new(4, 7, 0), "Temporary authentication failure"),
        })
    }

    /// What the Received header says of TLS, and, with `smtpd_sasl_authenticated_header`, of who has logged in.
    pub(super) fn trace_comments(&self) -> String {
        let mut comments = self.client.tls.as_ref().map(Encryption::received).unwrap_or_default();
        if let Some(login) = self.client.login.as_ref().filter(|_| self.server.shows_login) {
            let before = if comments.is_empty() { "" } else { "\n" };
            comments.push_str(&format!("{before}(Authenticated sender: {})", login.username));
        }
        comments
    }

    fn warn_of_failure(&self, mechanism: &str, reason: &str, username: Option<&str>) {
        let printable =
            |text: &str| text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect();
        let (mechanism, username): (String, String) =
            (printable(mechanism), printable(username.unwrap_or("(unavailable)")));
        log::warning!(
            "{}: SASL {mechanism} authentication failed: {reason}, sasl_username={username}",
            self.client
        );
    }
}
