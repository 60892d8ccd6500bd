//! See the manual page postpasswd(1).

fn main() -> std::process::ExitCode {
    postpasswd::run()
}
