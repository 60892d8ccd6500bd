//! See the manual page postpasswd(1).

pub(crate) fn main() -> std::process::ExitCode {
    postpasswd::run()
}
