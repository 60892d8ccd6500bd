//! The SMTP server.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(ipc::check::ARGUMENT) {
        return ipc::check::answer(|config| {
            let mut found = service::judge(config);
            found.extend(smtpd::restrictions::verify(config));
            found
        });
    }
    service::daemon("smtpd", smtpd::run)
}
