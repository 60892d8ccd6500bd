//! See the manual page mailq(1).

fn main() -> std::process::ExitCode {
    submit::mailq()
}
