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

    let mut rows = Rows::default();
    let mut constants = String::new();
    for (index, (name, entry)) in table.iter().enumerate() {
        let (kind, rust_type) =
            kind_of(entry).ok_or_else(|| format!("{name}: unknown type {}", entry.r#type))?;
        rows.add(name, entry, kind)?;
        write_constant(&mut constants, name, entry, index, rust_type)?;
    }

    let out = env::var("OUT_DIR")?;
    let (table, texts) = rows.finish()?;
    fs::write(Path::new(&out).join("table.rs"), table)?;
    fs::write(Path::new(&out).join("texts"), texts)?;
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

/// The rows of the table in the making, and the texts that they point into.
#[derive(Default)]
struct Rows {
    /// What stands in a row beside its places.
    numbers: Vec<(usize, usize, String)>,
    /// Names and defaults.
    keys: String,
    /// Everything else.
    rest: String,
}

impl Rows {
    fn add(&mut self, name: &str, entry: &Entry, kind: &str) -> Result<(), Box<dyn Error>> {
        let Entry { default, doc, implemented, listed, .. } = entry;
        let unit = match (&entry.unit, kind) {
            (Some(unit), _) => unit.chars().next().unwrap_or('s'),
            (None, "Time") => default.chars().last().filter(char::is_ascii_alphabetic).unwrap_or('s'),
            _ => 's',
        };
        if !doc.ends_with('.') {
            return Err(format!("{name}: the doc sentence lacks its full stop").into());
        }
        let places = (self.keys.len(), self.rest.len());
        let mut lengths = Vec::new();
        for text in [name, default] {
            lengths.push(length(text)?);
            self.keys.push_str(text);
        }
        let (choices, users) = (words(&entry.choices), words(&entry.users));
        let optional = [&entry.inert, &entry.instead, &entry.deprecated].map(Option::as_deref);
        for text in [Some(choices.as_str()), Some(&users), Some(doc)].into_iter().chain(optional) {
            lengths.push(text.map_or(Ok("NONE".to_owned()), length)?);
            self.rest.push_str(text.unwrap_or_default());
        }
        let numbers = format!(
            "lengths: [{}], minimum: {}, maximum: {}, kind: Kind::{kind}, unit: b{unit:?}, implemented: {implemented}, listed: {listed}",
            lengths.join(", "),
            entry.min.unwrap_or(0),
            entry.max.unwrap_or(u64::MAX),
        );
        self.numbers.push((places.0, places.1, numbers));
        Ok(())
    }

    fn finish(self) -> Result<(String, String), Box<dyn Error>> {
        let mut table = format!("static ROWS: [Row; {}] = [\n", self.numbers.len());
        for (key, rest, numbers) in &self.numbers {
            writeln!(table, "Row {{ key_at: {key}, rest_at: {}, {numbers} }},", self.keys.len() + rest)?;
        }
        table.push_str("];\n");
        Ok((table, self.keys + &self.rest))
    }
}

fn length(text: &str) -> Result<String, Box<dyn Error>> {
    let length = u16::try_from(text.len()).ok().filter(|length| *length < u16::MAX);
    Ok(length.ok_or_else(|| format!("too long for the table: {text}"))?.to_string())
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\n")).collect()
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
