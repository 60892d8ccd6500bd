//! The one place where what goes wrong behind the protocol becomes a reply.

use ipc::cleanup::{CleanupError, Refusal};
use lookup::LookupError;
use mail::Dsn;
use smtp_proto::Reply;

/// A message that cleanup did not take.
pub(crate) fn from_cleanup(error: &CleanupError) -> Reply {
    match error {
        CleanupError::Unreachable(_) => Reply::new(451, Dsn::new(4, 3, 0), "Error: queue file write error"),
        CleanupError::Refused(refusal) => {
            let dsn = refusal.dsn();
            let code = match refusal {
                Refusal::TooBig => 552,
                Refusal::NoSpace => 452,
                Refusal::Rejected(dsn, _) if dsn.class() == 4 => 451,
                Refusal::TooManyHops => 554,
                Refusal::Rejected(..) => 550,
                Refusal::Temporary(_) => 451,
            };
            // Header and body checks write the whole text; the others are Postfix's words.
            let text = match refusal {
                Refusal::Rejected(_, text) => text.clone(),
                _ => format!("Error: {refusal}"),
            };
            Reply::new(code, dsn, text)
        }
    }
}

/// A table that could not be asked, about `what`. The client is not told which; the log is.
pub(crate) fn from_lookup(error: &LookupError, what: &str) -> Reply {
    ipc::log::warning!("{error}");
    Reply::new(451, Dsn::new(4, 3, 0), format!("<{what}>: Temporary lookup failure"))
}

/// A configuration that `check` would not have let pass.
pub(crate) fn server_configuration() -> Reply {
    Reply::new(451, Dsn::new(4, 3, 5), "Server configuration error")
}

/// The disk is full.
pub(crate) fn no_space() -> Reply {
    Reply::new(452, Dsn::new(4, 3, 1), "Insufficient system storage")
}
