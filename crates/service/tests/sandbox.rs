//! What each program can and cannot do, tried from the inside: a process of this test becomes the program as a daemon
//! does, by the same functions and a configuration of its own, and then tries one act. What is expected stands in the
//! tables below; they are about acts and owe nothing to the table that is tested.

// Clippy knows tests by their attribute; what they share has none.
#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use config::{Config, Snapshot};
use nix::sys::resource::Resource;
use nix::unistd::{Uid, User};
use service::sandbox::{Sandbox, table};

const PROBE: &str = "SANDBOX_PROBE";
const DONE: &str = "the act is done";
const DENIED: &str = "the act is denied";
const FOLDERS: [&str; 6] = ["maildrop", "incoming", "active", "deferred", "hold", "corrupt"];

/// What an act came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Result {
    Done,
    Denied,
    /// It failed for another reason, which the test must not take for a denial.
    Failed,
}

/// The programs that are held to files and system calls. A program that is in neither list fails the test.
const CONFINED: [&str; 14] = [
    "anvil",
    "bounce",
    "cleanup",
    "discard",
    "error",
    "lmtp",
    "pickup",
    "postscreen",
    "qmgr",
    "showq",
    "smtp",
    "smtpd",
    "verify",
    "virtual",
];
const START_COMMANDS: [&str; 3] = ["local", "pipe", "spawn"];

/// Acts that no confined program may do.
const NEVER: [&str; 23] = [
    "write etc/main.cf",
    "write outside/new",
    "read outside/secret",
    "read /etc/shadow",
    "read /root/.profile",
    "read /proc/1/environ",
    "exec",
    "spawn",
    "ptrace",
    "signal",
    "setuid",
    "mount",
    "chroot",
    "unshare",
    "raw socket",
    "packet socket",
    "listen",
    "device",
    "link outside",
    "dump core",
    "have message queues",
    "run in real time",
    "lock memory",
];

/// Acts that every confined program needs.
const ALWAYS: [&str; 4] = ["thread", "unix socket", "log", "time zone"];

/// Folders of the queue whose files a program reads, and those that it changes. Nobody else may.
const READS: [(&str, &[&str]); 4] = [
    ("cleanup", &["incoming", "hold"]),
    ("pickup", &["maildrop"]),
    ("qmgr", &["incoming", "active", "deferred", "hold", "corrupt"]),
    ("showq", &FOLDERS),
];
const CHANGES: [(&str, &[&str]); 2] =
    [("cleanup", &["incoming", "hold"]), ("qmgr", &["incoming", "active", "deferred", "hold", "corrupt"])];

/// Other acts, and who may.
const SOME: [(&str, &[&str]); 9] = [
    (
        "read etc/table",
        &[
            "smtpd",
            "postscreen",
            "smtp",
            "lmtp",
            "cleanup",
            "qmgr",
            "bounce",
            "error",
            "discard",
            "verify",
            "virtual",
        ],
    ),
    (
        "find user",
        &["smtpd", "postscreen", "smtp", "lmtp", "cleanup", "qmgr", "bounce", "anvil", "verify", "virtual"],
    ),
    ("connect elsewhere", &["smtp", "lmtp"]),
    ("connect policy", &["smtpd", "postscreen", "smtp", "lmtp"]),
    ("ask DNS", &["smtpd", "postscreen", "smtp", "lmtp"]),
    ("write data/new", &["postscreen", "qmgr", "anvil", "verify"]),
    ("read data/file", &["smtpd", "postscreen", "qmgr", "anvil", "verify"]),
    ("write mail/new", &["virtual"]),
    ("take submission", &["pickup"]),
];

fn may(list: &[(&str, &[&str])], program: &str, what: &str) -> bool {
    list.iter().any(|(name, granted)| *name == program && granted.contains(&what))
}

/// Every act, and whether this program may do it.
fn expectations(program: &str) -> Vec<(String, bool)> {
    let mut all: Vec<(String, bool)> = NEVER.iter().map(|act| ((*act).to_owned(), false)).collect();
    all.extend(ALWAYS.iter().map(|act| ((*act).to_owned(), true)));
    for folder in FOLDERS {
        all.push((format!("read queue/{folder}/message"), may(&READS, program, folder)));
        all.push((format!("write queue/{folder}/new"), may(&CHANGES, program, folder)));
    }
    all.extend(SOME.iter().map(|(act, programs)| ((*act).to_owned(), programs.contains(&program))));
    all
}

#[test]
fn every_program_has_a_row_and_an_expectation() {
    let mut rows: Vec<&str> = table::TABLE.iter().map(|row| row.program).collect();
    let mut expected: Vec<&str> = CONFINED.iter().chain(&START_COMMANDS).copied().collect();
    rows.sort_unstable();
    expected.sort_unstable();
    assert_eq!(rows, config::PROGRAMS, "the sandbox's table and the programs of master.cf");
    assert_eq!(rows, expected, "the sandbox's table and this test");
}

#[test]
fn each_program_can_do_what_it_is_for_and_nothing_else() {
    let site = Site::new();
    if !site.is_enforced() {
        println!("SKIPPED: this kernel lacks a part of the sandbox");
        return;
    }
    let mut wrong = Vec::new();
    for program in CONFINED {
        for (act, allowed) in expectations(program) {
            let expected = if allowed { Result::Done } else { Result::Denied };
            let found = site.try_act(program, &act);
            if found != expected {
                wrong.push(format!("{program}: {act}: {found:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Programs that start commands keep what those need, and none of root's powers beyond delivery.
#[test]
fn who_starts_commands_keeps_only_the_rights_of_a_delivery() {
    let site = Site::new();
    for program in START_COMMANDS {
        for act in ["spawn", "read etc/table"] {
            assert_eq!(site.try_act(program, act), Result::Done, "{program}: {act}");
        }
        for act in ["mount", "raw socket", "unshare"] {
            assert_eq!(site.try_act(program, act), Result::Denied, "{program}: {act}");
        }
    }
}

/// A mail system's folders, owned by whom its programs become.
struct Site {
    folder: tempfile::TempDir,
    policy: TcpListener,
    elsewhere: TcpListener,
    _socket: UnixListener,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sandbox-").tempdir().unwrap();
        let root = folder.path().to_owned();
        for name in ["etc", "queue", "data", "mail", "outside"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        FOLDERS.iter().for_each(|name| fs::create_dir(root.join("queue").join(name)).unwrap());
        let messages = FOLDERS.map(|name| format!("queue/{name}/message"));
        let files = ["etc/main.cf", "etc/table", "outside/secret", "data/file", "queue/maildrop/submission"];
        for name in messages.iter().map(String::as_str).chain(files) {
            fs::write(root.join(name), "text\n").unwrap();
        }
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self {
            _socket: UnixListener::bind(root.join("outside/socket")).unwrap(),
            folder,
            policy: listen(),
            elsewhere: listen(),
        };
        site.own(&root);
        site
    }

    /// Everything is readable and writable for the programs as far as owners and modes go: what is denied is denied by
    /// the sandbox.
    fn own(&self, path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = user() {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| self.own(&entry.unwrap().path()));
        }
    }

    fn main_cf(&self) -> String {
        let root = self.folder.path().display();
        let port = self.policy.local_addr().unwrap().port();
        format!(
            "queue_directory = {root}/queue\ndata_directory = {root}/data\nmail_owner = news\n\
             virtual_alias_maps = texthash:{root}/etc/table\nvirtual_mailbox_base = {root}/mail\n\
             smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:{port}\n"
        )
    }

    fn is_enforced(&self) -> bool {
        CONFINED.iter().all(|program| self.try_act(program, "state") == Result::Done)
    }

    /// Has a process become the program and try the act.
    fn try_act(&self, program: &str, act: &str) -> Result {
        let elsewhere = self.elsewhere.local_addr().unwrap();
        let policy = self.policy.local_addr().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "probe"]).current_dir(self.folder.path());
        command.env(PROBE, format!("{program}\n{act}\n{elsewhere}\n{policy}\n{}", self.main_cf()));
        let output = command.output().unwrap();
        let status = output.status;
        let _ = fs::write(self.folder.path().join("queue/maildrop/submission"), "text\n");
        let said = String::from_utf8_lossy(&output.stdout);
        match (said.contains(DONE), said.contains(DENIED), status.signal()) {
            (true, ..) => Result::Done,
            (_, true, _) | (.., Some(nix::libc::SIGSYS)) => Result::Denied,
            _ => {
                println!("{program}: {act}: {status}: {}", String::from_utf8_lossy(&output.stderr));
                Result::Failed
            }
        }
    }
}

/// Whom the programs become.
fn user() -> Option<User> {
    Uid::effective().is_root().then(|| User::from_name("news").unwrap().unwrap())
}

/// Not a test by itself: the process that becomes a program and tries an act.
#[test]
fn probe() {
    let Ok(text) = std::env::var(PROBE) else { return };
    let mut lines = text.splitn(5, '\n');
    let mut next = || lines.next().unwrap().to_owned();
    let (program, act, elsewhere, policy, main_cf) = (next(), next(), next(), next(), next());
    let root = std::env::current_dir().unwrap();
    let snapshot = Snapshot { main_cf: main_cf.into_bytes(), master_cf: Vec::new() };
    let (config, _) = Config::from_snapshot(&root.join("etc"), &snapshot, &[]).unwrap();
    // As `service::daemon` and `Service::drop_privileges` do it, with the log open.
    let log = File::options().append(true).create(true).open(root.join("outside/log")).unwrap();
    let is_delivery = START_COMMANDS.contains(&program.as_str());
    let owner = user();
    let sandbox = Sandbox::new(&program, &config, &[], !is_delivery).unwrap();
    sandbox.enter().unwrap();
    if let Some(owner) = owner.filter(|_| !is_delivery) {
        sys::credentials::drop_privileges(owner.uid, owner.gid, &[owner.gid]).unwrap();
    }
    sandbox.finish().unwrap();
    let result = match act.as_str() {
        "state" if sandbox.state() == "sandbox: full" => Ok(()),
        "state" => Err(ErrorKind::Unsupported.into()),
        "log" => (&log).write_all(b"line\n"),
        "connect elsewhere" => TcpStream::connect(elsewhere).map(drop),
        "connect policy" => TcpStream::connect(policy).map(drop),
        act => perform(act, &root),
    };
    // Not by an exit from this thread, which would take the signal stack of the main one from under it.
    println!(
        "{}",
        match result {
            Ok(()) => DONE,
            Err(error) if is_denial(&error) => DENIED,
            Err(_) => "otherwise",
        }
    );
}

fn is_denial(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

fn perform(act: &str, root: &Path) -> std::io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let parent = nix::unistd::getppid();
    if let Some(path) = act.strip_prefix("read ") {
        return File::open(root.join(path))?.read_to_end(&mut Vec::new()).map(drop);
    }
    if let Some(path) = act.strip_prefix("write ") {
        // What can be written can be removed again.
        let path = root.join(path);
        File::create(&path)?.write_all(b"text")?;
        return fs::remove_file(path);
    }
    let raise = |resource| nix::sys::resource::setrlimit(resource, 1, 1).map_err(Into::into);
    match act {
        "dump core" => raise(Resource::RLIMIT_CORE),
        "have message queues" => raise(Resource::RLIMIT_MSGQUEUE),
        "run in real time" => raise(Resource::RLIMIT_RTPRIO),
        "lock memory" => raise(Resource::RLIMIT_MEMLOCK),
        "exec" => Err(Command::new("/bin/true").exec()),
        "spawn" => Command::new("/bin/true").status().map(drop),
        "ptrace" => nix::sys::ptrace::attach(parent).map_err(Into::into),
        "signal" => nix::sys::signal::kill(parent, None).map_err(Into::into),
        "setuid" => nix::unistd::setuid(Uid::from_raw(0)).map_err(Into::into),
        "mount" => {
            let none: Option<&str> = None;
            nix::mount::mount(none, "/", none, nix::mount::MsFlags::MS_PRIVATE, none).map_err(Into::into)
        }
        "chroot" => nix::unistd::chroot(root).map_err(Into::into),
        "unshare" => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(Into::into),
        "raw socket" => {
            let opened = socket(
                AddressFamily::Inet,
                SockType::Raw,
                SockFlag::empty(),
                nix::sys::socket::SockProtocol::Icmp,
            );
            opened.map(drop).map_err(Into::into)
        }
        "packet socket" => {
            let opened = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), None);
            opened.map(drop).map_err(Into::into)
        }
        "listen" => TcpListener::bind("127.0.0.1:0").map(drop),
        "device" => File::open("/dev/zero").map(drop),
        "link outside" => fs::hard_link("/etc/passwd", root.join("outside/link")),
        "thread" => std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| ErrorKind::Other.into()),
        "unix socket" => UnixStream::connect(PathBuf::from("outside/socket")).map(drop),
        "time zone" => fs::read_dir("/usr/share/zoneinfo").map(drop),
        "find user" => match User::from_name("games") {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ErrorKind::PermissionDenied.into()),
            Err(errno) => Err(errno.into()),
        },
        "ask DNS" => UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", "127.0.0.1:53").map(drop),
        "take submission" => {
            fs::rename(root.join("queue/maildrop/submission"), root.join("queue/corrupt/submission"))
        }
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}
