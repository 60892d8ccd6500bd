//! local(8).

fn main() -> std::process::ExitCode {
    service::daemon("local", local_delivery::local::run)
}
