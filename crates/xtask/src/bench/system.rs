//! The two mail systems, set up alike: root's master, a mail owner, virtual mailboxes, a log file.

use std::fmt;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use scenarios::{Postfix, free_port, postfix_package};

use super::disk::Disk;
use super::meter::Group;
use crate::deb::APART;
use crate::shell::{Result, target};

/// Users that every Debian has and that nobody uses; neither system is installed.
pub const MAIL_OWNER: &str = "news";
const SUBMISSION_GROUP: &str = "irc";
const MAILBOX_OWNER: &str = "games";

/// Whose Maildir is `mail/user/new`.
pub const RECIPIENT: &str = "user@virtual.example";

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(600);

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

/// A mail system on a disk of its own. Dropping it ends it.
pub struct System {
    side: Side,
    master: Option<Child>,
    /// The port that smtpd listens at.
    pub port: u16,
    /// All its processes.
    pub group: Group,
    disk: Disk,
}

impl System {
    /// Starts one on a fresh disk, with these lines at the end of main.cf; `$root` stands for its folder.
    pub fn start(side: Side, lines: &[&str]) -> Result<Self> {
        let mut system = Self::prepare(side, lines, "")?;
        system.launch()?;
        Ok(system)
    }

    /// Makes its files, with these lines at the end of main.cf and master.cf, and does not start it.
    pub fn prepare(side: Side, lines: &[&str], services: &str) -> Result<Self> {
        Self::prepare_for(side, lines, services, 0)
    }

    /// The same, with room for so many messages.
    pub fn prepare_for(side: Side, lines: &[&str], services: &str, messages: usize) -> Result<Self> {
        Self::prepare_with(side, &target().join("release"), lines, services, messages)
    }

    /// Makes the files of one whose programs are as packages have them: links to one file, and built like theirs.
    pub fn prepare_packaged(side: Side) -> Result<Self> {
        let programs = target().join("bench/packaged");
        link_programs(&target().join("release"), &target().join("shipped"), &programs)
            .map_err(|e| format!("link programs in {}: {e}", programs.display()))?;
        Self::prepare_with(side, &programs, &[], "", 0)
    }

    fn prepare_with(
        side: Side,
        programs: &Path,
        lines: &[&str],
        services: &str,
        messages: usize,
    ) -> Result<Self> {
        let (disk, group) = (Disk::fresh(messages)?, Group::new()?);
        let system = Self { side, master: None, port: free_port(), group, disk };
        let root = system.path("");
        let common = settings()?;
        let lines: Vec<String> = common
            .lines()
            .chain(lines.iter().copied())
            .map(|line| line.replace("$root", &root.display().to_string()))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        match side {
            Side::Postroad => prepare_postroad(&root, programs, system.port, &lines, services)?,
            Side::Postfix => drop(Postfix::prepare(&root, system.port, &lines, services)),
        }
        Ok(system)
    }

    /// Starts it; gives the time until a client is greeted.
    pub fn launch(&mut self) -> Result<Duration> {
        let command = match self.side {
            Side::Postroad => self.command("postroad", &["start-fg"]),
            Side::Postfix => {
                let master = postfix_package().join("usr/lib/postfix/sbin/master");
                let mut command = Command::new(master);
                Postfix::give_arguments(&mut command, self.disk.path());
                command
            }
        };
        let mut command = self.group.wrap(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let master = command.spawn().map_err(|e| format!("start {}: {e}", self.side))?;
        self.master = Some(master);
        while !is_greeted(self.port) {
            if began.elapsed() > Duration::from_secs(60) {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                return Err(format!("{} does not greet; its log:\n{log}", self.side));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(began.elapsed())
    }

    /// Has its disk take a great many files in little time, until [`Self::forget_files`].
    pub fn hurry(&self) -> Result<()> {
        self.disk.hurry()
    }

    /// Has it find its files as after a boot, before it is started.
    pub fn forget_files(&self) -> Result<()> {
        self.disk.remount()
    }

    /// A path on its disk.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.disk.path().join(relative)
    }

    /// One of its commands. What it costs is not the group's.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = match self.side {
            Side::Postroad => Command::new(target().join("release").join(program)),
            Side::Postfix => {
                let package = postfix_package();
                let mut command = Command::new(package.join("usr/sbin").join(program));
                command.env("LD_LIBRARY_PATH", package.join("usr/lib/postfix"));
                command
            }
        };
        command.args(arguments).env("MAIL_CONFIG", self.path("etc"));
        command
    }

    /// Runs one of its commands to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.command(program, arguments).output().map_err(|e| format!("run {program}: {e}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {program} {}: {} {}", self.side, arguments.join(" "), output.status, words.trim()))
    }

    /// The files below a folder, however deep.
    pub fn files(&self, folder: &str) -> usize {
        count_files(&self.path(folder))
    }

    /// Waits until it is so.
    pub fn wait_for(&self, what: &str, is_so: impl FnMut(&Self) -> bool) -> Result<()> {
        // To count ten thousand files takes milliseconds of the processor and locks their folder: what is measured
        // must hardly feel it.
        self.wait_with(what, |looked| (looked * 20).max(Duration::from_millis(10)), is_so)
    }

    /// Waits until it is so, where it is the time until then that is measured.
    pub fn watch_for(&self, what: &str, is_so: impl FnMut(&Self) -> bool) -> Result<()> {
        self.wait_with(what, |_| Duration::from_millis(20), is_so)
    }

    /// Waits until it is so, with pauses by how long it takes to look.
    fn wait_with(
        &self,
        what: &str,
        pause: impl Fn(Duration) -> Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let looked = Instant::now();
            if is_so(self) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{}: waited {PATIENCE:?} in vain until {what}", self.side));
            }
            std::thread::sleep(pause(looked.elapsed()));
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let Some(master) = &mut self.master else { return };
        let pid = Pid::from_raw(i32::try_from(master.id()).unwrap_or(0));
        let _ = kill(pid, Signal::SIGTERM);
        let began = Instant::now();
        while master.try_wait().is_ok_and(|status| status.is_none()) {
            if began.elapsed() > Duration::from_secs(10) {
                let _ = master.kill();
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

fn is_greeted(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).is_ok() && greeting == *b"220"
}

fn count_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(std::result::Result::ok);
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            Ok(_) => 1,
            Err(_) => 0,
        })
        .sum()
}

/// Makes a folder in which each program that was built is a link to the shipped file that has most of them, or to its own.
fn link_programs(built: &Path, shipped: &Path, folder: &Path) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(built)? {
        let name = entry?.file_name();
        let own = APART.iter().any(|apart| name == *apart);
        // What is no program has a dot somewhere.
        if built.join(&name).is_file() && !name.to_string_lossy().contains('.') {
            let program = if own { shipped.join(&name) } else { shipped.join("suite") };
            symlink(program, folder.join(&name))?;
        }
    }
    Ok(())
}

/// The settings that both understand.
fn settings() -> Result<String> {
    let owner = User::from_name(MAILBOX_OWNER).ok().flatten();
    let owner = owner.ok_or_else(|| format!("no user {MAILBOX_OWNER} on this machine"))?;
    Ok(format!(
        "myhostname = mail.example.com\nmydestination = localhost\nmynetworks = 127.0.0.0/8\n\
         inet_interfaces = 127.0.0.1\nalias_maps =\nalias_database =\nlocal_recipient_maps =\n\
         virtual_mailbox_domains = virtual.example\nvirtual_mailbox_base = $root/mail\n\
         virtual_mailbox_maps = inline:{{{RECIPIENT}=user/}}\nvirtual_uid_maps = static:{}\n\
         virtual_gid_maps = static:{}\nvirtual_minimum_uid = 1\n",
        owner.uid, owner.gid
    ))
}

fn prepare_postroad(root: &Path, programs: &Path, port: u16, lines: &[&str], services: &str) -> Result<()> {
    for folder in ["etc", "queue", "data", "mail"] {
        let path = root.join(folder);
        fs::create_dir(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
    }
    let open = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(root.join("mail"), open).map_err(|e| format!("open mail: {e}"))?;
    let (programs, folder, lines) = (programs.display(), root.display(), lines.join("\n"));
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n\
         mail_owner = {MAIL_OWNER}\nsetgid_group = {SUBMISSION_GROUP}\nmaillog_file = {folder}/log\n\
         maillog_file_prefixes = /\ninet_protocols = ipv4\ndaemon_directory = {programs}\n\
         command_directory = {programs}\nsendmail_path = {programs}/sendmail\n{lines}\n"
    );
    let master = format!(
        "127.0.0.1:{port} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\nbounce unix - - n - 0 bounce\nerror unix - - n - - error\n\
         retry unix - - n - - error\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\n\
         smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nanvil unix - - n - 1 anvil\n\
         showq unix n - n - - showq\n{services}"
    );
    for (name, text) in [("main.cf", main), ("master.cf", master)] {
        let path = root.join("etc").join(name);
        fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
    }
    Ok(())
}
