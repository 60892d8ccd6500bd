//! Commands that `smtp-proto` leaves to the server: each has a module of its own beside this one.

use smtp_proto::{Reply, Verb};

use super::dialogue::Dialogue;

impl Dialogue<'_> {
    /// The answer to such a command; none says that it is not offered.
    pub(super) fn other(&mut self, verb: Verb, arguments: &str) -> Option<Reply> {
        match verb {
            Verb::Xforward => Some(self.xforward(arguments).unwrap_or_else(|reply| reply)),
            Verb::Etrn => Some(self.etrn(arguments)),
            _ => None,
        }
    }
}
