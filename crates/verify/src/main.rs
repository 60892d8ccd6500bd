//! `verify`: what is known of addresses. See the library for the contract.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon_with_judgement(
        "verify",
        |asked| {
            let mut found = service::judge(&asked.config);
            found.extend(verify::judge(&asked.config));
            found
        },
        verify::run,
    )
}
