//! All targets in one program, so that one build serves them all: `FUZZ_TARGET` says which one runs.
#![no_main]
#![allow(clippy::panic, reason = "a target that does not exist ends the run")]

use std::sync::LazyLock;

use fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::find(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is none of the targets"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
