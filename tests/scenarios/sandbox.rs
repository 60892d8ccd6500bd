//! What the kernel holds the running daemons to. What that makes impossible is tried from the inside by the tests of
//! `service`; here is that every daemon of a mail system that root has started is held so, in each of its threads.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use scenarios::{Instance, Smtp, Strace, Tracing, free_port, is_root, wait_for};

use crate::rights::user;
use crate::screening;
use crate::site::{NOTE, only_mail, send, usual};

/// The programs that are held to files, ports and system calls and have given up all of root's rights.
const CONFINED: [&str; 13] = [
    "smtpd",
    "postscreen",
    "smtp",
    "lmtp",
    "cleanup",
    "pickup",
    "qmgr",
    "showq",
    "bounce",
    "error",
    "discard",
    "anvil",
    "verify",
];

/// CHOWN to SETUID of capabilities(7) without KILL: what delivery to mailboxes takes.
const DELIVERY: u64 = 0b1101_1111;

/// The same with KILL and SYS_CHROOT: who starts commands.
const COMMANDS: u64 = 0b1111_1111 | 1 << 18;

/// `SCHED_OTHER` and `SCHED_BATCH` of sched(7).
const INTERRUPTS: &str = "0";
const INTERRUPTS_NOBODY: &str = "3";

/// How the threads of a program are scheduled: field 41 of proc_pid_stat(5), the second of which, in brackets, is a name.
fn policies(site: &Instance, program: &str) -> Vec<String> {
    let pid = wait_for(program, || site.pids(program).first().copied());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    texts
        .map(|text| text.rsplit_once(')').unwrap().1.split_whitespace().nth(38).unwrap().to_owned())
        .collect()
}

/// What a thread's `status` says of these.
fn states(site: &Instance, program: &str) -> Vec<BTreeMap<String, String>> {
    let pid = wait_for(program, || site.pids(program).first().copied());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let parse = |text: String| {
        let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    texts.map(parse).collect()
}

/// What no confined program has any of, and every other as it was started: the names of proc_pid_limits(5).
const DENIED: [&str; 4] =
    ["Max core file size", "Max msgqueue size", "Max realtime priority", "Max locked memory"];

/// Who has as many files open as the system allows: one for each session, or for each message.
const MANY_FILES: [&str; 3] = ["smtpd", "postscreen", "qmgr"];

/// The limits of a process, each with what it reaches and how far it may be raised.
fn limits(pid: i32) -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let mut lines = text.lines();
    // The columns are wide, and names have spaces.
    let head = lines.next().unwrap();
    let columns = ["Soft", "Hard", "Units"].map(|name| head.find(name).unwrap());
    let cell = |line: &str, from: usize, to: usize| line[from..to.min(line.len())].trim().to_owned();
    let parse = |line: &str| {
        let [soft, hard, units] = columns;
        (cell(line, 0, soft), (cell(line, soft, hard), cell(line, hard, units)))
    };
    lines.map(parse).collect()
}

/// What is wrong with the limits of a program, given those of the master that started it.
fn wrong_limits(
    site: &Instance,
    program: &str,
    inherited: &BTreeMap<String, (String, String)>,
) -> Vec<String> {
    let is_confined = CONFINED.contains(&program) || program == "virtual";
    let expect = |(name, limits): (&String, &(String, String))| {
        let limits = match name.as_str() {
            name if is_confined && DENIED.contains(&name) => ("0".to_owned(), "0".to_owned()),
            "Max open files" if MANY_FILES.contains(&program) => (limits.1.clone(), limits.1.clone()),
            _ => limits.clone(),
        };
        (name.clone(), limits)
    };
    let expected: BTreeMap<_, _> = inherited.iter().map(expect).collect();
    assert!(DENIED.iter().all(|name| expected.contains_key(*name)), "{expected:?}");
    let pids = site.pids(program);
    assert!(!pids.is_empty(), "no {program}");
    let found = pids.into_iter().flat_map(limits);
    found
        .filter(|(name, limits)| expected.get(name) != Some(limits))
        .map(|(name, limits)| format!("{program}: {name}: {limits:?}, expected {:?}", expected.get(&name)))
        .collect()
}

fn number(state: &BTreeMap<String, String>, name: &str) -> u64 {
    u64::from_str_radix(&state[name], 16).unwrap()
}

fn status_of(site: &Instance, program: &str) -> String {
    wait_for(&format!("the state of {program}"), || {
        let status = site.postroad(&["status"]).stdout;
        let mark = format!(": {program} pid ");
        status.lines().find(|line| line.contains(&mark) && line.contains("sandbox: ")).map(str::to_owned)
    })
}

#[test]
fn every_running_daemon_is_held_to_its_row() {
    if !is_root("what daemons are held to") {
        return;
    }
    let screened = free_port();
    let site = usual()
        .as_root()
        .main("postscreen_access_list =")
        .master(&screening::services(&format!("127.0.0.1:{screened}")))
        .master("smtp unix - - n - - smtp\nlmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil")
        .master("verify unix - - n - 1 verify\ncat unix - n n - - pipe user=games argv=/bin/cat")
        .master("policy unix - n n - - spawn user=games argv=/bin/cat")
        .start();
    if site.postroad(&["status"]).stdout.contains("this kernel lacks") {
        println!("SKIPPED: this kernel lacks a part of the sandbox");
        return;
    }
    let _sessions = (site.smtp(), Smtp::connect_silently(screened));
    // Master starts a program when somebody connects to its service.
    let sockets = ["public/cleanup", "public/qmgr", "public/showq", "private/bounce", "private/error"];
    let more = ["discard", "local", "virtual", "smtp", "lmtp", "anvil", "verify", "cat", "policy"];
    let sockets = sockets.map(str::to_owned).into_iter().chain(more.map(|name| format!("private/{name}")));
    let connect = |name: String| UnixStream::connect(site.path("queue").join(name)).unwrap();
    let _connections: Vec<_> = sockets.map(connect).collect();

    let owner = user("news").uid.to_string();
    for program in CONFINED {
        assert!(status_of(&site, program).ends_with("sandbox: full"), "{}", status_of(&site, program));
        for state in states(&site, program) {
            let found = [&state["Seccomp"], &state["NoNewPrivs"]].map(String::as_str);
            assert_eq!(found, ["2", "1"], "{program}: {state:?}");
            let capabilities = ["CapEff", "CapPrm", "CapBnd", "CapAmb"].map(|name| number(&state, name));
            assert_eq!(capabilities, [0; 4], "{program}: {state:?}");
            assert_eq!(state["Uid"].split('\t').collect::<Vec<_>>(), [owner.as_str(); 4], "{program}");
        }
        let policies = policies(&site, program);
        assert!(policies.iter().all(|policy| policy == INTERRUPTS_NOBODY), "{program}: {policies:?}");
    }
    for state in states(&site, "virtual") {
        assert_eq!((state["Seccomp"].as_str(), state["NoNewPrivs"].as_str()), ("2", "1"), "{state:?}");
        assert_eq!((number(&state, "CapPrm") & !DELIVERY, number(&state, "CapBnd")), (0, 0), "{state:?}");
    }
    for program in ["local", "pipe", "spawn"] {
        assert!(status_of(&site, program).contains("sandbox: capabilities only, it starts"));
        for state in states(&site, program) {
            // Commands of users may execute postdrop, which is set-gid.
            assert_eq!(state["NoNewPrivs"], "0", "{program}");
            assert_eq!(number(&state, "CapPrm") & !COMMANDS, 0, "{program}: {state:?}");
        }
        let policies = policies(&site, program);
        assert!(policies.iter().all(|policy| policy == INTERRUPTS), "{program}: {policies:?}");
    }
    let inherited = limits(site.pids("master")[0]);
    let all = CONFINED.iter().chain(&["virtual", "local", "pipe", "spawn"]);
    let wrong: Vec<String> = all.flat_map(|program| wrong_limits(&site, program, &inherited)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_part_can_be_left_out_for_a_service_and_that_is_told() {
    let site = usual().master("other unix - - n - - discard -o sandbox=files,ports").start();
    let _connection = UnixStream::connect(site.path("queue/private/other")).unwrap();
    site.wait_for_log(&[
        "discard[",
        "warning: parameter sandbox: this process is not confined to its system calls",
    ]);
    assert!(status_of(&site, "discard").ends_with("sandbox: without system calls"));
    let discard = states(&site, "discard");
    assert!(discard.iter().all(|state| state["Seccomp"] == "0"), "{discard:?}");
}

#[test]
fn who_acts_as_users_has_no_more_of_root_than_that_takes_without_a_sandbox_either() {
    if !is_root("what of root's power agents keep") {
        return;
    }
    let site = usual().as_root().main("sandbox = no").start();
    for (program, kept) in [("local", COMMANDS), ("virtual", DELIVERY)] {
        let _connection = UnixStream::connect(site.path("queue/private").join(program)).unwrap();
        // It can tell when it has given up what it does without.
        assert!(status_of(&site, program).contains("sandbox: "));
        for state in states(&site, program) {
            let capabilities = ["CapEff", "CapPrm"].map(|name| number(&state, name) & !kept);
            assert_eq!(capabilities, [0; 2], "{program}: {state:?}");
        }
    }
}

#[test]
fn what_the_kernel_lacks_is_told_and_mail_passes_without() {
    if !is_root("a kernel that lacks a part of the sandbox") {
        return;
    }
    for (call, error, lacks, state) in [
        ("landlock_create_ruleset", "EOPNOTSUPP", "lacks Landlock", "sandbox: without files, ports"),
        ("seccomp", "EINVAL", "lacks seccomp", "sandbox: without system calls"),
    ] {
        let site = usual().prepare();
        let fault = Some(format!("{call}:error={error}"));
        let _strace = Strace::start(
            &site,
            &Tracing { calls: call.into(), fault, when: "1+".into(), ..Tracing::default() },
        );
        site.wait_for_log(&["master[", "warning: sandbox: this kernel ", lacks]);
        assert!(site.postroad(&["status"]).stdout.contains(lacks), "{lacks}");
        assert!(status_of(&site, "qmgr").ends_with(state), "{}", status_of(&site, "qmgr"));
        send(&site, "", &["ann@box.example.com"], NOTE);
        site.wait_for_mail("ann", 1);
        site.postroad(&["stop"]).ok();
    }
}

/// Routes by the table in this folder from here on.
fn set_routes(site: &Instance, folder: &Path) {
    let setting = format!("transport_maps=texthash:{}/routes", folder.display());
    site.run("postconf", &[&setting], "").ok();
    site.postroad(&["reload"]).ok();
}

/// The queue manager takes a reload without a restart, unless the configuration goes beyond what it was confined to.
#[test]
fn a_reload_that_names_another_place_has_the_queue_manager_begin_anew() {
    let site = usual().start();
    let manager = || site.pids("qmgr");
    let before = manager();
    site.write("etc/routes", "elsewhere.example local\n");
    set_routes(&site, &site.etc());
    send(&site, "a@b.example", &[&format!("{}@example.com", site.user())], NOTE);
    only_mail(&site, site.user());
    assert_eq!(manager(), before);

    let folder = site.path("elsewhere");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("routes"), "example.com discard:\n").unwrap();
    set_routes(&site, &folder);
    site.wait_for_log(&[
        "qmgr[",
        "the configuration names what this process is confined from; it begins anew",
    ]);
    wait_for("another queue manager", || manager().iter().any(|pid| !before.contains(pid)).then_some(()));
    let id = send(&site, "a@b.example", &[&format!("{}@example.com", site.user())], NOTE);
    site.wait_for_log(&[&id, "relay=none", "status=sent"]);
}
