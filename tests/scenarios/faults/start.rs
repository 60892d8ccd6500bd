//! The start under faults: master's own, and that of `postroad start`. It comes up, or ends with a line that says what failed
//! and why. Nothing hangs, and nobody is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scenarios::{Instance, PATIENCE, Tracing, calls, is_root, messages, run};

use super::WANTED;
use super::points::{CALLS, CALLS_OF_A_START, Point};
use super::programs::points_behind;
use super::round::{SERVER_PATIENCE, open, tail, transfer};
use crate::site::{NOTE, usual};

/// Far longer than a start takes.
const LONG: Duration = PATIENCE;

/// How long a line of the log may take that comes beside what is waited for.
const MOMENT: Duration = Duration::from_secs(5);

/// Faults that may last and of which master need tell nobody, and why: in the call, or in what it is about.
const QUIET: [(&str, &str); 4] = [
    ("/log>", "the log itself"),
    ("/proc/", "how much of its memory can be given back"),
    ("statx(", "the length of a file, which only helps to read it"),
    ("recvmsg(", "how a program that it has started is doing, which is asked for by `postroad status`"),
];

pub(super) const SILENT: &str = "silent about what lasts";

/// What became of a start.
#[derive(Debug)]
enum Start {
    /// Mail is taken.
    Serves,
    /// It is up, and the log tells of what fails.
    Complains,
    /// With this status.
    Ended(i32),
    /// None of these.
    Hangs,
}

/// A program under a strace that lets go the programs that it executes.
fn alone(site: &Instance, tracing: &Tracing, program: &str, arguments: &[&str]) -> Command {
    let mut command = site.command("strace");
    command.args(tracing.command(&site.path("strace")).get_args()).arg("--detach-on=execve").arg("--");
    command.arg(site.path("sbin").join(program)).args(arguments);
    command
}

/// A master under strace, which lets go the programs that it starts.
struct Traced<'a> {
    site: &'a Instance,
    strace: Child,
}

impl<'a> Traced<'a> {
    fn start(site: &'a Instance, tracing: &Tracing) -> Self {
        fs::write(site.path("log"), "").expect("empty the log");
        let said = fs::File::create(site.path("said")).expect("make a file");
        let directory = site.etc().display().to_string();
        let mut command = alone(site, tracing, "master", &["-c", &directory, "-f"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        Self { site, strace: command.spawn().expect("run strace") }
    }

    /// All that it has said, in the log and to who started it.
    fn said(&self) -> String {
        let said = fs::read(self.site.path("said")).unwrap_or_default();
        self.site.log() + &String::from_utf8_lossy(&said)
    }

    fn outcome(&mut self, fault: Option<&Point>) -> Start {
        let began = Instant::now();
        while began.elapsed() < LONG {
            if let Some(status) = self.strace.try_wait().expect("look at strace") {
                return Start::Ended(status.code().unwrap_or(-1));
            }
            if open(self.site.port, SERVER_PATIENCE).is_some() {
                return Start::Serves;
            }
            let said = self.said();
            if said.contains("daemon started")
                && fault
                    .is_some_and(|point| (point.lasts() || self.is_everywhere()) && point.is_told_in(&said))
            {
                return Start::Complains;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Start::Hangs
    }

    /// Whether each program that is started meets the fault, in the first calls that it makes: those count anew.
    fn is_everywhere(&self) -> bool {
        let calls = calls(&self.site.path("strace"));
        let mut hit = calls.iter().filter(|call| call.is_injected).map(|call| call.thread);
        hit.next().is_some_and(|first| hit.any(|thread| thread != first))
    }

    /// Ends it as a service manager does; false where that does not help.
    fn stop(mut self) -> bool {
        let began = Instant::now();
        for pid in self.site.pids("master") {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let mut has_ended = || self.strace.try_wait().expect("look at strace").is_some();
        while !has_ended() && began.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(10));
        }
        let in_time = has_ended();
        self.site.kill_all();
        self.strace.wait().expect("the end of strace");
        in_time
    }
}

/// Sends a message and waits for it.
pub(super) fn mail_passes(site: &Instance) -> Result<(), String> {
    let before = messages(&site.maildir("ann")).len();
    let mut client = open(site.port, PATIENCE).ok_or("no greeting")?;
    transfer(&mut client, "", &["ann@box.example.com"], &format!("{NOTE}."))?;
    let began = Instant::now();
    while messages(&site.maildir("ann")).len() == before {
        if began.elapsed() > LONG {
            return Err("a message does not come".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What is wrong with how master started under this fault; `None` where there was no such call.
fn try_start(site: &Instance, point: &Point) -> Option<Result<&'static str, String>> {
    let mut master = Traced::start(site, &point.tracing());
    let outcome = master.outcome(Some(point));
    let is_right = judge(site, &master, &outcome, point);
    let said = master.said();
    let stopped = master.stop();
    let calls = calls(&site.path("strace"));
    let hit = calls.iter().find(|call| call.is_injected)?;
    let call = format!("{}({}", hit.name, hit.text);
    let is_quiet = QUIET.iter().any(|(text, _)| call.contains(text));
    let verdict = match is_right {
        Err(why) if !(is_quiet && why == SILENT) => Err(why),
        _ if said.contains("panicked") || said.contains(": panic: ") => Err("a panic".into()),
        _ if !stopped => Err("does not stop".into()),
        _ => Ok(match outcome {
            Start::Ended(_) => "ended",
            _ => "came up",
        }),
    };
    Some(verdict.map_err(|why| format!("{point}: {why}; at {call}\n{}", tail(&said))))
}

fn judge(site: &Instance, master: &Traced<'_>, outcome: &Start, point: &Point) -> Result<(), String> {
    let is_told = || !point.is_worth_a_line() || is_said_in_time(|| point.is_told_in(&master.said()));
    match outcome {
        Start::Hangs => Err("hangs".into()),
        Start::Ended(0) => Err("ends with status 0".into()),
        Start::Ended(_) if !is_told() => Err("ended without saying what failed, of what, and why".into()),
        Start::Serves if point.lasts() && !is_told() => Err(SILENT.into()),
        Start::Serves if !point.lasts() => mail_passes(site),
        Start::Ended(_) | Start::Serves | Start::Complains => Ok(()),
    }
}

/// Whether the log has a line now or in a moment.
pub(super) fn is_said_in_time(is_said: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while !is_said() && began.elapsed() < MOMENT {
        std::thread::sleep(Duration::from_millis(10));
    }
    is_said()
}

#[test]
fn a_master_that_cannot_start_says_why_and_leaves_nobody_behind() {
    let Some(all_of_them) = how_many("master") else { return };
    let site = stopped();
    let record = site.path("strace");
    let mut master = Traced::start(&site, &Tracing::of(&format!("{CALLS},{CALLS_OF_A_START}")));
    assert!(matches!(master.outcome(None), Start::Serves), "{}", master.said());
    mail_passes(&site).unwrap();
    let seen = calls(&record);
    assert!(master.stop());
    let (mut wrong, mut outcomes) = (Vec::new(), BTreeMap::new());
    for point in points_behind(&seen, all_of_them) {
        match try_start(&site, &point) {
            None => *outcomes.entry("found no such call").or_insert(0) += 1,
            Some(Ok(outcome)) => *outcomes.entry(outcome).or_insert(0) += 1,
            Some(Err(why)) => wrong.push(why),
        }
    }
    println!("master: {outcomes:?}");
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    site.start();
    mail_passes(&site).unwrap();
}

#[test]
fn a_command_that_cannot_start_the_mail_system_says_why() {
    let Some(all_of_them) = how_many("postroad") else { return };
    let site = stopped();
    let record = site.path("strace");
    let start = |tracing: &Tracing| run(alone(&site, tracing, "postroad", &["start"]), b"");
    start(&Tracing::of(&format!("{CALLS},{CALLS_OF_A_START}"))).ok();
    let seen = calls(&record);
    let (mut wrong, mut hits) = (Vec::new(), 0);
    for point in points_behind(&seen, all_of_them) {
        site.postroad(&["stop"]);
        site.kill_all();
        let output = start(&point.tracing());
        let calls = calls(&record);
        let Some(hit) = calls.iter().find(|call| call.is_injected) else { continue };
        hits += 1;
        let why = match output.status {
            _ if output.stderr.contains("panicked") => "a panic",
            0 if open(site.port, PATIENCE).is_none() => "nobody serves",
            0 => continue,
            // A connection that finds no place is refused so, after the time that it may take.
            _ if output.stderr.contains("master says nothing for ") => continue,
            _ if point.is_worth_a_line() && !output.stderr.contains(point.cause()) => "no cause",
            _ => continue,
        };
        wrong.push(format!("{point}: {why}: {output:?}; at {}({}", hit.name, hit.text));
    }
    println!("postroad start: {hits} faults");
    assert!(wrong.is_empty(), "{} wrong of {hits}\n{}", wrong.len(), wrong.join("\n"));
}

/// A mail system that ran once, so that what is made once is there.
fn stopped() -> Instance {
    let site = usual().start();
    site.postroad(&["stop"]).ok();
    site
}

/// Whether all points of a program are tried, or a few; `None` for none of them.
pub(super) fn how_many(program: &str) -> Option<bool> {
    let is_wanted = is_root("faults in the place of system calls") && super::is_wanted(program);
    is_wanted.then(|| std::env::var_os(WANTED).is_some())
}
