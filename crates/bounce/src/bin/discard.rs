//! discard(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon("discard", bounce::discard)
}
