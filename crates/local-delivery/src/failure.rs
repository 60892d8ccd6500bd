//! Why a delivery did not happen, and whether to try again.

use std::fmt;
use std::io;

pub(crate) use config::cause as describe;
use mail::{Dsn, Outcome};
use nix::libc;

/// A delivery that failed: the class of `dsn` says whether for now (4) or for good (5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The enhanced status code.
    pub(crate) dsn: Dsn,
    /// Operation, object, cause.
    pub(crate) text: String,
    /// What a program said, for a report.
    pub(crate) diagnostic: Option<String>,
}

/// A delivery's result: what to say behind `status=sent`, or why it failed.
pub(crate) type Delivered = Result<String, Failure>;

impl Failure {
    /// As the class of `dsn` says.
    #[must_use]
    pub(crate) fn new(dsn: Dsn, text: impl Into<String>) -> Self {
        Self { dsn, text: text.into(), diagnostic: None }
    }

    /// To be tried again.
    #[must_use]
    pub(crate) fn defer(dsn: Dsn, text: impl Into<String>) -> Self {
        Self::new(dsn.with_class(4), text)
    }

    /// For good.
    #[must_use]
    pub(crate) fn bounce(dsn: Dsn, text: impl Into<String>) -> Self {
        Self::new(dsn.with_class(5), text)
    }

    /// The administrator must mend something; the mail waits meanwhile.
    #[must_use]
    pub(crate) fn configuration(text: impl fmt::Display) -> Self {
        Self::defer(Dsn::new(4, 3, 5), format!("mail system configuration error: {text}"))
    }

    /// Writing to a mailbox failed. A full disk or quota is somebody's to mend, so the mail waits; only a limit that
    /// this one message exceeds is for good.
    #[must_use]
    pub(crate) fn from_io(error: &io::Error, operation: impl fmt::Display) -> Self {
        let text = format!("{operation}: {}", describe(error));
        match error.raw_os_error() {
            Some(libc::EDQUOT) => Self::defer(Dsn::new(4, 2, 2), text),
            Some(libc::EFBIG) => Self::bounce(Dsn::new(5, 2, 2), text),
            Some(libc::ENOSPC | libc::EROFS | libc::EIO) => Self::defer(Dsn::new(4, 3, 1), text),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Self::defer(Dsn::new(4, 3, 0), text),
            _ => Self::defer(Dsn::new(4, 2, 0), text),
        }
    }

    /// The same, as the end of a program that said `output` (RFC 3464 section 2.3.6).
    #[must_use]
    pub(crate) fn of_program(mut self, output: &str) -> Self {
        let said = if output.is_empty() { &self.text } else { output };
        self.diagnostic = Some(format!("x-unix; {said}"));
        self
    }

    /// Opening a file that an alias or `.forward` names failed: what is not there, or may not be written, is a mistake of
    /// who wrote the name.
    #[must_use]
    pub(crate) fn of_named_file(error: &io::Error, operation: impl fmt::Display) -> Self {
        let failure = Self::from_io(error, operation);
        let for_now = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ESTALE | libc::EINTR));
        if failure.dsn == Dsn::new(4, 2, 0) && !for_now {
            return Self { dsn: Dsn::new(5, 2, 0), ..failure };
        }
        failure
    }

    /// Whether the delivery is to be tried again.
    #[must_use]
    pub(crate) fn is_temporary(&self) -> bool {
        self.dsn.class() == 4
    }

    /// The same failure with words in front.
    #[must_use]
    pub(crate) fn within(mut self, context: impl fmt::Display) -> Self {
        self.text = format!("{context}{}", self.text);
        self
    }
}

/// The result as the outcome that is logged and recorded.
#[must_use]
pub(crate) fn outcome(relay: &str, delivered: Delivered) -> Outcome {
    match delivered {
        Ok(text) => Outcome::sent(relay, text),
        Err(failure) => {
            let temporary = failure.is_temporary();
            let outcome = if temporary { Outcome::deferred } else { Outcome::bounced };
            Outcome { diagnostic: failure.diagnostic, ..outcome(relay, failure.dsn, failure.text) }
        }
    }
}
