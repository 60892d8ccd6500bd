//! bounce(8).

fn main() -> std::process::ExitCode {
    service::daemon("bounce", bounce::run)
}
