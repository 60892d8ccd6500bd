//! The two mail systems, set up alike: root's master, a mail owner, virtual mailboxes, a log file.

use std::fmt;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Group as UnixGroup, Pid, User};

use crate::peers;
use crate::shell::{Result, target};

use super::disk::Disk;
use super::load::Load;
use super::meter::{Calls, Figures, Group};

/// Users that every Debian has and that nobody uses; neither system is installed.
const MAIL_OWNER: &str = "news";
const SUBMISSION_GROUP: &str = "irc";
const MAILBOX_OWNER: &str = "games";

const RECIPIENT: &str = "user@virtual.example";

/// A mail system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Ours, as built for release.
    Postroad,
    /// The peer, from its Debian package.
    Postfix,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postroad => "Postroad",
            Self::Postfix => "Postfix",
        })
    }
}

/// Runs a load on a fresh file system.
pub fn measure(side: Side, load: &Load) -> Result<Figures> {
    let running = Running::start(side)?;
    // Everything is started and warm before the clock runs.
    running.warm_up(load)?;
    let cpu = running.group.cpu();
    let elapsed = load.run(running.port, RECIPIENT, &running.maildir(), load.sessions)?;
    Ok(Figures {
        messages: load.messages,
        elapsed,
        cpu: running.group.cpu().saturating_sub(cpu),
        memory: running.group.memory(),
    })
}

/// Counts the system calls of a load.
pub fn count_calls(side: Side, load: &Load) -> Result<String> {
    let running = Running::start(side)?;
    running.warm_up(load)?;
    let calls = Calls::count(&running.group.pids(), running.disk.path())?;
    load.run(running.port, RECIPIENT, &running.maildir(), load.sessions)?;
    calls.finish(load.messages)
}

/// A mail system at work on a disk of its own.
struct Running {
    master: Child,
    port: u16,
    group: Group,
    disk: Disk,
}

impl Running {
    fn start(side: Side) -> Result<Self> {
        let (disk, group) = (Disk::fresh()?, Group::new()?);
        let port = free_port()?;
        prepare(disk.path())?;
        let command = match side {
            Side::Postroad => postroad(disk.path(), port)?,
            Side::Postfix => postfix(disk.path(), port)?,
        };
        let mut command = group.wrap(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = command.spawn().map_err(|e| format!("start {side}: {e}"))?;
        let running = Self { master, port, group, disk };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                let log = fs::read_to_string(running.disk.path().join("log")).unwrap_or_default();
                return Err(format!("{side} does not open its port; its log:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    fn maildir(&self) -> PathBuf {
        self.disk.path().join("mail/user")
    }

    /// Sends as many messages as there are sessions.
    fn warm_up(&self, load: &Load) -> Result<()> {
        let few = Load { messages: load.sessions, ..*load };
        few.run(self.port, RECIPIENT, &self.maildir(), 0).map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.master.id()).unwrap_or(0));
        let _ = kill(pid, Signal::SIGTERM);
        let began = Instant::now();
        while self.master.try_wait().is_ok_and(|status| status.is_none()) {
            if began.elapsed() > Duration::from_secs(10) {
                let _ = self.master.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // What master left behind must not hold the disk.
        while !self.group.pids().is_empty() {
            for pid in self.group.pids() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What both have: mailboxes, configuration folder.
fn prepare(root: &Path) -> Result<()> {
    for folder in ["etc", "queue", "data", "mail"] {
        let path = root.join(folder);
        fs::create_dir(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
    }
    let owner = user(MAILBOX_OWNER)?;
    chown(root.join("mail"), Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
        .map_err(|e| format!("chown mail: {e}"))
}

fn user(name: &str) -> Result<User> {
    User::from_name(name).ok().flatten().ok_or_else(|| format!("no user {name} on this machine"))
}

/// The settings that both understand.
fn main_cf(root: &Path) -> Result<String> {
    let owner = user(MAILBOX_OWNER)?;
    let root = root.display();
    Ok(format!(
        "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
         mail_owner = {MAIL_OWNER}\nsetgid_group = {SUBMISSION_GROUP}\nmaillog_file = {root}/log\n\
         maillog_file_prefixes = /\nmyhostname = mail.example.com\nmydestination = localhost\n\
         mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nalias_maps =\n\
         alias_database =\nlocal_recipient_maps =\nvirtual_mailbox_domains = virtual.example\n\
         virtual_mailbox_base = {root}/mail\nvirtual_mailbox_maps = inline:{{{RECIPIENT}=user/}}\n\
         virtual_uid_maps = static:{}\nvirtual_gid_maps = static:{}\nvirtual_minimum_uid = 1\n",
        owner.uid, owner.gid
    ))
}

fn write(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join("etc").join(name);
    fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))
}

fn postroad(root: &Path, port: u16) -> Result<Command> {
    let programs = target().join("release");
    let main = main_cf(root)?;
    write(
        root,
        "main.cf",
        &format!("{main}daemon_directory = {0}\ncommand_directory = {0}\n", programs.display()),
    )?;
    write(
        root,
        "master.cf",
        &format!(
            "127.0.0.1:{port} inet n - n - 300 smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\nbounce unix - - n - 0 bounce\nerror unix - - n - - error\n\
             local unix - n n - - local\nvirtual unix - n n - - virtual\nshowq unix n - n - - showq\n"
        ),
    )?;
    let etc = root.join("etc").display().to_string();
    let mut command = Command::new(programs.join("postroad"));
    command.args(["-c", &etc, "start-fg"]);
    Ok(command)
}

fn postfix(root: &Path, port: u16) -> Result<Command> {
    let package = peers::unpack_postfix()?;
    let (daemons, library) = (package.join("usr/lib/postfix/sbin"), package.join("usr/lib/postfix"));
    let main = main_cf(root)?;
    write(
        root,
        "main.cf",
        &format!(
            "{main}daemon_directory = {}\ncommand_directory = {}\nshlib_directory = {}\nmeta_directory = {}\n\
             import_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C\n\
             export_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C\n",
            daemons.display(),
            package.join("usr/sbin").display(),
            library.display(),
            package.join("etc/postfix").display()
        ),
    )?;
    // As many processes as Postroad has sessions: its default of 100 would be the bottleneck with more clients.
    write(
        root,
        "master.cf",
        &format!(
            "127.0.0.1:{port} inet n - n - 300 smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
             flush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\n\
             showq unix n - n - - showq\nerror unix - - n - - error\nretry unix - - n - - error\n\
             local unix - n n - - local\nvirtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\n\
             postlog unix-dgram n - n - 1 postlogd\n"
        ),
    )?;
    make_postfix_folders(root)?;
    let mut command = Command::new(daemons.join("master"));
    command.args(["-c", &root.join("etc").display().to_string(), "-d"]);
    command.env("LD_LIBRARY_PATH", library).env("MAIL_CONFIG", root.join("etc"));
    Ok(command)
}

/// What `postfix start` would make.
fn make_postfix_folders(root: &Path) -> Result<()> {
    let owner = user(MAIL_OWNER)?;
    let group = UnixGroup::from_name(SUBMISSION_GROUP).ok().flatten().ok_or("no group for submissions")?;
    let queue = root.join("queue");
    let own = |path: &Path, gid: Option<u32>| {
        chown(path, Some(owner.uid.as_raw()), gid).map_err(|e| format!("chown {}: {e}", path.display()))
    };
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
        "trace",
    ] {
        fs::create_dir(queue.join(name)).map_err(|e| format!("create {name}: {e}"))?;
        own(&queue.join(name), None)?;
    }
    fs::create_dir(queue.join("pid")).map_err(|e| format!("create pid: {e}"))?;
    for name in ["maildrop", "public"] {
        fs::create_dir(queue.join(name)).map_err(|e| format!("create {name}: {e}"))?;
        own(&queue.join(name), Some(group.gid.as_raw()))?;
    }
    own(&root.join("data"), None)
}

fn free_port() -> Result<u16> {
    let listener =
        std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|e| format!("find a free port: {e}"))?;
    Ok(listener.local_addr().map_err(|e| format!("find a free port: {e}"))?.port())
}
