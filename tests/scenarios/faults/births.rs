//! The start of daemons under faults, from the first word of master's on: a daemon comes up, or ends with a line that says
//! what failed and why; mail is put off meanwhile, and passes by itself when the fault is gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scenarios::{Call, Instance, Tracing, calls, messages};

use super::points::{CALLS, CALLS_OF_A_START, CALLS_OF_THE_SANDBOX, Point};
use super::programs::points_from;
use super::round::{SERVER_PATIENCE, open, tail, transfer};
use super::start::{SILENT, how_many, is_said_in_time, mail_passes};
use crate::site::{NOTE, usual};

/// How long a program has to come up or to say why not.
const LONG: Duration = Duration::from_secs(20);

/// Faults that may last and of which nobody need be told, and why: in the call, or in what it is about.
const QUIET: [(&str, &str); 13] = [
    ("/log>", "the log itself"),
    ("/proc/", "how much of its memory can be given back"),
    ("/sys/", "the same, and how many processors there are"),
    ("/zoneinfo/", "the log is in UTC then"),
    ("sendto(3<", "how it is doing, which is for `postroad status`"),
    (
        "statx(AT_FDCWD<",
        "whether what the configuration names is a folder; the folder that it is in is opened otherwise",
    ),
    ("statx(0<", "the standard library asks whether there is such a call"),
    ("PR_SET_NAME", "the name of a thread"),
    ("PR_SET_VMA", "the name of a piece of memory"),
    ("F_GETFD", "the standard library, built with checks, looks whether a descriptor is open"),
    ("LANDLOCK_CREATE_RULESET_VERSION", "who cannot say its version is none, which `postroad status` tells"),
    ("^[^A-Z]", "a pattern in a value that is looked at as a path"),
    ("sched_setscheduler", "it works as well, at a higher price"),
];

/// A mail system one of whose programs is started under strace while there is a file that says how.
struct Traced {
    site: Instance,
    program: &'static str,
}

impl Traced {
    fn new(program: &'static str) -> Self {
        let traced = Self { site: usual().start(), program };
        traced.site.postroad(&["stop"]).ok();
        let (place, real) = (traced.site.path("sbin").join(program), traced.real());
        fs::create_dir(traced.site.path("real")).unwrap();
        fs::rename(&place, &real).unwrap();
        let (how, real) = (traced.how().display().to_string(), real.display().to_string());
        let script = format!(
            "#!/bin/sh\nif test \"$1\" != check -a -e {how}; then exec strace $(cat {how}) -- {real} \"$@\"; fi\n\
             exec {real} \"$@\"\n"
        );
        fs::write(&place, script).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        traced
    }

    fn real(&self) -> PathBuf {
        self.site.path("real").join(self.program)
    }

    /// The file with strace's arguments.
    fn how(&self) -> PathBuf {
        self.site.path("etc/strace")
    }

    fn record(&self) -> PathBuf {
        self.site.path("strace")
    }

    /// Starts the mail system, with the program under strace, and sends a message, which may be refused.
    fn start(&self, tracing: &Tracing) {
        let _ = fs::remove_file(self.record());
        fs::write(self.site.path("log"), "").unwrap();
        let command = tracing.command(&self.record());
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        fs::write(self.how(), words.join(" ")).unwrap();
        self.site.start();
        if let Some(mut client) = open(self.site.port, SERVER_PATIENCE) {
            let _ = transfer(&mut client, "", &["ann@box.example.com"], &format!("{NOTE}."));
        }
    }

    /// The fault goes away: a program that it may last for is ended, as a crash would.
    fn let_go(&self, point: &Point) {
        let _ = fs::remove_file(self.how());
        if point.lasts() {
            for pid in self.site.pids(&self.real().display().to_string()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// What the program itself has to say.
    fn said(&self) -> String {
        let (log, name) = (self.site.log(), format!("/{}[", self.program));
        log.lines().filter(|line| line.contains(&name)).collect::<Vec<_>>().join("\n")
    }

    fn stop(&self) {
        self.site.postroad(&["stop"]);
        self.site.kill_all();
        for pid in self.site.pids(&self.real().display().to_string()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let mailbox = self.site.maildir("ann").join("new");
        let mail = fs::read_dir(mailbox).into_iter().flatten().flatten();
        mail.for_each(|entry| drop(fs::remove_file(entry.path())));
    }

    /// What came of a start with this fault; `None` where there was no such call.
    fn try_point(&self, point: &Point) -> Option<Result<&'static str, String>> {
        self.start(&point.tracing());
        let told = || point.is_told_in(&self.said());
        let has_passed = || !messages(&self.site.maildir("ann")).is_empty();
        let began = Instant::now();
        while !told() && !has_passed() && began.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What lasts and does no harm is told all the same, and every end is.
        let ends = || self.site.log().contains("next start in ");
        let hit = calls(&self.record()).into_iter().find(|call| call.is_injected);
        let hit = hit.map(|call| format!("{}({}", call.name, call.text));
        let is_quiet = hit.iter().any(|call| QUIET.iter().any(|(text, _)| call.contains(text)));
        let is_owed = !is_quiet && point.is_worth_a_line() && (point.lasts() || ends());
        let is_told = !is_owed || is_said_in_time(told);
        let has_ended = ends();
        self.let_go(point);
        let verdict = hit.map(|call| {
            let verdict = match self.judge() {
                Ok(()) if !is_told => Err(SILENT.into()),
                Ok(()) => Ok(if has_ended { "ended" } else { "came up" }),
                Err(why) => Err(why),
            };
            verdict.map_err(|why| format!("{point}: {why}; at {call}\n{}", tail(&self.site.log())))
        });
        self.stop();
        verdict
    }

    /// When the fault is gone, mail passes, if not at once: a table that could not be read is looked at again after a while.
    fn judge(&self) -> Result<(), String> {
        let began = Instant::now();
        while let Err(why) = mail_passes(&self.site) {
            if !why.starts_with('4') || began.elapsed() > LONG {
                return Err(why);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = self.site.log();
        if log.contains("panicked") || log.contains(": panic: ") { Err("a panic".into()) } else { Ok(()) }
    }
}

fn every_call_of_a_start_may_fail(program: &'static str) {
    let Some(all_of_them) = how_many(program) else { return };
    let traced = Traced::new(program);
    traced.start(&Tracing::of(&format!("{CALLS},{CALLS_OF_A_START},{CALLS_OF_THE_SANDBOX}")));
    mail_passes(&traced.site).unwrap();
    let seen = calls(&traced.record());
    traced.stop();
    let (mut wrong, mut outcomes) = (Vec::new(), BTreeMap::new());
    // What master says is the first that comes over its socket.
    let hears = |call: &Call| call.name == "recvmsg" && call.text.starts_with("3<");
    for point in points_from(&seen, hears, all_of_them) {
        if !super::is_wanted_at(program, &point) {
            continue;
        }
        match traced.try_point(&point) {
            None => *outcomes.entry("found no such call").or_insert(0) += 1,
            Some(Ok(outcome)) => *outcomes.entry(outcome).or_insert(0) += 1,
            Some(Err(why)) => {
                println!("  WRONG start of {program} {why}");
                wrong.push(why);
            }
        }
    }
    println!("start of {program}: {outcomes:?}");
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_queue_manager_that_cannot_start_says_why_and_mail_waits_for_it() {
    every_call_of_a_start_may_fail("qmgr");
}

#[test]
fn a_server_that_cannot_start_says_why_and_mail_waits_for_it() {
    every_call_of_a_start_may_fail("smtpd");
}
