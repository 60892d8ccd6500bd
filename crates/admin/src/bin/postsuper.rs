//! See the manual page postsuper(1).

pub(crate) fn main() -> std::process::ExitCode {
    admin::postsuper::run()
}
