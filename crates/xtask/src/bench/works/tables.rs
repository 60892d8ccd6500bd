//! postmap: making an index, and asking it.
//!
//! Postfix is measured with the types that it is fastest with as well; Debian has those in packages of their own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Instant;

use super::super::Scale;
use super::super::meter::Figure;
use super::super::system::{Side, System};
use crate::peers;
use crate::shell::Result;

/// A type of tables, and what it came to.
struct Kind {
    name: &'static str,
    made: &'static str,
    asked: &'static str,
}

const HASH: Kind = Kind { name: "hash", made: "hash: postmap s", asked: "hash: lookups per second" };
const CDB: Kind = Kind { name: "cdb", made: "cdb: postmap s", asked: "cdb: lookups per second" };
const LMDB: Kind = Kind { name: "lmdb", made: "lmdb: postmap s", asked: "lmdb: lookups per second" };

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let entries = scale.of(1_000_000);
    let (system, kinds) = match side {
        Side::Postroad => (System::prepare(side, &[], "")?, vec![HASH, CDB]),
        Side::Postfix => postfix_with_libraries()?,
    };
    let (mut table, mut keys) = (String::new(), String::new());
    for number in 0..entries {
        let _ = writeln!(
            table,
            "user{number}@host{}.example.com somebody{number}@elsewhere.example",
            number % 1000
        );
        // Neither in their order nor all of them there.
        let asked = number.wrapping_mul(7919) % (entries + entries / 10);
        let _ = writeln!(keys, "user{asked}@host{}.example.com", asked % 1000);
    }
    write(&system, "asked", &keys)?;
    let mut figures = Vec::new();
    for kind in kinds {
        // A table for each, since cdb is what Postroad makes for both.
        let file = write(&system, &format!("{}-table", kind.name), &table)?;
        figures.extend(measure(&system, &kind, &file, entries)?);
    }
    Ok(figures)
}

/// A Postfix that knows the types whose packages can be had, and those types.
fn postfix_with_libraries() -> Result<(System, Vec<Kind>)> {
    // Where it looks for the list of libraries.
    let system = System::prepare(Side::Postfix, &["meta_directory = $root/etc"], "")?;
    let (mut known, mut list) = (vec![HASH], String::new());
    for kind in [CDB, LMDB] {
        let name = kind.name;
        match peers::postfix_tables(name) {
            Ok(library) => {
                let _ = writeln!(list, "{name} {} dict_{name}_open mkmap_{name}_open", library.display());
                known.push(kind);
            }
            Err(error) => println!("  Postfix is not measured with {name}: {error}"),
        }
    }
    write(&system, "dynamicmaps.cf", &list)?;
    Ok((system, known))
}

/// Writes a file beside main.cf; gives its path.
fn write(system: &System, name: &str, text: &str) -> Result<String> {
    let path = system.path("etc").join(name);
    fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

/// Makes the index and asks for all keys.
fn measure(system: &System, kind: &Kind, file: &str, entries: usize) -> Result<[Figure; 2]> {
    let table = format!("{}:{file}", kind.name);
    let began = Instant::now();
    system.run("postmap", &[&table])?;
    let made = began.elapsed();

    let asked = system.path("etc/asked");
    let input = File::open(&asked).map_err(|e| format!("open {}: {e}", asked.display()))?;
    let mut command = system.command("postmap", &["-q", "-", &table]);
    let began = Instant::now();
    let output = command.stdin(input).stdout(Stdio::null()).output();
    let output = output.map_err(|e| format!("run postmap: {e}"))?;
    let elapsed = began.elapsed();
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("postmap -q - {table}: {} {}", output.status, words.trim()));
    }
    let rate = entries as f64 / elapsed.as_secs_f64();
    Ok([Figure(kind.made, made.as_secs_f64()), Figure(kind.asked, rate)])
}
