//! What a run cost: processor time by control group, memory by `smaps_rollup`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::shell::Result;

/// One number that a run came to, and what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure(pub &'static str, pub f64);

/// What a stretch of a run took.
pub struct Stretch<'a> {
    group: &'a Group,
    began: Instant,
    cpu: Duration,
}

impl<'a> Stretch<'a> {
    /// Begins one.
    pub fn begin(group: &'a Group) -> Self {
        Self { group, began: Instant::now(), cpu: group.cpu() }
    }

    /// What it cost, for so many messages: rate, processor time of all daemons, memory at the end.
    pub fn end(&self, messages: usize) -> Vec<Figure> {
        let (elapsed, cpu) = (self.began.elapsed(), self.group.cpu().saturating_sub(self.cpu));
        vec![
            Figure("messages per second", messages as f64 / elapsed.as_secs_f64()),
            Figure("CPU ms per message", cpu.as_secs_f64() * 1000.0 / messages as f64),
            Figure("memory at the end MiB", mib(self.group.memory())),
        ]
    }
}

/// KiB as MiB.
pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
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

    /// Proportional memory of its processes of this name, in KiB.
    pub fn memory_of(&self, program: &str) -> u64 {
        let is_wanted = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program)
        };
        self.pids().into_iter().filter(is_wanted).filter_map(pss_of).sum()
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
