//! See the manual page postcat(1).

pub(crate) fn main() -> std::process::ExitCode {
    admin::postcat::run()
}
