//! See the manual page postqueue(1).

fn main() -> std::process::ExitCode {
    admin::postqueue::run()
}
