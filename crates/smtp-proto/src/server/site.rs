//! What a site changes about the dialogue itself, for clients and readers that need it.

use std::fmt;

use crate::reply::Reply;

/// Rules that stand between the client and the protocol. What they say is kept within the limits of the protocol: a
/// command is one line, a footer changes no code.
pub trait SiteRules: fmt::Debug + Send + Sync {
    /// What a command line stands for (`smtpd_command_filter`); none where it stands for itself.
    fn command(&self, line: &str) -> Option<String> {
        let _ = line;
        None
    }

    /// What is said after a refusal (`smtpd_reject_footer`), with line feeds between its lines. One that begins with
    /// [`SAME_LINE`] goes on where the reply ends.
    fn footer(&self, reply: &Reply) -> Option<String> {
        let _ = reply;
        None
    }
}

/// Before a footer that is no line of its own.
pub const SAME_LINE: char = '\u{1}';
