//! See the manual page postmap(1).

fn main() -> std::process::ExitCode {
    postmap::postmap()
}
