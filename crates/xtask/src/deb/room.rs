//! A Debian of its own: a root file system with processes, network and name apart from those of the machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;

use super::succeed;
use crate::peers;
use crate::shell::{Result, target};

const SUITE: &str = "bookworm";

/// Where programs are, inside and outside.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What the smallest Debian lacks of what the package depends on.
const DEPENDENCIES: &str = "adduser,debconf,ucf";

/// A running room; it ends, and its files go, when it is dropped or when this process dies.
pub struct Room {
    root: PathBuf,
    /// The one process in it that keeps it.
    keeper: Child,
}

/// What a command in the room said.
pub struct Said {
    /// Whether its exit status was 0.
    pub success: bool,
    /// Its output, then its error output.
    pub text: String,
}

impl Room {
    /// Why there can be none here.
    pub fn impossible() -> Option<String> {
        if !Uid::effective().is_root() {
            return Some("only root can have a Debian of its own".into());
        }
        let missing = ["mmdebstrap", "unshare", "nsenter", "ip"]
            .into_iter()
            .find(|program| peers::find(program).is_none());
        missing.map(|program| format!("{program} is not installed"))
    }

    /// Makes one; the base is made once and kept.
    pub fn open() -> Result<Self> {
        let root = unpack(&base("adduser-ucf-debconf", DEPENDENCIES, &[])?, "room")?;
        let keeper = keeper()?;
        let room = Self { root, keeper };
        room.prepare()?;
        Ok(room)
    }

    fn prepare(&self) -> Result<()> {
        let proc = self.root.join("proc").display().to_string();
        succeed(self.inside().args(["mount", "-t", "proc", "proc", &proc]))?;
        succeed(self.inside().args(["ip", "link", "set", "lo", "up"]))?;
        succeed(self.inside().args(["hostname", "mail.example.com"]))?;
        self.write("etc/hostname", "mail.example.com\n")?;
        self.write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 mail.example.com mail\n")
    }

    /// Where its root is, seen from outside.
    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// Writes a file.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.path(file), text).map_err(|e| format!("write {file}: {e}"))
    }

    /// Runs a command as root.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        self.run_with(command, "")
    }

    /// Runs a command as root with this input, and demands success.
    pub fn run_with(&self, command: &[&str], input: &str) -> Result<String> {
        let said = self.ask(command, input)?;
        if said.success {
            Ok(said.text)
        } else {
            Err(format!("{}: failed:\n{}", command.join(" "), said.text))
        }
    }

    /// Runs a command as root with this input.
    pub fn ask(&self, command: &[&str], input: &str) -> Result<Said> {
        let mut process = self.inside();
        process.arg("chroot").arg(&self.root).args(command).env("DEBIAN_FRONTEND", "noninteractive");
        said_by(process, input)
    }

    /// A command of the machine's, within the room's namespaces.
    fn inside(&self) -> Command {
        let pid = self.keeper.id();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--mount", "--net", "--uts", "--ipc"]);
        command.arg(format!("--pid=/proc/{pid}/ns/pid_for_children"));
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// Runs a command, in a clean environment, to its end.
pub(super) fn said_by(mut process: Command, input: &str) -> Result<Said> {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = format!("{process:?}");
    let mut process = process.spawn().map_err(|e| format!("run {name}: {e}"))?;
    if let Some(mut stdin) = process.stdin.take() {
        // Who reads nothing need not be given anything.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = process.wait_with_output().map_err(|e| format!("wait for {name}: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Said { success: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() })
}

impl Drop for Room {
    fn drop(&mut self) {
        // Without its input the keeper ends, and with the first of its processes the room.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A process that holds the namespaces as long as this one lives.
fn keeper() -> Result<Child> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]);
    unshare.args(["sh", "-c", "echo; exec cat >/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut keeper = unshare.spawn().map_err(|e| format!("run unshare: {e}"))?;
    let output = keeper.stdout.take().ok_or("unshare has no output")?;
    match BufReader::new(output).lines().next() {
        Some(Ok(_)) => Ok(keeper),
        _ => Err(format!(
            "unshare: {}",
            keeper.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
        )),
    }
}

/// The archive of a Debian with these packages; made once and kept under this name.
pub(super) fn base(name: &str, packages: &str, more: &[&str]) -> Result<PathBuf> {
    let folder = target().join("peers");
    fs::create_dir_all(&folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
    let archive = folder.join(format!("{SUITE}-{name}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    // Under its name only when it is whole.
    let partial = archive.with_extension(format!("{}.tar", std::process::id()));
    let include = format!("--include={packages}");
    println!("$ mmdebstrap --variant=minbase {include} {SUITE} {}", partial.display());
    let mut mmdebstrap = Command::new("mmdebstrap");
    succeed(mmdebstrap.args(["--variant=minbase", &include]).args(more).arg(SUITE).arg(&partial))?;
    fs::rename(&partial, &archive).map_err(|e| format!("rename {}: {e}", partial.display()))?;
    Ok(archive)
}

/// Unpacks an archive of [`base`] where a room or a machine of this process will be.
pub(super) fn unpack(archive: &Path, name: &str) -> Result<PathBuf> {
    let root = target().join("deb").join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&root).map_err(|e| format!("create {}: {e}", root.display()))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--file"]).arg(archive).arg("--directory").arg(&root);
    succeed(&mut tar).map(|()| root)
}
