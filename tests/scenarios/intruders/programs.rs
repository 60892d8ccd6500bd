//! postdrop and postqueue have the rights of a group that their user has not: whatever he hands them, he gets no more than
//! mail submitted.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Pid, mkfifo};
use scenarios::{Instance, Output, is_root, run, wait_for};

use super::{assert_kept, prepared, secret, site};
use crate::rights::{RECIPIENT, as_games, make_set_gid, user};
use crate::site::only_mail;

const MAIL: &str = "Subject: from games\n\nHello.\n";

/// The mail system with its set-gid programs as they are installed; nobody takes up what is submitted before
/// [`assert_taken`].
fn installed() -> Instance {
    // Where only some may submit mail, all of it goes through postdrop.
    let site = prepared(site().main("authorized_submit_users = !nobody, static:all"));
    ["postdrop", "postqueue"].iter().for_each(|program| make_set_gid(&site, program));
    site
}

/// A shell command of the user's, in which `$postdrop` and so on are the installed programs.
fn shell(site: &Instance, script: &str, input: &str) -> Output {
    let programs = ["postdrop", "postqueue", "sendmail"]
        .map(|name| format!("{name}={}\n", site.path("sbin").join(name).display()));
    run(as_games(site, &["bash", "-c", &format!("{}{script}", programs.concat())]), input.as_bytes())
}

fn maildrop(site: &Instance) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(site.path("queue/maildrop")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The message came, whole, and in his name.
fn assert_taken(site: &Instance) {
    let mail = only_mail(site, RECIPIENT);
    assert!(mail.contains(&format!("from userid {}", user(RECIPIENT).uid)), "{mail}");
    assert!(mail.ends_with("\n\nHello.\n"), "{mail}");
    assert_kept(site);
}

#[test]
fn a_hostile_environment_means_nothing_to_set_gid_programs() {
    if !is_root("a hostile environment") {
        return;
    }
    let site = installed();
    let hostile = "exec /usr/bin/env LD_PRELOAD=/nowhere/evil.so LD_LIBRARY_PATH=/nowhere LD_AUDIT=/nowhere/evil.so \
        PATH=/nowhere IFS=/ TZ=:/etc/shadow LC_ALL=../../evil LANG=../../evil NLSPATH=/nowhere/%N \
        LOCALDOMAIN=evil RES_OPTIONS=debug HOSTALIASES=/etc/shadow MALLOC_TRACE=/etc/evil GCONV_PATH=/nowhere \
        RUST_BACKTRACE=full RUST_LOG=trace BASH_ENV=/nowhere ENV=/nowhere TMPDIR=/nowhere HOME=/ LOGNAME=root USER=root \
        HUGE=$(printf %0100000d 0)";
    let listed = shell(&site, &format!("{hostile} $postqueue -p"), "").ok();
    assert_eq!((listed.stdout.as_str(), listed.stderr.as_str()), ("Mail queue is empty\n", ""));
    // sendmail has no rights of its own and is his to break; postdrop is not.
    let made = shell(&site, "exec $sendmail -f games@example.com games@example.com", MAIL);
    assert_eq!(made.status, 0, "{made:?}");
    assert_taken(&site);
    let refused = shell(&site, &format!("{hostile} $postdrop -r"), "no submission");
    assert_eq!(refused.status, 65, "{refused:?}");
    assert!(refused.stderr.starts_with("postdrop: fatal: malformed submission"), "{refused:?}");
    assert!(!Path::new("/etc/evil").exists());
    assert!(maildrop(&site).is_empty());
}

#[test]
fn a_configuration_of_ones_own_costs_the_rights_of_the_group() {
    if !is_root("a configuration of one's own") {
        return;
    }
    let site = installed();
    // His main.cf names the true queue: with the rights of the group it would be his to fill and to ask.
    let evil = site.path("home/games/etc");
    fs::create_dir(&evil).unwrap();
    let queue = site.path("queue");
    fs::write(evil.join("main.cf"), format!("queue_directory = {}\n", queue.display())).unwrap();
    for program in ["$postdrop -r", "$postqueue -f", "$postqueue -p"] {
        for way in ["MAIL_CONFIG=$HOSTILE exec {}", "exec {} -c $HOSTILE"] {
            let script = format!("HOSTILE={}\n{}", evil.display(), way.replace("{}", program));
            let output = shell(&site, &script, MAIL);
            assert_ne!(output.status, 0, "{script}: {output:?}");
            let told = ["rights", "alternate_config_directories", "Permission denied"];
            assert!(told.iter().any(|words| output.stderr.contains(words)), "{script}: {output:?}");
        }
    }
    assert!(maildrop(&site).is_empty());
}

#[test]
fn hostile_arguments_are_refused_or_mail() {
    if !is_root("hostile arguments") {
        return;
    }
    let site = installed();
    let long = "x".repeat(100_000);
    for arguments in [
        "-c",
        "-C/etc/shadow",
        "-oQ/etc",
        "-r -r -x",
        "/etc/passwd",
        "--",
        "-c /etc/shadow",
        "-c ../../etc",
        &long,
    ] {
        let output = shell(&site, &format!("exec $postdrop {arguments}"), "");
        assert_ne!(output.status, 0, "{arguments:.40}: {output:?}");
    }
    for arguments in
        ["-i ../../../etc/passwd", "-i '*'", "-s '../../x'", "-i", "-j -p -f", "-c /etc/shadow -p"]
    {
        let output = shell(&site, &format!("exec $postqueue {arguments}"), "");
        assert!(output.status != 0, "{arguments}: {output:?}");
    }
    for recipient in
        ["'|touch /tmp/evil'", "/etc/evil", ":include:/etc/shadow", "$'a\\nb@example.com'", "-oQ/etc"]
    {
        let output = shell(&site, &format!("exec $sendmail -f games@example.com -- {recipient}"), MAIL);
        println!("{recipient}: {}", output.status);
    }
    site.wait_for_empty_queue();
    assert!(!Path::new("/etc/evil").exists() && !Path::new("/tmp/evil").exists());
    assert_kept(&site);
}

#[test]
fn descriptors_that_are_closed_or_too_many_do_no_harm() {
    if !is_root("descriptors") {
        return;
    }
    let site = installed();
    for closed in ["<&-", ">&- 2>&- <&-", "0<&- 2>&-"] {
        let output = shell(&site, &format!("exec $postdrop -r {closed}"), MAIL);
        assert_ne!(output.status, 0, "{closed}: {output:?}");
        assert!(maildrop(&site).is_empty(), "{closed}");
    }
    // What it says must not land in the file that it opens next.
    let many = "ulimit -n 3000; for n in {10..2990}; do eval \"exec $n</dev/null\"; done\n";
    shell(&site, &format!("{many}exec $sendmail -f games@example.com games@example.com >&- 2>&-"), MAIL).ok();
    assert_taken(&site);
    let few = shell(&site, "ulimit -n 4; exec $sendmail games@example.com", MAIL);
    assert_ne!(few.status, 0, "{few:?}");
    assert!(maildrop(&site).is_empty());
}

#[test]
fn nothing_of_the_shell_that_starts_it_reaches_the_mail_system() {
    if !is_root("a start from a strange shell") {
        return;
    }
    for umask in ["0", "777"] {
        let site = site().prepare();
        let secret = secret(&site);
        // Made anew by this start.
        let start = format!(
            "umask {umask}; exec 9< {} <&- >&- 2>&-; EVIL=1 BASH_ENV=/evil LD_BIND_NOT=1 exec {} start",
            secret.display(),
            site.path("sbin/postroad").display()
        );
        let mut command = site.command("bash");
        command.args(["-c", &start]);
        assert_eq!(run(command, b"").status, 0, "{}", site.log());
        let recipient = format!("{RECIPIENT}@example.com");
        assert_eq!(site.run("sendmail", &[&recipient], MAIL).status, 0);
        site.wait_for_mail(RECIPIENT, 1);
        let master = site.pids("master");
        assert_eq!(
            fs::read_to_string(site.path("queue/pid/master.pid")).unwrap(),
            format!("{}\n", master[0])
        );
        let mode = |path: &str| fs::metadata(site.path(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("queue/pid/master.pid"), mode("log") & 0o133), (0o644, 0), "{umask}");
        for program in ["smtpd", "cleanup", "qmgr", "local", "pickup"] {
            for pid in site.pids(program) {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
                let environment = String::from_utf8_lossy(&environment).into_owned();
                assert!(!environment.to_lowercase().contains("evil"), "{program}: {environment}");
                let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
                let names: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
                assert!(!names.contains(&secret), "{program}: {names:?}");
            }
        }
        assert_kept(&site);
    }
}

#[test]
fn small_limits_and_ignored_signals_leave_no_half_message() {
    if !is_root("limits") {
        return;
    }
    let site = installed();
    let large = format!("{MAIL}{}", "0123456789 0123456789 0123456789\n".repeat(3000));
    for limits in
        ["ulimit -f 8", "ulimit -f 0", "trap '' XFSZ; ulimit -f 8", "trap '' PIPE XFSZ TERM; ulimit -f 8"]
    {
        let output = shell(&site, &format!("{limits}; exec $sendmail games@example.com"), &large);
        assert_ne!(output.status, 0, "{limits}: {output:?}");
        assert!(maildrop(&site).is_empty(), "{limits}: {:?}", maildrop(&site));
    }
    shell(
        &site,
        "ulimit -c unlimited; trap '' PIPE HUP; exec $sendmail -f games@example.com games@example.com",
        MAIL,
    )
    .ok();
    assert_taken(&site);
}

#[test]
fn the_umask_of_a_user_changes_nothing() {
    if !is_root("the umask") {
        return;
    }
    for mask in ["000", "777"] {
        let site = installed();
        // Nobody takes it up meanwhile.
        site.postroad(&["stop"]).ok();
        shell(&site, &format!("umask {mask}; exec $sendmail -f games@example.com games@example.com"), MAIL)
            .ok();
        let [file] = maildrop(&site).try_into().unwrap();
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o744, user(RECIPIENT).uid.as_raw()), "{mask}");
        site.start();
        assert_taken(&site);
    }
}

/// A submission that is under way: postdrop has its first part.
fn half_way(site: &Instance) -> (Child, Pid) {
    let program = site.path("sbin/sendmail").display().to_string();
    // Whoever started the tests may have had signals ignored.
    let usual = ["env", "--default-signal"];
    let mut command =
        as_games(site, &[&usual[..], &[&program, "-f", "games@example.com", "games@example.com"]].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let large = format!("{MAIL}{}", "0123456789\n".repeat(30_000));
    child.stdin.as_mut().unwrap().write_all(large.as_bytes()).unwrap();
    let pid = wait_for("postdrop to be at work", || site.pids("postdrop").first().copied());
    wait_for("the file", || (!maildrop(site).is_empty()).then_some(()));
    (child, Pid::from_raw(pid))
}

#[test]
fn a_submission_that_is_stopped_goes_on_and_one_that_is_ended_leaves_nothing_to_deliver() {
    if !is_root("signals") {
        return;
    }
    let site = installed();
    let (mut child, postdrop) = half_way(&site);
    kill(postdrop, Signal::SIGSTOP).unwrap();
    kill(postdrop, Signal::SIGTSTP).unwrap();
    kill(postdrop, Signal::SIGCONT).unwrap();
    child.stdin.take().unwrap().write_all(b"\nHello.\n").unwrap();
    assert!(child.wait().unwrap().success());
    let mail = only_mail(&site, RECIPIENT);
    assert!(mail.ends_with("0123456789\n\nHello.\n"));
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGXCPU, Signal::SIGKILL]
    {
        let (mut child, postdrop) = half_way(&site);
        kill(postdrop, signal).unwrap();
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success(), "{signal}");
        assert!(signal == Signal::SIGKILL || maildrop(&site).is_empty(), "{signal}");
        for file in maildrop(&site) {
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o111, 0, "{signal}");
            fs::remove_file(file).unwrap();
        }
    }
    site.try_all();
    only_mail(&site, RECIPIENT);
}

#[test]
fn what_is_planted_in_maildrop_is_set_aside_and_harms_nobody() {
    if !is_root("a planted maildrop") {
        return;
    }
    let site = installed();
    let secret = secret(&site);
    // Somebody has got the rights of the group.
    let folder = site.path("queue/maildrop");
    let at = |name: &str| folder.join(name);
    symlink(&secret, at("symlink")).unwrap();
    fs::hard_link(&secret, at("hardlink")).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    mknod(&at("device"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
    fs::create_dir(at("folder")).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).map(drop).unwrap();
    fs::write(at("garbage"), [0xff; 5000]).unwrap();
    fs::set_permissions(at("garbage"), fs::Permissions::from_mode(0o744)).unwrap();
    fs::write(at("$(touch evil)\n.."), "x").unwrap();
    fs::set_permissions(at("$(touch evil)\n.."), fs::Permissions::from_mode(0o744)).unwrap();
    shell(&site, "exec $sendmail -f games@example.com games@example.com", MAIL).ok();
    assert_taken(&site);
    // What nobody but root could read or move stays, and is not taken up.
    wait_for("the others to be set aside", || {
        site.try_all();
        let mut left: Vec<_> =
            maildrop(&site).iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        left.sort();
        (left == ["folder", "hardlink"]).then_some(())
    });
    for name in ["symlink", "fifo", "device", "socket", "garbage"] {
        assert!(site.path("queue/corrupt").join(name).symlink_metadata().is_ok(), "{name}");
        site.wait_for_log(&["pickup", name, "corrupt/"]);
    }
    assert_kept(&site);
}
