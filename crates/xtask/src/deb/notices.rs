//! Whose work is linked into the programs, and under which terms: most licences demand that this goes with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::shell::{Result, cargo, output_of};

/// The target that packages are for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Gives a text of all linked crates and of their licences, each licence once.
pub fn collect() -> Result<String> {
    let text =
        output_of(&cargo(), &["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET])?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let linked = linked(&metadata);
    let mut out = String::from(
        "The programs of Postroad contain Rust's standard library (MIT OR Apache-2.0) and these crates:\n\n",
    );
    // A text with the crates that it comes with; equal but for blanks is equal.
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for package in list(&metadata["packages"])
        .iter()
        .filter(|p| linked.contains(text_of(&p["id"])) && !p["source"].is_null())
    {
        let name = format!("{} {}", text_of(&package["name"]), text_of(&package["version"]));
        out.push_str(&format!(
            "{name}: {}, {}\n",
            text_of(&package["license"]),
            text_of(&package["repository"])
        ));
        for text in licences_of(Path::new(text_of(&package["manifest_path"])))? {
            let key = text.split_whitespace().collect::<Vec<_>>().join(" ");
            texts.entry(key).or_insert_with(|| (text, Vec::new())).1.push(name.clone());
        }
    }
    for (text, names) in texts.values() {
        out.push_str(&format!("\n{}\n{}:\n\n{}\n", "=".repeat(72), names.join(", "), text.trim_end()));
    }
    Ok(out)
}

/// The ids of the packages that our programs are linked with.
fn linked(metadata: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|n| (text_of(&n["id"]), n)).collect();
    let packages = list(&metadata["packages"]);
    let is_program = |p: &&Value| p["source"].is_null() && p["name"] != "xtask" && p["name"] != "scenarios";
    let mut open: Vec<&str> = packages.iter().filter(is_program).map(|p| text_of(&p["id"])).collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = open.pop() {
        if linked.insert(id) {
            let dependencies = nodes.get(id).map_or(&[][..], |node| list(&node["deps"]));
            let normal = |d: &&Value| list(&d["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            open.extend(dependencies.iter().filter(normal).map(|dependency| text_of(&dependency["pkg"])));
        }
    }
    linked
}

/// The texts beside a manifest.
fn licences_of(manifest: &Path) -> Result<Vec<String>> {
    let folder = manifest.parent().unwrap_or(manifest);
    let entries = fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let is_notice = |name: &str| {
        ["LICEN", "COPY", "NOTICE", "UNLICENSE"].iter().any(|word| name.to_uppercase().starts_with(word))
    };
    let mut paths: Vec<_> = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| is_notice(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display())))
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
