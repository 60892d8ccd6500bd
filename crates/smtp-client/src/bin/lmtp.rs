//! lmtp(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon_with_judgement(
        "lmtp",
        |asked| {
            let mut found = service::judge(&asked.config);
            found.extend(smtp_client::verify(&asked.config, "lmtp"));
            found
        },
        smtp_client::lmtp,
    )
}
