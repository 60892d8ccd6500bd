//! `anvil`: what all servers of an instance count together. See the library for the contract.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    service::daemon("anvil", anvil::run)
}
