//! strace: the system calls of programs that run, and errors in the place of some of them.
//!
//! The number of a call counts for each thread by itself, and from the moment of attaching: `when=3` is the third such
//! call of every thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Instance, peer, wait_for};

/// What strace is asked to do.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// The calls that are recorded, as strace's `-e trace=` wants them.
    pub calls: String,
    /// Only those that name this file or folder, or have it open.
    pub about: Option<PathBuf>,
    /// What is injected, as strace's `--inject=` wants it, without `when=`: `write:error=ENOSPC`.
    pub fault: Option<String>,
    /// Which of a thread's calls: `3`, `3+`.
    pub when: String,
}

impl Tracing {
    /// Records these calls and injects nothing.
    #[must_use]
    pub fn of(calls: &str) -> Self {
        Self { calls: calls.to_owned(), ..Self::default() }
    }

    /// A strace that writes to `record`; what is to be traced follows.
    #[must_use]
    pub fn command(&self, record: &Path) -> Command {
        let mut command = peer("strace");
        command.args(["--follow-forks", "--decode-fds=path", "--string-limit=80", "--output"]);
        command.arg(record).arg(format!("--trace={}", self.calls));
        if let Some(path) = &self.about {
            command.arg("--trace-path").arg(path);
        }
        if let Some(fault) = &self.fault {
            command.arg(format!("--inject={fault}:when={}", self.when));
        }
        command
    }
}

/// A strace at work on processes that run. Dropping it lets them go.
pub struct Strace {
    child: Child,
    record: PathBuf,
}

impl Strace {
    /// Attaches to these processes and all of their threads. A program that one of them executes is let go: its calls are
    /// its own.
    ///
    /// # Panics
    /// When strace is missing or may not.
    #[must_use]
    pub fn attach(pids: &[i32], tracing: &Tracing, record: &Path) -> Self {
        let mut command = tracing.command(record);
        command.arg("--detach-on=execve");
        for pid in pids {
            command.arg("--attach").arg(pid.to_string());
        }
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("run strace");
        wait_for("strace to attach", || pids.iter().all(|pid| is_traced(*pid)).then_some(()));
        Self { child, record: record.to_owned() }
    }

    /// Starts a mail system that was prepared, with all programs that its master starts.
    ///
    /// # Panics
    /// When strace is missing, or the mail system does not start.
    #[must_use]
    pub fn start(site: &Instance, tracing: &Tracing) -> Self {
        let record = site.path("strace");
        site.postroad(&["check"]).ok();
        let mut command = site.command("strace");
        command.args(tracing.command(&record).get_args()).arg("--");
        command.arg(site.path("sbin/master")).arg("-c").arg(site.etc());
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("run strace");
        site.wait_for_log(&["master[", "daemon started"]);
        Self { child, record }
    }

    /// Lets the processes go, and gives what they have called.
    #[must_use]
    pub fn detach(mut self) -> Vec<Call> {
        self.end();
        calls(&self.record)
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("the id of a process");
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        let _ = self.child.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether all threads of a process are traced; one that is gone is no obstacle.
fn is_traced(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let mut states = threads.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    states.all(|state| !state.contains("\nTracerPid:\t0\n"))
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub thread: i32,
    /// Its name.
    pub name: String,
    /// What stands between the parentheses, and what came of it.
    pub text: String,
    /// Whether strace answered it in the kernel's place.
    pub is_injected: bool,
}

/// The calls of a record, each where it began.
#[must_use]
pub fn calls(record: &Path) -> Vec<Call> {
    let text = String::from_utf8_lossy(&fs::read(record).unwrap_or_default()).into_owned();
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let rest = rest.trim_start();
        let is_injected = rest.ends_with("(INJECTED)");
        if rest.starts_with("<... ") {
            let ending = rest.split_once(" resumed>").map_or("", |(_, ending)| ending);
            if let Some(call) = unfinished.remove(&thread).and_then(|at: usize| calls.get_mut(at)) {
                call.text.push_str(ending);
                call.is_injected |= is_injected;
            }
        } else if let Some((name, text)) = rest.split_once('(') {
            if text.ends_with("<unfinished ...>") {
                unfinished.insert(thread, calls.len());
            }
            let text = text.trim_end_matches("<unfinished ...>").to_owned();
            calls.push(Call { thread, name: name.to_owned(), text, is_injected });
        }
    }
    calls
}

/// How many calls of each name the busiest thread made.
#[must_use]
pub fn most_per_thread(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for call in calls {
        *counts.entry((&call.name, call.thread)).or_default() += 1;
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((name, _), count) in counts {
        let entry = most.entry(name.to_owned()).or_default();
        *entry = count.max(*entry);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_calls_in_pieces_are_put_together() {
        let record = tempfile::NamedTempFile::new().expect("make a file");
        let text = "7 write(3</tmp/a>, \"x\", 1) = -1 ENOSPC (No space left on device) (INJECTED)\n\
                    8 fsync(4</tmp/b> <unfinished ...>\n\
                    7 write(3</tmp/a>, \"x\", 1) = 1\n\
                    8 <... fsync resumed>) = 0\n\
                    8 +++ exited with 0 +++\n";
        fs::write(record.path(), text).expect("write a record");
        let calls = calls(record.path());
        let found: Vec<_> =
            calls.iter().map(|call| (call.thread, call.name.as_str(), call.is_injected)).collect();
        assert_eq!(found, [(7, "write", true), (8, "fsync", false), (7, "write", false)]);
        assert!(calls[1].text.ends_with("= 0"), "{calls:?}");
        assert_eq!(most_per_thread(&calls), BTreeMap::from([("fsync".into(), 1), ("write".into(), 2)]));
    }
}
