//! `cargo xtask tidy`: what no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::man;
use crate::shell::{Result, cargo, output_of, root};

/// What may stand at the top of the repository.
const TOP: [&str; 14] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "crates",
    "etc",
    "man",
    "packaging",
    "rustfmt.toml",
    "tests",
];

/// Licences that may be linked with Apache-2.0 code; an expression needs one alternative of which all parts are here.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "NCSA",
    "Unicode-3.0",
    "Zlib",
];
const PUBLIC_DOMAIN: [&str; 2] = ["Unlicense", "CC0-1.0"];

/// Packages that nobody keeps any more, or that are banned for another reason.
const UNMAINTAINED: &str = include_str!("unmaintained.txt");

/// Packages that come in several versions, because others ask for them so.
const SEVERAL_VERSIONS: &str = include_str!("several-versions.txt");

/// The longest file: a noun that needs more is two.
const MAX_LINES: usize = 800;

/// Who attacks whom, and which test shows that it does not work.
const THREATS: &str = "crates/THREATS.md";

/// Runs all checks and prints everything that is wrong.
pub fn run() -> Result<()> {
    let files = tracked_files()?;
    let metadata = Metadata::read()?;
    let mut wrong = Vec::new();
    wrong.extend(top_level(&files));
    wrong.extend(texts(&files));
    wrong.extend(missing_tests(&files));
    wrong.extend(metadata.licences());
    wrong.extend(metadata.unmaintained());
    wrong.extend(several_versions()?);
    wrong.extend(metadata.careless_crates());
    wrong.extend(metadata.dependency_table());
    wrong.extend(metadata.programs_without_page()?);
    if wrong.is_empty() {
        println!("tidy: {} files, {} packages", files.len(), metadata.packages.len());
        return Ok(());
    }
    Err(wrong.join("\n"))
}

fn tracked_files() -> Result<Vec<String>> {
    let list = output_of("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    Ok(list.lines().map(str::to_owned).filter(|name| root().join(name).exists()).collect())
}

fn top_level(files: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> = files.iter().map(|file| file.split('/').next().unwrap_or(file)).collect();
    let strange = names.iter().filter(|name| !TOP.contains(name));
    strange.map(|name| format!("{name}: not one of the things at the top of the repository")).collect()
}

fn texts(files: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{file}: {lines} lines, more than {MAX_LINES}"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            // Written in pieces, so that this file does not find itself.
            let marks =
                [concat!("FIX", "ME"), concat!("XX", "X"), concat!("to", "do!("), concat!("#[igno", "re]")];
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                wrong.push(format!("{file}:{number}: {mark} is for unfinished work"));
            }
            if !file.starts_with("crates/sys/") && is_unsafe(line) {
                wrong.push(format!("{file}:{number}: code that is not safe belongs in crates/sys"));
            }
        }
    }
    wrong
}

/// Whether a line has code that the compiler does not check, or lifts the lint that keeps such code out.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let mut words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.any(|word| [concat!("unsa", "fe"), concat!("unsa", "fe_code")].contains(&word))
}

/// The page of threats names tests in the last column of its tables; they must be there.
fn missing_tests(files: &[String]) -> Vec<String> {
    let page = fs::read_to_string(root().join(THREATS)).unwrap_or_default();
    let sources = files.iter().filter(|file| file.ends_with(".rs"));
    let sources: Vec<String> =
        sources.filter_map(|file| fs::read_to_string(root().join(file)).ok()).collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = rows.filter_map(|row| row.rsplit('|').next());
    let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let missing = named.filter(|name| !sources.iter().any(|text| text.contains(&format!("fn {name}("))));
    missing.map(|name| format!("{THREATS}: there is no test {name}")).collect()
}

/// A package that is built in several versions is there twice in each program, unless that is known and why.
fn several_versions() -> Result<Vec<String>> {
    let question = ["tree", "--workspace", "--locked", "--duplicates", "--depth", "0", "--prefix", "none"];
    let answer = output_of(&cargo(), &question)?;
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in answer.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known = reasons(SEVERAL_VERSIONS);
    let unknown = versions.iter().filter(|(name, _)| !known.contains_key(*name)).map(|(name, versions)| {
        let list: Vec<&str> = versions.iter().copied().collect();
        format!(
            "{name} comes as {}: ask for the version that the others ask for, or name it with the reason in \
             crates/xtask/src/several-versions.txt (`cargo tree -i {name}@VERSION` says who wants it)",
            list.join(" and ")
        )
    });
    let past = known.keys().filter(|name| !versions.contains_key(*name)).map(|name| {
        format!("{name}: comes in one version; its line in crates/xtask/src/several-versions.txt may go")
    });
    Ok(unknown.chain(past).collect())
}

/// The lines `NAME WHY` of a list of packages.
fn reasons(list: &str) -> BTreeMap<&str, &str> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
}

/// What cargo knows of the workspace.
struct Metadata {
    packages: Vec<Package>,
}

struct Package {
    name: String,
    licence: String,
    ours: bool,
    manifest: String,
    /// Names of normal dependencies within the workspace.
    depends_on: BTreeSet<String>,
    programs: Vec<String>,
}

impl Metadata {
    fn read() -> Result<Self> {
        let text = output_of(&cargo(), &["metadata", "--format-version", "1", "--locked"])?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
        let packages = value["packages"].as_array().ok_or("cargo metadata: no packages")?;
        let packages = packages.iter().map(Package::from_json).collect::<Vec<_>>();
        Ok(Self { packages })
    }

    fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.ours)
    }

    fn licences(&self) -> Vec<String> {
        let bad = self.packages.iter().filter(|package| !is_permitted(&package.licence));
        bad.map(|package| {
            format!("{}: licence {:?} is not one of the permitted", package.name, package.licence)
        })
        .collect()
    }

    fn unmaintained(&self) -> Vec<String> {
        let banned = reasons(UNMAINTAINED);
        let found = self.packages.iter().filter_map(|package| Some((package, banned.get(&*package.name)?)));
        found.map(|(package, why)| format!("{}: {why}", package.name)).collect()
    }

    /// `sys` alone may lift the workspace's lints, which keep unsafe code out of the others.
    fn careless_crates(&self) -> Vec<String> {
        let kept = |package: &&Package| {
            let text = fs::read_to_string(&package.manifest).unwrap_or_default();
            let whole = text.contains("[lints]\nworkspace = true");
            whole || package.name == "sys" || text.contains(concat!("unsa", "fe_code = \"deny\""))
        };
        let careless = self.ours().filter(|package| !kept(package));
        careless
            .map(|package| format!("{}: its manifest lets code in that is not safe", package.name))
            .collect()
    }

    /// `crates/README.md` has a table of who may depend on whom; it must be what the Cargo.toml files say.
    fn dependency_table(&self) -> Vec<String> {
        let page = fs::read_to_string(root().join("crates/README.md")).unwrap_or_default();
        let rows: BTreeMap<&str, BTreeSet<String>> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
                let name = cells.next()?.trim_matches('`').trim();
                let list = cells.next()?.split(',').map(|item| item.trim().trim_matches('`').to_owned());
                Some((name, list.filter(|item| !item.is_empty() && item != "–").collect()))
            })
            .collect();
        let ours: BTreeSet<&str> = self.ours().map(|package| package.name.as_str()).collect();
        let mut wrong = Vec::new();
        for package in self.ours() {
            let depends_on: BTreeSet<String> =
                package.depends_on.iter().filter(|name| ours.contains(name.as_str())).cloned().collect();
            if rows.get(package.name.as_str()) != Some(&depends_on) {
                let list: Vec<String> = depends_on.iter().map(|name| format!("`{name}`")).collect();
                let list = if list.is_empty() { "–".into() } else { list.join(", ") };
                wrong.push(format!(
                    "crates/README.md: the table needs the row | `{}` | {list} |",
                    package.name
                ));
            }
        }
        wrong
    }

    fn programs_without_page(&self) -> Result<Vec<String>> {
        let pages: BTreeSet<String> = man::pages()?
            .iter()
            .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
            .collect();
        let programs = self
            .ours()
            .filter(|package| !["xtask", "fuzz", "suite"].contains(&package.name.as_str()))
            .flat_map(|package| &package.programs);
        Ok(programs
            .filter(|name| !pages.contains(*name))
            .map(|name| format!("{name}: no manual page"))
            .collect())
    }
}

impl Package {
    fn from_json(value: &serde_json::Value) -> Self {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let is_program = |target: &&serde_json::Value| list(&target["kind"]).iter().any(|kind| kind == "bin");
        Self {
            name: text(&value["name"]),
            licence: text(&value["license"]),
            ours: value["source"].is_null(),
            manifest: text(&value["manifest_path"]),
            depends_on: list(&value["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| text(&dependency["name"]))
                .collect(),
            programs: list(&value["targets"])
                .iter()
                .filter(is_program)
                .map(|target| text(&target["name"]))
                .collect(),
        }
    }
}

/// Whether one alternative of a licence expression is permitted in all its parts.
fn is_permitted(expression: &str) -> bool {
    let known = |part: &str| LICENCES.contains(&part) || PUBLIC_DOMAIN.contains(&part);
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    // `A AND (B OR C)` read as `A AND B OR C` errs on the strict side only where each is looked at by itself.
    if expression.contains('(') {
        return plain.split(" OR ").flat_map(|part| part.split(" AND ")).all(|part| known(part.trim()))
            || plain.split(" AND ").all(|part| part.split(" OR ").any(|part| known(part.trim())));
    }
    plain.split(" OR ").any(|alternative| alternative.split(" AND ").all(|part| known(part.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_found_in_each_of_its_forms() {
        let word = concat!("unsa", "fe");
        for form in [
            "{} { f() }",
            "{}{f()}",
            "{} impl Send for X {}",
            "    pub {} fn f() {",
            "#[{}(no_mangle)]",
            "#![allow({}_code)]",
        ] {
            assert!(is_unsafe(&form.replacen("{}", word, 1)), "{form}");
        }
        assert!(
            !is_unsafe(&format!("// {word} is what this is not")) && !is_unsafe(&format!("let {word}r = 1;"))
        );
    }

    #[test]
    fn licences_are_read_as_expressions() {
        assert!(is_permitted("MIT OR Apache-2.0"));
        assert!(is_permitted("Unlicense/MIT"));
        assert!(is_permitted("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_permitted("GPL-3.0 OR MIT"));
        assert!(!is_permitted("AGPL-3.0-only"));
        assert!(!is_permitted("MIT AND GPL-3.0"));
        assert!(!is_permitted(""));
    }
}
