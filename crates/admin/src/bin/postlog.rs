//! See the manual page postlog(1).

pub(crate) fn main() -> std::process::ExitCode {
    admin::postlog::run()
}
