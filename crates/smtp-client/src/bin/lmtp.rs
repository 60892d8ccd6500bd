//! lmtp(8).

fn main() -> std::process::ExitCode {
    service::daemon("lmtp", smtp_client::lmtp)
}
