//! See the manual page postalias(1).

fn main() -> std::process::ExitCode {
    postmap::postalias()
}
