//! See the manual page postdrop(1).

fn main() -> std::process::ExitCode {
    submit::postdrop()
}
