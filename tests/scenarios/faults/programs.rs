//! The commands under the same faults as the daemons: sendmail and postdrop leave a whole message or none, postmap leaves
//! the table as it was; master reads its configuration anew or goes on with the one that it has; showq or master may be stuck.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scenarios::{Call, Instance, Output, Strace, Tracing, calls, is_root, run, wait_for};

use super::points::{CALLS, Point, points_of};
use super::round::waiting_in;
use crate::site::{NOTE, send, usual};

/// A command under strace, and what it called.
fn traced(site: &Instance, words: &[&str], input: &str, tracing: &Tracing) -> (Output, Vec<Call>) {
    let record = site.path("strace");
    let strace = tracing.command(&record);
    let mut command = site.command("strace");
    command.args(strace.get_args()).arg("--").arg(site.path("sbin").join(words[0])).args(&words[1..]);
    let output = run(command, input.as_bytes());
    (output, calls(&record))
}

/// The points of a command.
fn points(site: &Instance, words: &[&str], input: &str, all_of_them: bool) -> Vec<Point> {
    let (output, calls) = traced(site, words, input, &Tracing::of(CALLS));
    output.ok();
    points_behind(&calls, all_of_them)
}

/// Every kind of call that a program made once it had begun to read its configuration, at each place, with each error;
/// or the first of each kind, and all from there on, with one.
pub(super) fn points_behind(calls: &[Call], all_of_them: bool) -> Vec<Point> {
    points_from(calls, |call| call.text.contains("/etc/main.cf"), all_of_them)
}

/// The same from the first call of a program on that is like this.
pub(super) fn points_from(
    calls: &[Call],
    is_the_first: impl Fn(&Call) -> bool,
    all_of_them: bool,
) -> Vec<Point> {
    let calls = super::ours(calls);
    let first = calls.iter().position(is_the_first).expect("a call to begin with");
    // How many of each kind there are before.
    let before = scenarios::most_per_thread(&calls[..first]);
    let all = scenarios::most_per_thread(&calls);
    let mut points = points_of(&all, all_of_them);
    if !all_of_them {
        points = points.into_iter().map(|point| point.behind(&before)).collect();
    }
    points.retain(|point| point.is_after(&before) && !point.silences());
    points
}

pub(super) fn fails(
    site: &Instance,
    words: &[&str],
    input: &str,
    all_of_them: bool,
    prepare: impl Fn(),
    mut judge: impl FnMut(&Point, &Call, &Output) -> Option<String>,
) {
    let mut wrong = Vec::new();
    let mut count = 0;
    let points = points(site, words, input, all_of_them);
    for point in points {
        prepare();
        let (output, calls) = traced(site, words, input, &point.tracing());
        let Some(call) = calls.iter().find(|call| call.is_injected) else { continue };
        count += 1;
        let verdict = if output.stderr.contains("panicked") {
            Some("a panic".into())
        } else {
            judge(&point, call, &output)
        };
        wrong.extend(verdict.map(|why| format!("{point} at {}({}: {why}: {output:?}", call.name, call.text)));
    }
    println!("{}: {count} faults", words[0]);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The files in maildrop/, finished or not.
fn taken_up(site: &Instance) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.path("queue/maildrop")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn submission_faults(site: &Instance, words: &[&str], input: &str) {
    let queue = site.path("queue");
    let clear = || taken_up(site).iter().for_each(|path| fs::remove_file(path).unwrap());
    fails(site, words, input, true, clear, |point, call, output| {
        let (whole, left) = (waiting_in(&queue), taken_up(site));
        match output.status {
            // The C library keeps its errors to itself, and says that there is no such user.
            67 if call.text.contains("/etc/nsswitch.conf") && left.is_empty() => None,
            // What is at the other end of standard input is its user's.
            65 if call.name == "read" && call.text.starts_with("0<") && left.is_empty() => None,
            0 if whole.len() == 1 => None,
            0 => Some(format!("{} messages", whole.len())),
            75 | 71 if !left.is_empty() && call.name != "unlink" => Some(format!("{left:?} are left")),
            75 | 71 if point.is_worth_a_line() && !output.stderr.contains(point.cause()) => {
                Some("no cause".into())
            }
            75 | 71 => None,
            _ => Some("not the status to try again".into()),
        }
    });
}

#[test]
fn sendmail_and_postdrop_leave_a_whole_message_or_none() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let site = usual().start();
    // Nobody takes anything up.
    site.postroad(&["stop"]).ok();
    let mail = "Subject: note\n\nHello.\n";
    site.run("sendmail", &["ann@box.example.com"], mail).ok();
    let submission = fs::read_to_string(&taken_up(&site)[0]).unwrap();
    submission_faults(&site, &["postdrop", "-r"], &submission);
    submission_faults(&site, &["sendmail", "ann@box.example.com"], mail);
}

#[test]
fn postmap_that_fails_leaves_the_table_as_it_was() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let site = usual().table("table", "key old\n").prepare();
    let value = || site.run("postmap", &["-q", "key", "hash:etc/table"], "").stdout.trim().to_owned();
    fs::write(site.path("etc/table"), "key young\n").unwrap();
    let index = fs::read_dir(site.etc()).unwrap().map(|entry| entry.unwrap().path());
    let indices: Vec<_> = index.filter(|path| path.to_string_lossy().contains("/table.")).collect();
    let [index] = &indices[..] else { panic!("{indices:?}") };
    let old = fs::read(index).unwrap();
    let put_back = |path: &Path| {
        fs::write(path, &old).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    };
    fails(
        &site,
        &["postmap", "etc/table"],
        "",
        true,
        || put_back(index),
        |point, _, output| {
            let found = value();
            match (output.status, &found[..]) {
                (0, "young") => None,
                // Who cannot be sure that the new one lasts says so.
                (_, "old" | "young") if output.status != 0 => (point.is_worth_a_line()
                    && !output.stderr.contains(point.cause()))
                .then(|| "no cause".into()),
                _ => Some(format!("found {found:?}")),
            }
        },
    );
}

/// Starts master under a strace that follows nobody else, and ends it with the mail system.
fn start_traced(site: &Instance, arguments: &[&str], seen: impl FnOnce()) {
    let mut command = site.command("strace");
    command.arg("--output").arg(site.path("strace")).args(arguments).arg("--");
    command.arg(site.path("sbin/master")).arg("-c").arg(site.etc()).stderr(Stdio::null());
    let mut strace = command.spawn().expect("run strace");
    site.wait_for_log(&["master[", "daemon started"]);
    seen();
    site.postroad(&["stop"]).ok();
    strace.wait().expect("the end of strace");
}

#[test]
fn a_daemon_that_gets_no_thread_for_its_log_writes_each_line_itself() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let site = usual().start();
    site.postroad(&["stop"]).ok();
    let log = || fs::write(site.path("log"), "").unwrap();
    log();
    start_traced(&site, &["--trace=clone3"], || ());
    let record = fs::read_to_string(site.path("strace")).unwrap();
    let mut calls = record.lines().filter(|line| line.starts_with("clone3("));
    let first = calls.position(|line| line.contains("CLONE_THREAD")).expect("a thread");
    log();
    let inject = format!("--inject=clone3:error=EAGAIN:when={}", first + 1);
    start_traced(&site, &["--trace=clone3", &inject], || {
        site.wait_for_log(&["warning: start the thread of the log: ", "temporarily unavailable"]);
        send(&site, "", &["ann@box.example.com"], NOTE);
        site.wait_for_mail("ann", 1);
    });
}

#[test]
fn a_reload_that_fails_leaves_what_runs() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let site = usual().start();
    for error in ["EMFILE", "ENOSPC", "EIO"] {
        let log = site.log().len();
        let tracing = Tracing {
            calls: "openat".into(),
            fault: Some(format!("openat:error={error}")),
            when: "1+".into(),
            ..Tracing::default()
        };
        let strace = Strace::attach(&site.pids("master"), &tracing, &site.path("strace"));
        let output = site.postroad(&["reload"]);
        let hit = strace.detach();
        let told = || site.log()[log..].to_owned();
        println!("{error}: {} faults; {output:?}", hit.len());
        assert!(!hit.is_empty() && !told().contains("panicked"), "{error}");
        let names_file = || ["main.cf", "master.cf"].iter().any(|name| told().contains(name));
        wait_for("a line that names the file", || names_file().then_some(()));
        send(&site, "", &["ann@box.example.com"], NOTE);
        site.wait_for_empty_queue();
        site.postroad(&["reload"]).ok();
        send(&site, "", &["ann@box.example.com"], NOTE);
        site.wait_for_empty_queue();
    }
}

#[test]
fn a_showq_that_says_nothing_is_not_waited_for_without_end() {
    let site = usual().main("ipc_timeout = 2s").start();
    site.run("postqueue", &["-p"], "").ok();
    let stopped = site.pids("showq");
    signal(&stopped, Signal::SIGSTOP);
    for option in ["-p", "-j"] {
        let output = site.run("postqueue", &[option], "");
        assert!(
            output.status == 69 && output.stderr.contains("showq says nothing for 2 seconds"),
            "{output:?}"
        );
    }
    signal(&stopped, Signal::SIGCONT);
    site.run("postqueue", &["-p"], "").ok();
}

fn signal(pids: &[i32], signal: Signal) {
    pids.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).unwrap());
}

#[test]
fn a_master_that_says_nothing_is_not_waited_for_without_end() {
    let site = usual().main("ipc_timeout = 1s").start();
    // So that a server answers, for which master is needed to start it.
    drop(site.smtp());
    let stuck = site.pids("master");
    signal(&stuck, Signal::SIGSTOP);
    let way_out = format!("`kill -KILL {}`, then `postroad start`", stuck[0]);
    for command in ["status", "reload", "logrotate", "stop", "abort"] {
        let output = site.postroad(&[command]);
        assert!(
            output.status == 1
                && output.stderr.contains("master says nothing for 1 s")
                && output.stderr.contains(&way_out),
            "{command}: {output:?}"
        );
    }
    let doctor = site.postroad(&["doctor", "--offline"]);
    assert!(doctor.stdout.contains("master says nothing for 1 s"), "{doctor:?}");
    // What it was told to do, it does when it goes on: it ends.
    signal(&stuck, Signal::SIGCONT);
    wait_for("the end of master", || site.pids("master").is_empty().then_some(()));
    // And the way out is one.
    site.start();
    let stuck = site.pids("master");
    signal(&stuck, Signal::SIGSTOP);
    signal(&stuck, Signal::SIGKILL);
    wait_for("the end of master", || site.pids("master").is_empty().then_some(()));
    site.start();
    send(&site, "", &["ann@box.example.com"], NOTE);
    site.wait_for_mail("ann", 1);
}
