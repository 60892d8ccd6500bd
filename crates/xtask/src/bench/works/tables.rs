//! postmap: making an index, and asking it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Instant;

use super::super::Scale;
use super::super::meter::Figure;
use super::super::system::{Side, System};
use crate::shell::Result;

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let entries = scale.of(1_000_000);
    let system = System::prepare(side, &[], "")?;
    let path = system.path("etc/table");
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
    fs::write(&path, table).map_err(|e| format!("write {}: {e}", path.display()))?;
    let asked = system.path("etc/asked");
    fs::write(&asked, keys).map_err(|e| format!("write {}: {e}", asked.display()))?;
    let table = format!("hash:{}", path.display());

    let began = Instant::now();
    system.run("postmap", &[&table])?;
    let made = began.elapsed();

    let input = File::open(&asked).map_err(|e| format!("open {}: {e}", asked.display()))?;
    let mut command = system.command("postmap", &["-q", "-", &table]);
    let began = Instant::now();
    let status = command.stdin(input).stdout(Stdio::null()).status();
    let status = status.map_err(|e| format!("run postmap: {e}"))?;
    let elapsed = began.elapsed();
    if !status.success() {
        return Err(format!("{side} postmap -q: {status}"));
    }
    Ok(vec![
        Figure("postmap hash s", made.as_secs_f64()),
        Figure("lookups per second", entries as f64 / elapsed.as_secs_f64()),
    ])
}
