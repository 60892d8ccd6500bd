//! local(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon("local", local_delivery::local::run)
}
