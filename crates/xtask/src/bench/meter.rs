//! What a run cost: processor time by control group, memory by `smaps_rollup`, system calls by strace.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::shell::Result;

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Messages.
    pub messages: usize,
    /// From the first byte sent to the last message delivered.
    pub elapsed: Duration,
    /// Processor time of all daemons.
    pub cpu: Duration,
    /// Proportional memory of all daemons at the end, in KiB.
    pub memory: u64,
}

/// A column of the table: its name and its value.
type Column = (&'static str, fn(&Figures) -> f64);

/// The columns.
pub const COLUMNS: [Column; 3] = [
    ("messages per second", |f| f.messages as f64 / f.elapsed.as_secs_f64()),
    ("CPU ms per message", |f| f.cpu.as_secs_f64() * 1000.0 / f.messages as f64),
    ("memory at the end MiB", |f| f.memory as f64 / 1024.0),
];

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rate, cpu, memory] = COLUMNS.map(|(_, value)| value(self));
        write!(f, "{rate:.0} messages/s, {cpu:.3} ms CPU each, {memory:.1} MiB")
    }
}

/// A control group that counts the processor time of what runs in it, also of what has ended.
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let base = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"];
        let base = base.iter().map(Path::new).find(|path| path.join("cgroup.procs").exists());
        let base = base.ok_or("no control groups under /sys/fs/cgroup to count processor time with")?;
        let path = base.join(format!("postroad-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
        Ok(Self { path })
    }

    /// Has a command and all it starts run in the group.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("sh");
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        wrapped.args(["-c", &join, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        wrapped
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        if let Ok(text) = fs::read_to_string(self.path.join("cpuacct.usage")) {
            return Duration::from_nanos(text.trim().parse().unwrap_or(0));
        }
        let text = fs::read_to_string(self.path.join("cpu.stat")).unwrap_or_default();
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        Duration::from_micros(micros.unwrap_or(0))
    }

    /// The processes in it.
    pub fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Proportional memory of all processes in it, in KiB.
    pub fn memory(&self) -> u64 {
        self.pids().iter().filter_map(|pid| pss_of(*pid)).sum()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

fn pss_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}

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
