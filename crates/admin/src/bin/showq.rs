//! See the manual page showq(8).

fn main() -> std::process::ExitCode {
    service::daemon("showq", admin::showq::run)
}
