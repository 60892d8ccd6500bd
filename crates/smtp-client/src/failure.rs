//! Why a place, a message or a recipient was not served: the words and the code that log and report show.

use mail::{Dsn, Outcome};
use smtp_proto::client::{Response, Stage};

use crate::server::Server;

/// A failure, whomever it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Class 4: another attempt, or another server, may succeed.
    pub(crate) dsn: Dsn,
    pub(crate) text: String,
    /// The remote host that said so, and its words, where it was one.
    pub(crate) said: Option<(String, String)>,
    /// Mail for this place is for this host itself.
    pub(crate) is_loop: bool,
    /// What was said is not as the protocol has it, on either side: the postmaster may want to know.
    pub(crate) breaks_protocol: bool,
}

impl Failure {
    /// Found out by this host.
    pub(crate) fn local(dsn: Dsn, text: impl Into<String>) -> Self {
        Self { dsn, text: text.into(), said: None, is_loop: false, breaks_protocol: false }
    }

    /// The server's reply to a command.
    pub(crate) fn reply(server: &Server, response: &Response, to: Stage) -> Self {
        let text = format!("host {server} said: {response} (in reply to {})", to.request());
        Self::said(server, response, text)
    }

    /// The server's reply to being greeted, or what it said first.
    pub(crate) fn refused_to_talk(server: &Server, response: &Response) -> Self {
        Self::said(server, response, format!("host {server} refused to talk to me: {response}"))
    }

    /// What a server said, told in other words.
    pub(crate) fn said(server: &Server, response: &Response, text: String) -> Self {
        let said = Some((server.host.clone(), response.to_string()));
        if matches!(response.code() / 100, 4 | 5) {
            // Syntax errors and commands that are not known (RFC 5321 section 4.2.1), and parameters that are not.
            let breaks_protocol = matches!(response.code(), 500..510 | 555);
            return Self { dsn: response.dsn(), text, said, is_loop: false, breaks_protocol };
        }
        // A success where there can be none: who answers like this will do so the next time.
        let text = if response.code() / 100 == 2 { format!("Protocol error: {text}") } else { text };
        Self { dsn: Dsn::new(5, 5, 0), text, said, is_loop: false, breaks_protocol: true }
    }

    /// Whether another attempt may succeed.
    pub(crate) const fn is_temporary(&self) -> bool {
        self.dsn.class() == 4
    }

    /// The same, and another attempt may succeed.
    pub(crate) fn softened(mut self) -> Self {
        self.dsn = self.dsn.with_class(4);
        self
    }

    /// What it means for a recipient. `relay` is `none` where no connection came about.
    pub(crate) fn outcome(&self, relay: &str) -> Outcome {
        let outcome = if self.is_temporary() {
            Outcome::deferred(relay, self.dsn, self.text.clone())
        } else {
            Outcome::bounced(relay, self.dsn, self.text.clone())
        };
        match &self.said {
            Some((host, reply)) => outcome.said_by(host, Some(reply)),
            None => outcome,
        }
    }
}
