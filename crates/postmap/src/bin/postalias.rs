//! See the manual page postalias(1).

pub(crate) fn main() -> std::process::ExitCode {
    postmap::postalias()
}
