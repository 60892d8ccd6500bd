//! A Debian that was booted by systemd, with a network of its own and one neighbour outside.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::room::{PATH, Said, base, said_by, unpack};
use super::succeed;
use crate::shell::Result;

/// What an administrator's machine has. s-nail is only at hand: the guide installs it; so is Postfix, to be measured.
const PACKAGES: &str = "systemd-sysv,dbus,adduser,ucf,debconf,libterm-readline-gnu-perl,sudo,cron,rsyslog,ufw,iproute2,procps,\
                        python3-minimal,netbase,logrotate,bsdutils,fail2ban,python3-systemd,php-cli,curl,msmtp";
const AT_HAND: [&str; 2] = ["s-nail", "postfix"];

/// The machine's address and its neighbour's, of the networks for documentation (RFC 5737).
pub const ADDRESS: &str = "192.0.2.1";
const NEIGHBOUR: &str = "192.0.2.2";

/// How long a boot or an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine; it is switched off, and its files go, when it is dropped.
pub struct Machine {
    root: PathBuf,
    /// systemd-nspawn, whose only child is the machine's first process.
    power: Option<Child>,
    /// Holds the neighbour's network.
    neighbour: Child,
}

/// What takes a suggested answer away: to its beginning, and clear what follows.
const CLEAR: &str = "\x01\x0b";

/// A question on the terminal, and what is typed when it comes; nothing takes what is suggested.
pub type Answer<'a> = (&'a str, &'a str);

impl Machine {
    /// Makes one and boots it; `jane` may use sudo.
    pub fn boot() -> Result<Self> {
        let fetch = AT_HAND.map(|package| {
            format!("--customize-hook=chroot \"$1\" apt-get install --yes --download-only {package}")
        });
        let archive = base("booted-php-curl-msmtp", PACKAGES, &["--skip=cleanup/apt", &fetch[0], &fetch[1]])?;
        let root = unpack(&archive, "machine")?;
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--net",
            "--kill-child",
            "--fork",
            "sh",
            "-c",
            "ip link set lo up; echo; exec cat >/dev/null",
        ]);
        let mut neighbour = unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("run unshare: {e}"))?;
        if let Some(output) = neighbour.stdout.take() {
            // A line says that its network is there.
            let _ = BufReader::new(output).lines().next();
        }
        let mut machine = Self { root, power: None, neighbour };
        machine.write("etc/hostname", "mail.example.com\n")?;
        machine
            .write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 mail.example.com mail\n::1 localhost\n")?;
        let mut user = Command::new("chroot");
        user.arg(&machine.root).args(["useradd", "--create-home", "--shell", "/bin/bash", "jane"]);
        succeed(&mut user)?;
        machine.write("etc/sudoers.d/jane", "jane ALL=(ALL) NOPASSWD: ALL\n")?;
        machine.switch_on()?;
        Ok(machine)
    }

    /// Switches off in an orderly way and on again.
    pub fn reboot(&mut self) -> Result<()> {
        self.ask(&["systemctl", "poweroff"], "")?;
        let give_up = Instant::now() + PATIENCE;
        while let Some(power) = &mut self.power {
            match power.try_wait() {
                Ok(None) if Instant::now() < give_up => thread::sleep(Duration::from_millis(50)),
                Ok(None) => return Err("the machine does not shut down".into()),
                _ => self.power = None,
            }
        }
        self.switch_on()
    }

    fn switch_on(&mut self) -> Result<()> {
        let console = fs::File::create(self.root.with_extension("console"))
            .map_err(|e| format!("create the console: {e}"))?;
        // Should this process be killed, systemd-nspawn is told to shut the machine down.
        let mut nspawn = Command::new("setpriv");
        nspawn.args(["--pdeathsig", "TERM", "systemd-nspawn"]);
        nspawn.args([
            "--register=no",
            "--keep-unit",
            "--boot",
            "--private-network",
            "--hostname=mail.example.com",
        ]);
        nspawn.arg("--directory").arg(&self.root).stdin(Stdio::null()).stdout(console).stderr(Stdio::null());
        self.power = Some(nspawn.spawn().map_err(|e| format!("run systemd-nspawn: {e}"))?);
        let up = |machine: &Self| {
            let said = machine.ask(&["systemctl", "is-system-running"], "");
            said.is_ok_and(|said| ["running", "degraded"].contains(&said.text.trim()))
        };
        let give_up = Instant::now() + PATIENCE;
        while !up(self) {
            if Instant::now() > give_up {
                let console = fs::read_to_string(self.root.with_extension("console")).unwrap_or_default();
                return Err(format!("the machine does not boot:\n{console}"));
            }
            thread::sleep(Duration::from_millis(200));
        }
        self.connect()
    }

    /// A cable between the machine and its neighbour.
    fn connect(&self) -> Result<()> {
        let (here, there) = (self.first_process()?.to_string(), self.neighbour_process()?.to_string());
        let ends = ["type", "veth", "peer", "name", "outside", "netns", &there];
        succeed(Command::new("ip").args(["link", "add", "inside", "netns", &here]).args(ends))?;
        let up = |pid: &str, name: &str, address: &str| {
            let script =
                format!("ip link set lo up; ip address add {address}/24 dev {name}; ip link set {name} up");
            succeed(Command::new("nsenter").args(["--target", pid, "--net", "sh", "-c", &script]))
        };
        up(&here, "inside", ADDRESS)?;
        up(&there, "outside", NEIGHBOUR)
    }

    fn first_process(&self) -> Result<u32> {
        self.power.as_ref().and_then(|power| child_of(power.id())).ok_or("the machine is off".into())
    }

    fn neighbour_process(&self) -> Result<u32> {
        child_of(self.neighbour.id()).ok_or("the neighbour is gone".into())
    }

    /// Where a file of the machine's is, seen from outside.
    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// Writes a file.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.path(file), text).map_err(|e| format!("write {file}: {e}"))
    }

    /// Runs a command as root and demands success.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let said = self.ask(command, "")?;
        if said.success {
            Ok(said.text)
        } else {
            Err(format!("{}: failed:\n{}", command.join(" "), said.text))
        }
    }

    /// Runs a command as root with this input.
    pub fn ask(&self, command: &[&str], input: &str) -> Result<Said> {
        let mut process = self.inside()?;
        process.args(command);
        said_by(process, input)
    }

    /// Types a line into a shell of jane's.
    pub fn type_line(&self, line: &str) -> Result<String> {
        self.run(&["runuser", "--login", "jane", "--command", line])
    }

    /// Types a line into a shell of jane's, on a terminal, and answers what is asked there, in this order.
    pub fn converse(&self, line: &str, answers: &[Answer<'_>]) -> Result<String> {
        // Wide enough that no question is scrolled out of sight.
        let shell = format!("stty columns 250; runuser --login jane --session-command {}", quoted(line));
        let mut process = self.inside()?;
        process.args(["script", "--quiet", "--return", "--command", &shell, "/dev/null"]);
        process.env("TERM", "dumb").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = process.spawn().map_err(|e| format!("run nsenter: {e}"))?;
        let mut keyboard = process.stdin.take().ok_or("no keyboard")?;
        let screen = watch(process.stdout.take().ok_or("no screen")?);
        let mut seen = String::new();
        for (question, answer) in answers {
            if !wait_for_text(&screen, question, &mut seen) {
                let _ = process.kill();
                let _ = process.wait();
                return Err(format!("{line}: it was not asked {question:?}:\n{seen}"));
            }
            let clear = if answer.is_empty() { "" } else { CLEAR };
            writeln!(keyboard, "{clear}{answer}").map_err(|e| format!("{line}: type {answer:?}: {e}"))?;
        }
        loop {
            match screen.recv_timeout(PATIENCE) {
                Ok(more) => seen.push_str(&more),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = process.kill();
                    let _ = process.wait();
                    return Err(format!("{line}: it does not end:\n{seen}"));
                }
            }
        }
        drop(keyboard);
        let status = process.wait().map_err(|e| format!("wait for {line}: {e}"))?;
        if status.success() { Ok(seen) } else { Err(format!("{line}: {status}\n{seen}")) }
    }

    /// A command of the host's, in the neighbour's network.
    pub fn neighbour_runs(&self, command: &[&str], input: &str) -> Result<Said> {
        let mut process = Command::new("nsenter");
        process.args(["--target", &self.neighbour_process()?.to_string(), "--net"]).args(command);
        said_by(process, input)
    }

    fn inside(&self) -> Result<Command> {
        let mut process = Command::new("nsenter");
        let pid = self.first_process()?.to_string();
        process.args(["--target", &pid, "--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd"]);
        process.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").env("HOME", "/root");
        Ok(process)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process every other of the machine ends, and then systemd-nspawn; it alone would leave them.
        if let Ok(first) = self.first_process().and_then(|pid| i32::try_from(pid).map_err(|e| e.to_string()))
        {
            let _ = kill(Pid::from_raw(first), Signal::SIGKILL);
        }
        if let Some(power) = &mut self.power {
            let _ = power.wait();
        }
        drop(self.neighbour.stdin.take());
        let _ = self.neighbour.wait();
        let _ = fs::remove_dir_all(&self.root);
        let _ = fs::remove_file(self.root.with_extension("console"));
    }
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', "'\\''"))
}

/// What appears on a screen, piece by piece, until the program has ended.
fn watch(mut screen: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            if sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits until this text is shown, and adds what was shown to what was `seen`.
fn wait_for_text(screen: &Receiver<String>, text: &str, seen: &mut String) -> bool {
    let before = seen.len();
    while !seen[before..].contains(text) {
        match screen.recv_timeout(PATIENCE) {
            Ok(more) => seen.push_str(&more),
            Err(_) => return false,
        }
    }
    true
}

/// What is in a file of the machine's, or in a folder's files.
pub fn content(path: &Path) -> String {
    match fs::read_dir(path) {
        Ok(entries) => {
            entries.filter_map(std::result::Result::ok).map(|entry| content(&entry.path())).collect()
        }
        Err(_) => {
            fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
        }
    }
}
