//! See the manual page postcat(1).

fn main() -> std::process::ExitCode {
    admin::postcat::run()
}
