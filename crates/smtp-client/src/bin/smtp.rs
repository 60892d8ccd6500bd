//! smtp(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon_with_judgement(
        "smtp",
        |asked| {
            let mut found = service::judge(&asked.config);
            found.extend(smtp_client::verify(&asked.config, "smtp"));
            found
        },
        smtp_client::smtp,
    )
}
