//! Every call of the system fails once: what was acknowledged is delivered, what was not is refused for now and said why.
//!
//! Each daemon is recorded while a round of mail passes. Then the round is repeated with an error in the place of the
//! first, second, … call of each kind, and in the place of all calls from there on; after that the fault goes away and
//! nobody helps. The run in short has one error for each kind of call, from the first call on; `cargo xtask faults` has
//! them all.

mod abroad;
mod births;
mod clock;
mod disks;
mod maildirs;
mod operator;
mod points;
mod programs;
pub(crate) mod round;
mod start;

use std::collections::BTreeMap;

use scenarios::{Call, PATIENCE, Strace, Tracing, is_root, most_per_thread};

use points::{CALLS, Point, points_of};
use round::{Round, Site, Ways};

/// Who is made to fail, and in what order, on which ways of mail. Master makes no call while mail passes.
const DAEMONS: [(Ways, &[&str]); 5] = [
    (Ways::Usual, &["cleanup", "pickup", "qmgr", "virtual", "local", "bounce", "smtp", "smtpd", "showq"]),
    (Ways::Early, &["cleanup", "qmgr"]),
    (Ways::Other, &["lmtp", "pipe", "error", "discard", "verify", "anvil"]),
    (Ways::Screened, &["postscreen", "spawn"]),
    (Ways::Abroad, &["smtp", "smtpd"]),
];

/// Faults that may last and of which nobody need be told, and why: in the program and its call.
const QUIET: [(&str, &str); 12] = [
    ("eventfd", "a wake-up that nobody waits for"),
    ("/etc/nsswitch.conf", "the C library keeps it to itself, and looks where it usually looks"),
    ("userdb", "the same"),
    ("/etc/passwd", "the C library asks its next source, one of which knows `nobody` without any file"),
    ("data/verify_cache", "complained of once in a while"),
    ("\"\\23\\0\\0\\0\\0", "a word that spares cleanup a sync, and which it does not wait for long"),
    (
        "pickup recvfrom(",
        "who is not heard at its socket goes through maildrop/, and nobody shall fill the log from there",
    ),
    ("pickup setsockopt(", "the same"),
    ("pickup sendto(", "the same"),
    ("showq sendto(", "who lists the queue hears that the list was cut off"),
    ("showq setsockopt(", "how long a reader of the list may take"),
    ("etc/virtual.db", "complained of once for each reason, which the fault before may have been"),
];

/// Which points are tried: `all`, or daemons by their names, or one kind of a daemon's calls, as `showq:openat`, or that
/// with one error, as `showq:openat:EIO`; not set for the run in short.
const WANTED: &str = "POSTROAD_FAULTS";

/// How long a line of the log may take.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// What came of the points of one daemon.
#[derive(Default)]
struct Tally {
    hit: usize,
    missed: usize,
    refused: usize,
    duplicates: usize,
    /// Faults of which the log says nothing.
    silent: Vec<String>,
    wrong: Vec<String>,
}

#[test]
fn every_call_of_every_daemon_may_fail() {
    every_call_may_fail(Ways::Usual);
}

#[test]
fn every_call_of_an_early_delivery_may_fail() {
    every_call_may_fail(Ways::Early);
}

#[test]
fn every_call_of_the_other_agents_may_fail() {
    every_call_may_fail(Ways::Other);
}

#[test]
fn every_call_of_the_screening_and_of_spawn_may_fail() {
    every_call_may_fail(Ways::Screened);
}

#[test]
fn every_call_for_tls_and_the_dns_may_fail() {
    every_call_may_fail(Ways::Abroad);
}

fn every_call_may_fail(ways: Ways) {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let all = std::env::var_os(WANTED).is_some();
    let daemons = DAEMONS.iter().filter(|(of, _)| *of == ways).flat_map(|(_, daemons)| *daemons);
    let daemons = daemons.filter(|name| is_wanted(name));
    let site = Site::with(ways);
    // What is done once is done: sessions of the daemons with each other are open then.
    let mut warm = Round::send_within(&site, PATIENCE);
    warm.settle(&site).expect("a round without a fault");
    let mut wrong = Vec::new();
    for daemon in daemons {
        let tally = try_daemon(&site, daemon, all);
        println!(
            "{daemon}: {} faults, {} that found no such call; {} messages refused, {} delivered once more than needed; {} faults the log is silent about",
            tally.hit,
            tally.missed,
            tally.refused,
            tally.duplicates,
            tally.silent.len()
        );
        tally.silent.iter().for_each(|line| println!("  silent: {line}"));
        wrong.extend(tally.wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether some of a program's points are tried.
fn is_wanted(program: &str) -> bool {
    is_named(&[program])
}

/// Whether this point of a program that is tried is among them.
fn is_wanted_at(program: &str, point: &Point) -> bool {
    is_named(&[program, point.call(), point.error()])
}

fn is_named(names: &[&str]) -> bool {
    let wanted = std::env::var(WANTED).ok();
    let is_meant = |word: &str| word.split(':').zip(names).all(|(wanted, name)| wanted == *name);
    wanted.is_none_or(|wanted| wanted == "all" || wanted.split(',').any(is_meant))
}

#[test]
fn a_slow_disk_costs_time_and_nothing_else() {
    if !is_root("a slow disk") {
        return;
    }
    let site = Site::start();
    Round::send_within(&site, PATIENCE).settle(&site).expect("a round on a fast disk");
    let slow = |call: &str| Tracing {
        calls: call.to_owned(),
        fault: Some(format!("{call}:delay_exit=300000")),
        when: "1+".to_owned(),
        ..Tracing::default()
    };
    for (daemon, call) in
        [("cleanup", "fsync"), ("virtual", "fdatasync"), ("local", "fdatasync"), ("qmgr", "unlinkat")]
    {
        let strace = Strace::attach(&pids(&site, daemon), &slow(call), &site.record());
        let mut round = Round::send_within(&site, PATIENCE);
        let settled = round.settle(&site);
        let calls = strace.detach();
        assert!(!calls.is_empty(), "{daemon} made no {call}");
        assert_eq!((settled, round.refused), (Ok(0), Vec::new()), "{daemon} {call}");
    }
}

fn try_daemon(site: &Site, daemon: &str, all: bool) -> Tally {
    let recorded = record(site, daemon);
    let mut tally = Tally::default();
    for point in points_of(&recorded, all).iter().filter(|point| is_wanted_at(daemon, point)) {
        if let Err(error) = try_point(site, daemon, point, &mut tally) {
            println!("  WRONG {daemon} {point}: {error}");
            tally.wrong.push(format!("{daemon} {point}: {error}"));
        }
    }
    tally
}

/// How many calls of each kind the busiest thread of a daemon makes in a round.
fn record(site: &Site, daemon: &str) -> BTreeMap<String, usize> {
    let strace = Strace::attach(&pids(site, daemon), &Tracing::of(CALLS), &site.record());
    let mut round = Round::send_within(site, PATIENCE);
    let settled = round.settle(site);
    let calls = strace.detach();
    settled.unwrap_or_else(|error| panic!("{daemon} under strace without a fault: {error}"));
    most_per_thread(&ours(&calls))
}

fn ours(calls: &[Call]) -> Vec<Call> {
    calls.iter().filter(|call| !is_the_librarys(call)).cloned().collect()
}

/// Whether the standard library asks its own socket, not a peer's, whether a program that it starts was executed. Such a
/// call fails only where it is interrupted: the library ends itself on anything else, when the program has ended.
fn is_the_librarys(call: &Call) -> bool {
    call.name == "recvfrom" && call.text.contains(", 8, 0, NULL, NULL)")
}

/// Whether the standard library, built with checks, looks whether a descriptor is open; other errors mean that it is.
fn is_a_check(call: &Call) -> bool {
    call.name == "fcntl" && call.text.contains(", F_GETFD")
}

/// The daemon's processes; it is there, as there was mail before, or comes up with the next.
fn pids(site: &Site, daemon: &str) -> Vec<i32> {
    let began = std::time::Instant::now();
    scenarios::wait_for(&format!("{daemon} to be there"), || {
        if site.pids(daemon).is_empty() {
            Round::wake(site);
            assert!(began.elapsed() < PATIENCE / 2, "no {daemon}:\n{}", round::tail(&site.log()));
        }
        Some(site.pids(daemon)).filter(|pids| !pids.is_empty())
    })
}

fn try_point(site: &Site, daemon: &str, point: &Point, tally: &mut Tally) -> Result<(), String> {
    let log_before = site.log().len();
    let strace = Strace::attach(&pids(site, daemon), &point.tracing(), &site.record());
    let mut round = Round::send(site);
    round.wait_a_little(site);
    let calls = strace.detach();
    let settled = round.settle(site);
    let log = site.log().get(log_before..).unwrap_or_default().to_owned();
    let hit: Vec<_> = calls.iter().filter(|call| call.is_injected && !is_a_check(call)).collect();
    let Some(first) = hit.first() else {
        tally.missed += 1;
        return settled.map(drop);
    };
    tally.hit += 1;
    tally.refused += round.refused.len();
    let verdict = settled.map_err(|error| format!("{error}; at {}({}", first.name, first.text));
    tally.duplicates += verdict?;
    if let Some(reply) = round.refused.iter().find(|reply| !point.may_be_answered(reply)) {
        return Err(format!("was answered {reply:?}; at {}({}", first.name, first.text));
    }
    // An event counter takes every write: tokio expects nothing else of it.
    let may_panic = log.contains("failed to wake I/O driver") && first.text.contains("[eventfd]");
    if (log.contains("panicked") || log.contains(": panic: ")) && !may_panic {
        return Err(format!("a panic: {log}"));
    }
    if let Some(left) = left_behind(site, daemon) {
        return Err(format!("nobody waits for its child {left}; at {}({}", first.name, first.text));
    }
    let is_told = point.is_worth_a_line() && !hit.iter().any(|call| call.text.contains("/log>"));
    if is_told && !tells(site, log_before, point) {
        let what = format!("{point} at {}({}", first.name, first.text);
        let about = format!("{daemon} {}({}", first.name, first.text);
        if point.lasts() && !QUIET.iter().any(|(text, _)| about.contains(text)) {
            return Err(format!("nothing in the log tells of {what}:\n{}", round::tail(&log)));
        }
        tally.silent.push(what);
    }
    Ok(())
}

/// A child of a daemon that has ended, and that it does not wait for.
fn left_behind(site: &Site, daemon: &str) -> Option<i32> {
    let began = std::time::Instant::now();
    loop {
        let ended = ended_children(&site.pids(daemon));
        if ended.is_none() || began.elapsed() > PATIENCE {
            return ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// One of the children of these processes that is a zombie, by proc_pid_stat(5).
fn ended_children(parents: &[i32]) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut ended = ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        fields.next() == Some("Z")
            && fields.next().and_then(|parent| parent.parse().ok()).is_some_and(|id| parents.contains(&id))
    });
    ended.next()
}

/// Whether the log says of a fault what it was and what it happened to; a program writes its lines a moment later.
fn tells(site: &Site, log_before: usize, point: &Point) -> bool {
    let began = std::time::Instant::now();
    loop {
        let log = site.log();
        let mut lines = log.get(log_before..).unwrap_or_default().lines();
        if lines.any(|line| point.is_told_by(line)) {
            return true;
        }
        if began.elapsed() > SILENCE {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
