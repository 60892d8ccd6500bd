//! discard(8).

fn main() -> std::process::ExitCode {
    service::daemon("discard", bounce::discard)
}
