//! Turns `parameters.toml` into a static table and one typed constant per parameter, so that a program pays nothing for
//! it when it starts. A mistake in the table stops the build.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#type: String,
    default: String,
    unit: Option<String>,
    min: Option<u64>,
    max: Option<u64>,
    #[serde(default)]
    choices: Vec<String>,
    users: Vec<String>,
    doc: String,
    implemented: bool,
    inert: Option<String>,
    instead: Option<String>,
    deprecated: Option<String>,
    #[serde(default = "yes")]
    listed: bool,
}

fn yes() -> bool {
    true
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=parameters.toml");
    println!("cargo::rerun-if-changed=build.rs");
    let source = fs::read_to_string("parameters.toml")?;
    let table: BTreeMap<String, Entry> = toml::from_str(&source)?;
    check_order(&source)?;

    let mut rows =
        String::from("/// Every parameter, sorted by name.\npub static PARAMETERS: &[Parameter] = &[\n");
    let mut constants = String::new();
    for (index, (name, entry)) in table.iter().enumerate() {
        let (kind, rust_type) =
            kind_of(entry).ok_or_else(|| format!("{name}: unknown type {}", entry.r#type))?;
        write_row(&mut rows, name, entry, kind)?;
        write_constant(&mut constants, name, entry, index, rust_type)?;
    }
    rows.push_str("];\n");

    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("table.rs"), rows)?;
    fs::write(Path::new(&out).join("constants.rs"), constants)?;
    Ok(())
}

/// People look parameters up by eye: the file stays sorted.
fn check_order(source: &str) -> Result<(), Box<dyn Error>> {
    let names: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
        .map(|name| name.trim_matches('"'))
        .collect();
    match names.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!("parameters.toml: {} must stand before {}", pair[1], pair[0]).into()),
        None => Ok(()),
    }
}

fn kind_of(entry: &Entry) -> Option<(&'static str, &'static str)> {
    Some(match entry.r#type.as_str() {
        "string" if entry.choices.is_empty() => ("Text", "String"),
        "string" => ("Choice", "String"),
        "raw" => ("Raw", "String"),
        "bool" => ("Bool", "bool"),
        "int" => ("Int", "u64"),
        "time" => ("Time", "Duration"),
        "list" => ("List", "Vec<String>"),
        "path" => ("Path", "PathBuf"),
        "rate" => ("Rate", "crate::Rate"),
        "feedback" => ("Feedback", "crate::Feedback"),
        _ => return None,
    })
}

fn write_row(rows: &mut String, name: &str, entry: &Entry, kind: &str) -> Result<(), Box<dyn Error>> {
    let Entry { default, choices, users, doc, implemented, inert, instead, deprecated, listed, .. } = entry;
    let unit = match (&entry.unit, kind) {
        (Some(unit), _) => unit.chars().next().unwrap_or('s'),
        (None, "Time") => default.chars().last().filter(char::is_ascii_alphabetic).unwrap_or('s'),
        _ => 's',
    };
    if !doc.ends_with('.') {
        return Err(format!("{name}: the doc sentence lacks its full stop").into());
    }
    writeln!(
        rows,
        "Parameter {{ name: {name:?}, kind: Kind::{kind}, default: {default:?}, unit: {unit:?}, minimum: {}, maximum: {}, \
         choices: &{choices:?}, users: &{users:?}, doc: {doc:?}, implemented: {implemented}, inert: {inert:?}, instead: {instead:?}, deprecated: {deprecated:?}, \
         listed: {listed} }},",
        entry.min.unwrap_or(0),
        entry.max.unwrap_or(u64::MAX),
    )?;
    Ok(())
}

fn write_constant(
    out: &mut String,
    name: &str,
    entry: &Entry,
    index: usize,
    rust_type: &str,
) -> Result<(), Box<dyn Error>> {
    // A Rust identifier cannot begin with a digit.
    let identifier = match name.strip_prefix('2') {
        Some(rest) => format!("DOUBLE_{}", rest.to_uppercase()),
        None => name.to_uppercase(),
    };
    let doc = entry.doc.replace('[', "\\[").replace(']', "\\]").replace('<', "\\<");
    writeln!(out, "/// `{name}`: {doc}\npub const {identifier}: Param<{rust_type}> = Param::new({index});")?;
    Ok(())
}
