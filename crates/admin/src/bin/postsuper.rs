//! See the manual page postsuper(1).

fn main() -> std::process::ExitCode {
    admin::postsuper::run()
}
