//! Links programs without `libgcc_s.so`: what they need of it for a panic is in the compiler's static library. Of this
//! package, and of others whose manifests name this script: those that packages ship.
//!
//! Some of them are started for each message. To load one library more is a fifth of such a start's time, as that one has
//! a constructor that asks the processor what it can, which a virtual machine's host answers slowly.

use std::path::PathBuf;

/// Takes the shared library's place where the linker looks for it first.
const SCRIPT: &str = "INPUT(-lgcc_eh -lgcc)\n";

fn main() -> std::io::Result<()> {
    // Nothing but this script decides what it does.
    println!("cargo::rerun-if-env-changed=CC");
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(folder.join("libgcc_s.so"), SCRIPT)?;
    println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
    Ok(())
}
