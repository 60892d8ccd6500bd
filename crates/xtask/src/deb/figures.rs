//! What the package and the installed system take, beside Debian's Postfix on the same machine.

use super::machine::Machine;
use crate::shell::Result;

/// A mail system, and what it is measured by.
pub struct Figures {
    /// KiB that its package has, is when unpacked, and that its idle processes share of the memory.
    package: u64,
    installed: u64,
    idle: u64,
    /// How many processes that is.
    processes: usize,
}

/// The processes of a mail system, known by where their programs are, with each one's share of what several have in common.
const SHARES: &str = r#"for process in /proc/[0-9]*; do
    case $(readlink $process/exe) in
        /usr/lib/postroad/*|/usr/lib/postfix/*|/usr/sbin/postroad) awk '/^Pss:/ { print $2 }' $process/smaps_rollup ;;
    esac
done"#;

impl Figures {
    /// Of an installed package of which all programs have been needed once, some seconds after the last was.
    pub fn of(machine: &Machine, package: &str, archive_kib: u64) -> Result<Self> {
        let format = "--showformat=${Installed-Size}";
        let installed = machine.run(&["dpkg-query", "--show", format, package])?;
        let shares = machine.run(&["sh", "-c", SHARES])?;
        let shares: Vec<u64> = shares.lines().filter_map(|line| line.trim().parse().ok()).collect();
        Ok(Self {
            package: archive_kib,
            installed: installed.trim().parse().map_err(|e| format!("{package}: {installed:?}: {e}"))?,
            idle: shares.iter().sum(),
            processes: shares.len(),
        })
    }

    /// One line.
    pub fn print(&self, name: &str) {
        println!(
            "  {name}: package {} KiB, installed {} KiB, idle {} KiB in {} processes",
            self.package, self.installed, self.idle, self.processes
        );
    }
}
