//! See the manual page showq(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon("showq", admin::showq::run)
}
