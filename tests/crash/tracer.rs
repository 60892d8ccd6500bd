//! Follows programs and all that they start with ptrace(2), and stops each of their system calls that changes the disk
//! or tells somebody something: before it, and after it.
//!
//! Contract: one such call is under way at a time, over all programs that share a [`Watch`], so that what is seen is
//! the order in which it happened. A program that was told to die before a call has not made it; one that was told to
//! die after it has made no other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{Call, Effect, Process};

/// What a crash takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The program that makes the call.
    Program,
    /// The whole mail system at once.
    Everything,
}

/// When the crash comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The number of the call, from 0, since the watch was set.
    pub(crate) call: usize,
    /// After the call, or before it.
    pub(crate) after: bool,
    pub(crate) victim: Victim,
}

/// A call that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The program that made it.
    pub(crate) program: String,
    pub(crate) effect: Effect,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut effect = format!("{:?}", self.effect);
        effect.truncate(effect.floor_char_boundary(160));
        write!(f, "{} {effect}", self.program)
    }
}

/// What was seen of all programs that are followed, and when the crash is to come.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The thread whose call is under way.
    holder: Option<Pid>,
    seen: Vec<Seen>,
    calls: usize,
    crash: Option<Crash>,
    struck: Option<String>,
    /// Every thread that is followed.
    threads: HashSet<Pid>,
}

impl Watch {
    /// Forgets what was seen, and strikes at this crash.
    pub(crate) fn set(&self, crash: Option<Crash>) {
        let mut state = self.lock();
        (state.crash, state.struck, state.calls) = (crash, None, 0);
        state.seen.clear();
    }

    /// What was seen since the watch was set.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The call that the crash came at, if it has come.
    pub(crate) fn struck(&self) -> Option<String> {
        self.lock().struck.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call begin, unless another one of the same tracer is under way. Those of other tracers are waited for.
    fn begins(&self, thread: Pid, own: &HashMap<Pid, Thread>) -> bool {
        let mut state = self.lock();
        while let Some(holder) = state.holder {
            if own.contains_key(&holder) {
                return false;
            }
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.holder = Some(thread);
        true
    }

    fn ends(&self, thread: Pid) {
        let mut state = self.lock();
        if state.holder == Some(thread) {
            state.holder = None;
            self.released.notify_all();
        }
    }

    /// Strikes if the crash is to come here; `true` if it does.
    fn strike(&self, process: &Process, call: &Call, after: bool) -> bool {
        let mut state = self.lock();
        let Some(crash) = state.crash.filter(|crash| crash.call == state.calls && crash.after == after)
        else {
            return false;
        };
        if state.struck.is_some() {
            return false;
        }
        state.struck = Some(format!("{} {} {call}", process.program, if after { "after" } else { "before" }));
        match crash.victim {
            Victim::Program => {
                let _ = kill(process.id, Signal::SIGKILL);
            }
            Victim::Everything => {
                state.threads.iter().for_each(|thread| {
                    let _ = kill(*thread, Signal::SIGKILL);
                });
            }
        }
        true
    }

    /// Notes a call that was made, and strikes if the crash is to come after it.
    fn note(&self, process: &Process, call: &Call, effect: Effect) -> bool {
        self.lock().seen.push(Seen { program: process.program.clone(), effect });
        let struck = self.strike(process, call, true);
        self.lock().calls += 1;
        struck
    }
}

/// Programs that are followed.
#[derive(Debug)]
pub(crate) struct Tracer {
    first: Arc<(Mutex<Option<i32>>, Condvar)>,
    #[expect(dead_code, reason = "it ends when the last program has")]
    thread: JoinHandle<()>,
}

impl Tracer {
    /// Runs a command of `sh`'s making, with this input, and follows it.
    pub(crate) fn start(watch: &Arc<Watch>, mut command: Command, input: &[u8]) -> Self {
        let first = Arc::new((Mutex::new(None), Condvar::new()));
        let (watch, told, input) = (Arc::clone(watch), Arc::clone(&first), input.to_vec());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        #[expect(clippy::zombie_processes, reason = "whoever follows a program hears of its end")]
        let thread = std::thread::spawn(move || {
            // Whoever follows must be the thread that asked for it.
            let mut child = command.spawn().expect("start a program to be followed");
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            ptrace::seize(pid, options()).expect("follow a program");
            ptrace::interrupt(pid).expect("stop a program");
            let mut follower = Follower { watch, threads: HashMap::new(), waiting: VecDeque::new() };
            follower.step(pid);
            let mut stdin = child.stdin.take().expect("its input");
            std::thread::spawn(move || {
                // A program that was killed reads nothing.
                let _ = stdin.write_all(b"go\n").and_then(|()| stdin.write_all(&input));
            });
            follower.run(pid, &told);
        });
        Self { first, thread }
    }

    /// Waits for the end of the program that was started, not of those that it has started: its exit status, -1 where
    /// a signal ended it.
    pub(crate) fn wait(&self) -> i32 {
        let (status, ended) = &*self.first;
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(status) = *status {
                return status;
            }
            status = ended.wait(status).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The arguments of a `sh` that becomes this program when it is told to.
pub(crate) fn on_word(program: &str, arguments: &[&str]) -> Vec<String> {
    let script = ["-c", r#"read go && exec "$0" "$@""#, program];
    script.iter().chain(arguments).map(|text| (*text).to_owned()).collect()
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL
}

#[derive(Debug, Default)]
struct Thread {
    process: Option<Process>,
    /// Whether it is between the two stops of a call, and what it is doing where that matters.
    within: bool,
    call: Option<Call>,
}

struct Follower {
    watch: Arc<Watch>,
    threads: HashMap<Pid, Thread>,
    /// Threads that wait for another's call to end.
    waiting: VecDeque<Pid>,
}

impl Follower {
    fn run(&mut self, first: Pid, told: &(Mutex<Option<i32>>, Condvar)) {
        let tell = |status| {
            told.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(status);
            told.1.notify_all();
        };
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::EINTR) => continue,
                Err(_) => break,
                Ok(status) => status,
            };
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    if pid == first {
                        tell(if let WaitStatus::Exited(_, code) = status { code } else { -1 });
                    }
                    self.gone(pid);
                }
                WaitStatus::PtraceSyscall(pid) => self.call(pid),
                WaitStatus::PtraceEvent(pid, _, event) => {
                    let thread = self.thread(pid);
                    if event == nix::libc::PTRACE_EVENT_EXEC {
                        thread.process = None;
                    }
                    go_on(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => {
                    self.thread(pid);
                    go_on(pid, Some(signal));
                }
                _ => {}
            }
        }
        tell(-1);
    }

    /// Has a thread go on to its next stop, and the first time waits for the one that was asked for.
    fn step(&mut self, pid: Pid) {
        waitpid(pid, Some(WaitPidFlag::__WALL)).expect("wait for a program to stop");
        self.thread(pid);
        go_on(pid, None);
    }

    fn thread(&mut self, pid: Pid) -> &mut Thread {
        self.threads.entry(pid).or_insert_with(|| {
            self.watch.lock().threads.insert(pid);
            Thread::default()
        })
    }

    /// A thread is gone, with whatever it was doing.
    fn gone(&mut self, pid: Pid) {
        self.threads.remove(&pid);
        self.watch.lock().threads.remove(&pid);
        self.waiting.retain(|waiting| *waiting != pid);
        self.watch.ends(pid);
        self.admit();
    }

    /// One of the two stops of a call.
    fn call(&mut self, pid: Pid) {
        let thread = self.thread(pid);
        thread.within = !thread.within;
        if !thread.within {
            return self.leave(pid);
        }
        // What died meanwhile has no registers, and needs none.
        let Ok(registers) = ptrace::getregs(pid) else { return };
        if !Call::may_matter(registers.orig_rax) {
            return go_on(pid, None);
        }
        if thread.process.is_none() {
            thread.process = Process::of(pid);
        }
        thread.call = thread.process.as_ref().and_then(|process| Call::read(pid, process, &registers));
        if !thread.call.as_ref().is_some_and(Call::is_brief) {
            return go_on(pid, None);
        }
        self.waiting.push_back(pid);
        self.admit();
    }

    /// Lets the next call begin, if none is under way.
    fn admit(&mut self) {
        while let Some(pid) = self.waiting.front().copied() {
            if !self.watch.begins(pid, &self.threads) {
                return;
            }
            self.waiting.pop_front();
            let Some(thread) = self.threads.get_mut(&pid) else { continue };
            let (Some(process), Some(call)) = (&thread.process, &mut thread.call) else { continue };
            call.begin(pid);
            if self.watch.strike(process, call, false) {
                self.watch.ends(pid);
                continue;
            }
            if let Some(effect) = call.last_word() {
                self.watch.note(process, call, effect);
                self.watch.ends(pid);
                go_on(pid, None);
                continue;
            }
            return go_on(pid, None);
        }
    }

    fn leave(&mut self, pid: Pid) {
        let Some(thread) = self.threads.get_mut(&pid) else { return };
        let Some(call) = thread.call.take() else { return go_on(pid, None) };
        let (Some(process), Ok(registers)) = (&thread.process, ptrace::getregs(pid)) else { return };
        let result = registers.rax.cast_signed();
        if result >= 0
            && let Some(effect) = call.effect(pid, result)
            && self.watch.note(process, &call, effect)
        {
            self.watch.ends(pid);
            return self.admit();
        }
        go_on(pid, None);
        self.watch.ends(pid);
        self.admit();
    }
}

/// What died meanwhile does not go on.
fn go_on(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}
