//! See the manual page postconf(1).

pub(crate) fn main() -> std::process::ExitCode {
    admin::postconf::run()
}
