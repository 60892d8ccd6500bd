//! smtp(8).

fn main() -> std::process::ExitCode {
    service::daemon("smtp", smtp_client::smtp)
}
