//! What the package depends on is to be had on every release that it is for, also on those that it cannot be tried on here.

use crate::shell::{Result, command};

/// Packages that are in a release.
type Packages = [(&'static str, &'static str); 5];

/// The versions that the releases were published with.
const RELEASES: [(&str, Packages); 3] = [
    (
        "Ubuntu 22.04",
        [
            ("libc6", "2.35-0ubuntu3"),
            ("libgcc-s1", "12-20220319-1ubuntu1"),
            ("adduser", "3.118ubuntu5"),
            ("debconf", "1.5.79ubuntu1"),
            ("ucf", "3.0043"),
        ],
    ),
    (
        "Debian 12",
        [
            ("libc6", "2.36-9"),
            ("libgcc-s1", "12.2.0-14"),
            ("adduser", "3.134"),
            ("debconf", "1.5.82"),
            ("ucf", "3.0043+nmu1"),
        ],
    ),
    (
        "Ubuntu 24.04",
        [
            ("libc6", "2.39-0ubuntu8"),
            ("libgcc-s1", "14-20240412-0ubuntu1"),
            ("adduser", "3.137ubuntu1"),
            ("debconf", "1.5.86ubuntu1"),
            ("ucf", "3.0043+nmu1"),
        ],
    ),
];

/// Demands that each release has what a `Depends:` line asks for.
pub fn check(depends: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (release, packages) in RELEASES {
        for clause in depends.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
            let mut alternatives = clause.split('|').map(str::trim);
            if !alternatives.any(|wanted| packages.iter().any(|package| satisfies(*package, wanted))) {
                wrong.push(format!("{release} has no {clause}"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("dependencies: {}", wrong.join("; "))) }
}

/// Whether a package is what is wanted, as in `libc6 (>= 2.34)`.
fn satisfies((name, version): (&str, &str), wanted: &str) -> bool {
    let (wanted, bound) = wanted.split_once(" (").unwrap_or((wanted, ""));
    if wanted != name {
        return false;
    }
    let Some((relation, least)) = bound.trim_end_matches(')').split_once(' ') else {
        return bound.is_empty();
    };
    let compared = command("dpkg", &["--compare-versions", version, relation, least]).status();
    compared.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_a_release_lacks_is_named() {
        assert_eq!(check("libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0, ucf"), Ok(()));
        let wrong = check("libc6 (>= 2.36)").unwrap_err();
        assert_eq!(wrong, "dependencies: Ubuntu 22.04 has no libc6 (>= 2.36)");
        assert!(check("libssl3").unwrap_err().contains("Debian 12 has no libssl3"));
    }
}
