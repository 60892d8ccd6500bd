//! Programs that others wrote: the clients and servers that scenarios talk with.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

/// A program of one of Debian's packages.
///
/// # Panics
/// When it is not installed; the message says which package has it.
#[must_use]
pub fn peer(program: &str) -> Command {
    // A user's own folders come last: what is there may not be what the package has, nor readable for others.
    let folders = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    let found = folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file());
    let Some(path) = found else {
        panic!("{program} is missing; run: sudo apt-get install --no-install-recommends {program}")
    };
    Command::new(path)
}

/// The folder that Debian's Postfix is unpacked in.
///
/// # Panics
/// When it is not there; `cargo xtask test` unpacks it.
#[must_use]
pub fn postfix_package() -> PathBuf {
    peer_package("postfix")
}

/// The folder that a package of Debian is unpacked in whose programs must not be installed.
///
/// # Panics
/// As [`postfix_package`].
#[must_use]
pub fn peer_package(package: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let folder = target.map_or_else(|| root.join("target"), PathBuf::from).join("peers").join(package);
    assert!(folder.join("usr/sbin").exists(), "{} is not there; run: cargo xtask test", folder.display());
    folder
}

/// A program of [`postfix_package`].
#[must_use]
pub fn postfix_peer(program: &str) -> Command {
    let package = postfix_package();
    let mut command = Command::new(package.join("usr/sbin").join(program));
    command.env("LD_LIBRARY_PATH", package.join("usr/lib/postfix"));
    command
}

/// Whether a scenario that needs root's rights can run; if not, the reason is printed.
#[must_use]
pub fn is_root(scenario: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        println!("{scenario} was skipped: it needs root");
    }
    root
}
