//! See the manual page newaliases(1).

fn main() -> std::process::ExitCode {
    submit::newaliases()
}
