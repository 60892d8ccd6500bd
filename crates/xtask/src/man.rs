//! `cargo xtask man`: the parts of the manual pages that are made from the parameter table, and a check of all pages.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Result, command, root};

/// Between these lines of a page stands what is generated: the parameters that a program reads.
const BEGIN: &str = ".\\\" Generated from the parameter table: begin ";
const END: &str = ".\\\" Generated from the parameter table: end";

/// Writes the generated parts, or says which are stale; then has mandoc look at every page.
pub fn run(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, wanted) in wanted_pages()? {
        let current = fs::read_to_string(&path).unwrap_or_default();
        if current == wanted {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
        } else {
            fs::write(&path, wanted).map_err(|e| format!("write {}: {e}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    if !stale.is_empty() {
        return Err(format!("stale, run `cargo xtask man`: {}", stale.join(" ")));
    }
    lint()
}

/// Every page with generated parts, and what it should contain.
fn wanted_pages() -> Result<Vec<(PathBuf, String)>> {
    let mut wanted = vec![(root().join("man/man5/postroad.5"), config::manual::postconf_5())];
    for path in pages()? {
        let text = read(&path)?;
        if text.contains(BEGIN) {
            wanted.push((path, regenerate(&text)?));
        }
    }
    Ok(wanted)
}

fn regenerate(text: &str) -> Result<String> {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if let Some(program) = line.strip_prefix(BEGIN) {
            out.push_str(config::manual::section_for(program.trim()).trim_end());
            out.push('\n');
            if !lines.any(|line| line == END) {
                return Err(format!("{BEGIN}{program}: no line `{END}` behind it"));
            }
            out.push_str(END);
            out.push('\n');
        }
    }
    Ok(out)
}

/// All manual pages.
pub fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for section in ["man1", "man5", "man7", "man8"] {
        let folder = root().join("man").join(section);
        let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(std::result::Result::ok);
        pages.extend(entries.map(|entry| entry.path()));
    }
    pages.sort();
    if pages.is_empty() { Err("no manual pages under man/".into()) } else { Ok(pages) }
}

fn lint() -> Result<()> {
    let pages = pages()?;
    let output = command("mandoc", &["-T", "lint", "-W", "warning"])
        .args(&pages)
        .output()
        .map_err(|e| format!("run mandoc (package mandoc): {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A page may refer to one that comes with a later part of the system; everything else is to be mended.
    let remarks: Vec<&str> =
        text.lines().filter(|line| !line.contains("referenced manual not found")).collect();
    if remarks.is_empty() {
        println!("{} manual pages are up to date and clean", pages.len());
        return Ok(());
    }
    Err(format!("mandoc has remarks:\n{}", remarks.join("\n")))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}
