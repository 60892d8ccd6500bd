//! See the manual page postmap(1).

pub(crate) fn main() -> std::process::ExitCode {
    postmap::postmap()
}
