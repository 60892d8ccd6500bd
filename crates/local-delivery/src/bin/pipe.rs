//! pipe(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon_with_judgement("pipe", local_delivery::pipe::judge, local_delivery::pipe::run)
}
