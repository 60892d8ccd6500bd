//! bounce(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon("bounce", bounce::run)
}
