//! `postdrop` in the hands of a user who means harm. As root, also with its set-gid bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod instance;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use instance::{Instance, code, copy, is_root, run, stderr};
use mail::submission::{Head, trailer};
use mail::{Address, Recipient};

const POSTDROP: &str = env!("CARGO_BIN_EXE_postdrop");
/// The attacker, and the group that may write to maildrop.
const USER: u32 = 65_534;
const GROUP: u32 = 65_533;

fn submission() -> Vec<u8> {
    let mut head = Head::new(Address::new("joe").unwrap());
    head.recipients.push(Recipient::new(Address::new("jane").unwrap()));
    [&head.encode()[..], b"hello\n", &trailer(6)].concat()
}

/// Runs postdrop through a shell that has prepared something first.
fn run_after(instance: &Instance, preparation: &str) -> Output {
    let mut command = instance.command("bash");
    let script = format!("{preparation}\nexec {POSTDROP} -r");
    run(command.args(["-c", &script]), &submission())
}

#[test]
fn missing_standard_streams_cost_nothing_but_words() {
    let instance = Instance::new("");
    let output = run_after(&instance, "exec 1>&- 2>&-");
    assert_eq!(code(&output), 0);
    assert_eq!(instance.files(), [(0o744, submission())], "no word of ours may get into the file");
    let instance = Instance::new("");
    assert_eq!(code(&run_after(&instance, "exec 0<&-")), 65);
    assert!(instance.files().is_empty());
}

#[test]
fn a_table_full_of_descriptors_does_not_matter() {
    let instance = Instance::new("");
    // One is left, without which the program could not be loaded; it needs two.
    let output =
        run_after(&instance, "for ((i = 3; i < 40; i++)); do eval \"exec $i</dev/null\"; done; ulimit -n 41");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn the_umask_of_the_user_does_not_count() {
    for mask in ["0000", "0777"] {
        let instance = Instance::new("");
        run_after(&instance, &format!("umask {mask}"));
        assert_eq!(instance.files(), [(0o744, submission())]);
    }
}

#[test]
fn a_limit_on_the_size_of_files_leaves_nothing_that_looks_whole() {
    let instance = Instance::new("");
    let mut command = instance.command("bash");
    let script = format!("ulimit -f 1; exec {POSTDROP}");
    let content = vec![b'x'; 300_000];
    let head = Head::new(Address::null()).encode();
    let input = [&head[..], &content, &trailer(300_000)].concat();
    let output = run(command.args(["-c", &script]), &input);
    assert!(!output.status.success());
    let told = format!("write a file in {}: File too large", instance.path("queue/maildrop").display());
    assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    assert!(instance.files().iter().all(|(mode, _)| mode & 0o100 == 0));
}

#[test]
fn a_submission_that_stops_leaves_nothing() {
    let instance = Instance::new("");
    let whole = submission();
    for length in [0, 10, whole.len() - 1] {
        let output = run(&mut instance.command(POSTDROP), &whole[..length]);
        assert_eq!((code(&output), instance.files().len()), (65, 0), "{}", stderr(&output));
    }
}

#[test]
fn killed_in_the_middle_it_leaves_what_pickup_ignores() {
    let instance = Instance::new("");
    let mut child = instance.command(POSTDROP).spawn().unwrap();
    let head = Head::new(Address::null()).encode();
    child.stdin.as_mut().unwrap().write_all(&[&head[..], &[b'x'; 300_000]].concat()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(instance.files().iter().all(|(mode, _)| mode & 0o100 == 0));
}

#[test]
fn its_name_and_arguments_change_nothing() {
    let instance = Instance::new("");
    for name in ["", "\u{1b}[2J", "/bin/sh"] {
        let output = run(instance.command(POSTDROP).arg0(name).arg("--evil"), &submission());
        assert_eq!(code(&output), 64);
        assert!(stderr(&output).starts_with("postdrop: fatal: usage:"), "{}", stderr(&output));
    }
    assert!(instance.files().is_empty());
}

#[test]
fn garbage_is_refused() {
    let instance = Instance::new("");
    let garbage: [&[u8]; 4] =
        [b"\0\0\0", b"postroad-submission 1\n\n", b"From: x\n\nbody\n", &[0xff; 100_000]];
    for input in garbage {
        let output = run(&mut instance.command(POSTDROP), input);
        assert_eq!((code(&output), instance.files().len()), (65, 0), "{}", stderr(&output));
    }
}

/// A maildrop that only [`GROUP`] may create in, and a set-gid copy of postdrop.
fn set_gid(instance: &Instance) -> PathBuf {
    let maildrop = instance.path("queue/maildrop");
    chown(&maildrop, Some(0), Some(GROUP)).unwrap();
    std::fs::set_permissions(&maildrop, PermissionsExt::from_mode(0o1730)).unwrap();
    let program = instance.path("postdrop");
    copy(POSTDROP.as_ref(), &program);
    chown(&program, Some(0), Some(GROUP)).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o2755)).unwrap();
    program
}

#[test]
fn a_configuration_of_the_users_own_costs_the_set_gid_rights() {
    if !is_root() {
        return;
    }
    let instance = Instance::new("");
    let program = set_gid(&instance);
    for environment in [true, false] {
        let mut command = instance.command(program.to_str().unwrap());
        if !environment {
            command.env_clear().arg("-c").arg(instance.path("conf"));
        }
        let output = run(command.uid(USER).gid(USER), &submission());
        assert!(stderr(&output).contains("set-gid rights are given up"), "{}", stderr(&output));
        assert_eq!((code(&output), instance.files().len()), (75, 0), "{}", stderr(&output));
    }
}

/// Runs `program` as the attacker where /etc/postroad is this instance's configuration; `None` where namespaces or
/// mounts are forbidden.
fn run_as_installed(instance: &Instance, program: &str, input: &[u8]) -> Option<Output> {
    let etc = instance.path("etc");
    let root = etc.parent()?.display();
    let prepare = format!(
        "mkdir {root}/etc && cp -r /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache {root}/etc \
         && cp -r {root}/conf {root}/etc/postroad && mount --bind {root}/etc /etc"
    );
    let become_user = format!("exec setpriv --reuid {USER} --regid {USER} --clear-groups {program}");
    let script = format!("({prepare}) 2>/dev/null || exit 99; {become_user}");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).env("MAIL_CONFIG", "/etc/postroad");
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = run(&mut command, input);
    (code(&output) != 99).then_some(output)
}

#[test]
fn installed_it_writes_for_its_user_and_as_its_user() {
    if !is_root() {
        return;
    }
    let instance = Instance::new("");
    let program = set_gid(&instance);
    let Some(output) = run_as_installed(&instance, program.to_str().unwrap(), &submission()) else { return };
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(instance.files(), [(0o744, submission())]);
    let entry = std::fs::read_dir(instance.path("queue/maildrop")).unwrap().next().unwrap().unwrap();
    assert_eq!(entry.metadata().unwrap().uid(), USER, "the owner says whose mail it is");
}

#[test]
fn sendmail_of_an_ordinary_user_goes_through_it() {
    if !is_root() {
        return;
    }
    // A message that fits into a pipe goes another way than one that does not.
    for lines in [1, 100_000] {
        let instance = Instance::new("");
        set_gid(&instance);
        let main_cf = instance.path("conf/main.cf");
        let mut text = std::fs::read_to_string(&main_cf).unwrap();
        text.push_str(&format!("command_directory = {}\n", instance.path("").display()));
        std::fs::write(main_cf, text).unwrap();
        let message = "Subject: x\n\n".to_owned() + &"hello\n".repeat(lines);
        let sendmail = instance.path("sendmail");
        copy(env!("CARGO_BIN_EXE_sendmail").as_ref(), &sendmail);
        let command = format!("{} -f me you", sendmail.display());
        let Some(output) = run_as_installed(&instance, &command, message.as_bytes()) else { return };
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).starts_with("postdrop: warning: mail system is down"), "{}", stderr(&output));
        let (head, content) = instance.message();
        assert!(head.sender.as_str() == "me" && content == message);
    }
}
