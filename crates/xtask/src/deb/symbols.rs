//! What programs ask of the C library: no more than the oldest system has that a package is for.

use std::path::{Path, PathBuf};

use crate::shell::{Result, output_of};

/// The C library of Ubuntu 22.04.
const NEWEST: (u32, u32) = (2, 35);

/// Demands that no program needs a symbol of a newer C library, or says which do.
pub fn check(programs: &[PathBuf]) -> Result<()> {
    let mut wrong = Vec::new();
    for program in programs {
        wrong.extend(too_new(program)?);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("needed of a C library newer than {}.{}:\n{}", NEWEST.0, NEWEST.1, wrong.join("\n")))
}

fn too_new(program: &Path) -> Result<Vec<String>> {
    let table = output_of("objdump", &["-T", &program.display().to_string()])?;
    let new = table.lines().filter(|line| version_of(line).is_some_and(|version| version > NEWEST));
    let name = program.file_name().unwrap_or_default().display().to_string();
    Ok(new.map(|line| format!("{name}: {line}")).collect())
}

/// The version in a line of the symbol table, as in `… (GLIBC_2.34) __libc_start_main`.
fn version_of(line: &str) -> Option<(u32, u32)> {
    let (_, version) = line.split_once("GLIBC_")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn versions_are_numbers_not_text() {
        assert_eq!(version_of("0000 DF *UND* 0000 (GLIBC_2.34) __libc_start_main"), Some((2, 34)));
        assert_eq!(version_of("0000 DF *UND* 0000 (GLIBC_2.2.5) read"), Some((2, 2)));
        assert_eq!(version_of("0000  w   D  *UND*  0000  Base  _ITM_registerTMCloneTable"), None);
        assert!(version_of("(GLIBC_2.4) x") < version_of("(GLIBC_2.35) x"));
    }
}
