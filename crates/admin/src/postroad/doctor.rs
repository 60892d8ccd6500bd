//! `postroad doctor`: a program of its own, which speaks with the network and must not be linked into this one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::{Config, param};

use super::Failure;

/// Becomes doctor(8).
pub(super) fn doctor(directory: &Path, arguments: &[OsString]) -> Result<Vec<String>, Failure> {
    let configured: PathBuf = Config::load_regardless(directory).get(param::DAEMON_DIRECTORY);
    // A configuration that says nothing useful is what is to be looked at.
    let usual = Path::new(param::DAEMON_DIRECTORY.row().default);
    let program = [configured.join("doctor"), usual.join("doctor")].into_iter().find(|path| path.is_file());
    let program = program.unwrap_or_else(|| configured.join("doctor"));
    let error = Command::new(&program).arg("-c").arg(directory).args(arguments).exec();
    Err(vec![format!("start {}: {error}", program.display())])
}
