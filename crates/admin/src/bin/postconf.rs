//! See the manual page postconf(1).

fn main() -> std::process::ExitCode {
    admin::postconf::run()
}
