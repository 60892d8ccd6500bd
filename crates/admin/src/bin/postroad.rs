//! `postroad`: starts, stops and watches over a mail system. See `postroad(1)`.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    admin::postroad::run()
}
