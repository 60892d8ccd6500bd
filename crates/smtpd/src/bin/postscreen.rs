//! `postscreen`: looks at clients before they get a session, and gives it to them. See the library's `screen`.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon_with_judgement(
        "postscreen",
        |asked| {
            let mut found = service::judge(&asked.config);
            found.extend(smtpd::screen::judge(&asked.config));
            found
        },
        smtpd::screen::run,
    )
}
