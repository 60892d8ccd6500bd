//! virtual(8).

pub(crate) fn main() -> std::process::ExitCode {
    service::daemon("virtual", local_delivery::virtual_mailbox::run)
}
