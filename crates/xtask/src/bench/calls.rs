//! System calls, counted by strace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::shell::Result;

/// Counts the system calls of processes while they run.
pub struct Calls {
    strace: Child,
    report: PathBuf,
}

impl Calls {
    /// Begins to count those of these processes and of what they start.
    pub fn count(pids: &[i32], folder: &Path) -> Result<Self> {
        let report = folder.join("calls");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-c", "-U", "calls,name", "-o"]).arg(&report);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = command.spawn().map_err(|e| format!("run strace: {e}"))?;
        // It has attached when the kernel names it as the tracer of the last process.
        let traced = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        while !pids.iter().all(traced) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { strace, report })
    }

    /// Ends counting; gives all calls and the syncs among them, per message.
    pub fn finish(mut self, messages: usize) -> Result<String> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.strace.id()).unwrap_or(0));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)
            .map_err(|e| format!("end strace: {e}"))?;
        self.strace.wait().map_err(|e| format!("wait for strace: {e}"))?;
        let text = fs::read_to_string(&self.report).map_err(|e| format!("read strace's report: {e}"))?;
        let rows: Vec<(u64, &str)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.parse().ok()?, words.next()?))
            })
            .filter(|(_, name)| *name != "total")
            .collect();
        let each = |count: u64| count as f64 / messages as f64;
        let all: u64 = rows.iter().map(|(count, _)| count).sum();
        let syncs = rows
            .iter()
            .filter(|(_, name)| matches!(*name, "fsync" | "fdatasync"))
            .map(|(count, _)| count)
            .sum();
        let mut often = rows.clone();
        often.sort_by(|a, b| b.cmp(a));
        let often: Vec<String> =
            often.iter().take(12).map(|(count, name)| format!("{name} {:.1}", each(*count))).collect();
        Ok(format!("{:.0} calls, {:.2} syncs ({})", each(all), each(syncs), often.join(", ")))
    }
}
