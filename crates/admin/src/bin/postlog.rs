//! See the manual page postlog(1).

fn main() -> std::process::ExitCode {
    admin::postlog::run()
}
