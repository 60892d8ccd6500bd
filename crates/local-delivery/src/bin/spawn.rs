//! spawn(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon_with_judgement("spawn", local_delivery::spawn::judge, local_delivery::spawn::run)
}
