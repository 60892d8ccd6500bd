//! error(8).

fn main() -> std::process::ExitCode {
    service::daemon("error", bounce::error)
}
