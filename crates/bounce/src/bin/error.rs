//! error(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon("error", bounce::error)
}
