//! What a package installs, laid out as it will be on the machine.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{notices, succeed};
use crate::man;
use crate::shell::{Result, command, root};

/// Copies of files of the repository.
const FILES: [(&str, &str); 12] = [
    // The maintainer scripts bring these to their places where nothing is yet.
    ("etc/main.cf", "usr/share/postroad/main.cf"),
    ("etc/master.cf", "usr/share/postroad/master.cf"),
    ("etc/aliases", "usr/share/postroad/aliases"),
    ("etc/bounce.cf.default", "usr/share/postroad/bounce.cf.default"),
    ("packaging/systemd/postroad.service", "usr/lib/systemd/system/postroad.service"),
    ("packaging/bash-completion/postroad", "usr/share/bash-completion/completions/postroad"),
    ("packaging/fail2ban/postroad.conf", "etc/fail2ban/filter.d/postroad.conf"),
    ("packaging/debian/ufw", "etc/ufw/applications.d/postroad"),
    ("packaging/debian/logrotate", "etc/logrotate.d/postroad"),
    ("packaging/debian/copyright", "usr/share/doc/postroad/copyright"),
    ("packaging/debian/postroad.lintian-overrides", "usr/share/lintian/overrides/postroad"),
    ("README.md", "usr/share/doc/postroad/README.md"),
];

/// The one script that is called when the network comes up, where each of those who bring it up looks for it.
const NETWORK_HOOKS: [&str; 4] = [
    "etc/network/if-up.d/postroad",
    "etc/ppp/ip-up.d/postroad",
    "etc/NetworkManager/dispatcher.d/50-postroad",
    "usr/lib/networkd-dispatcher/routable.d/postroad",
];

/// bash looks for a command's completion under its name.
const COMPLETED: [&str; 8] =
    ["postfix", "postconf", "postsuper", "postqueue", "mailq", "postcat", "postmap", "postalias"];

/// What all other programs are links to.
const SUITE: &str = "usr/lib/postroad/suite";

/// Programs that are files of their own: they run with a group's rights, or for every `mail()` of a script.
pub(crate) const APART: [&str; 3] = ["postdrop", "postqueue", "sendmail"];

/// Links: where, and to what.
const LINKS: [(&str, &str); 5] = [
    ("usr/bin/mailq", "../sbin/sendmail"),
    ("usr/bin/newaliases", "../sbin/sendmail"),
    ("usr/lib/sendmail", "../sbin/sendmail"),
    // For scripts that were written for Postfix.
    ("usr/sbin/postfix", "postroad"),
    ("usr/share/man/man1/postfix.1.gz", "postroad.1.gz"),
];

/// The root of a package.
pub struct Tree {
    root: PathBuf,
    /// Every program in it.
    pub programs: Vec<PathBuf>,
}

impl Tree {
    /// Lays out the package anew, with the programs in `built`.
    pub fn lay_out(built: &Path, into: &Path) -> Result<Self> {
        if into.exists() {
            fs::remove_dir_all(into).map_err(|e| format!("remove {}: {e}", into.display()))?;
        }
        let mut tree = Self { root: into.to_owned(), programs: Vec::new() };
        tree.add_program(&built.join("suite"), SUITE)?;
        tree.add_pages_and_programs(built)?;
        for (from, to) in FILES {
            tree.copy(from, to, 0o644)?;
        }
        tree.write_compressed(
            "usr/share/doc/postroad/changelog.Debian.gz",
            &read(&root().join("packaging/debian/changelog"))?,
        )?;
        tree.write_compressed("usr/share/doc/postroad/third-party.gz", notices::collect()?.as_bytes())?;
        for hook in NETWORK_HOOKS {
            tree.copy("packaging/network/flush-queue", hook, 0o755)?;
        }
        tree.add_instance_unit()?;
        for (at, to) in LINKS {
            tree.link(at, to)?;
        }
        for command in COMPLETED {
            tree.link(&format!("usr/share/bash-completion/completions/{command}"), "postroad")?;
        }
        Ok(tree)
    }

    /// The unit of further instances is the unit of the first, with another configuration directory.
    fn add_instance_unit(&self) -> Result<()> {
        let path = root().join("packaging/systemd/postroad.service");
        let unit = String::from_utf8(read(&path)?).map_err(|e| format!("read {}: {e}", path.display()))?;
        let instance = unit
            .replace("Description=Postroad mail system", "Description=Postroad mail system, instance %i")
            .replace("/etc/postroad/", "/etc/postroad-%i/")
            .replace("/usr/sbin/postroad ", "/usr/sbin/postroad -c /etc/postroad-%i ");
        self.write("usr/lib/systemd/system/postroad@.service", instance.as_bytes())
    }

    fn link(&self, at: &str, to: &str) -> Result<()> {
        self.make_parent(at)?;
        symlink(to, self.root.join(at)).map_err(|e| format!("link {at}: {e}"))
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every program has a page, and the page's section says whether it is a daemon or a command.
    fn add_pages_and_programs(&mut self, built: &Path) -> Result<()> {
        for page in man::pages()? {
            let section =
                page.extension().map(|section| section.to_string_lossy().into_owned()).unwrap_or_default();
            let name = page.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            self.write_compressed(&format!("usr/share/man/man{section}/{name}.{section}.gz"), &read(&page)?)?;
            match section.as_str() {
                "8" => self.link(&format!("usr/lib/postroad/sbin/{name}"), "../suite")?,
                // These are sendmail under other names.
                "1" if name == "mailq" || name == "newaliases" => {}
                "1" if APART.contains(&name.as_str()) => {
                    self.add_program(&built.join(&name), &format!("usr/sbin/{name}"))?;
                }
                "1" => self.link(&format!("usr/sbin/{name}"), "../lib/postroad/suite")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn add_program(&mut self, built: &Path, to: &str) -> Result<()> {
        self.make_parent(to)?;
        let path = self.root.join(to);
        let (from, into) = (built.display().to_string(), path.display().to_string());
        let sections = ["--strip-unneeded", "--remove-section=.comment", "--remove-section=.note"];
        succeed(command("strip", &sections).args(["-o", &into, &from]))?;
        set_mode(&path, 0o755)?;
        self.programs.push(path);
        Ok(())
    }

    /// Copies a file of the repository.
    pub fn copy(&self, from: &str, to: &str, mode: u32) -> Result<()> {
        self.write(to, &read(&root().join(from))?)?;
        set_mode(&self.root.join(to), mode)
    }

    /// Writes a file that all may read.
    pub fn write(&self, to: &str, bytes: &[u8]) -> Result<()> {
        self.make_parent(to)?;
        let path = self.root.join(to);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o644).open(&path);
        file.and_then(|mut file| file.write_all(bytes))
            .map_err(|e| format!("write {}: {e}", path.display()))?;
        set_mode(&path, 0o644)
    }

    /// As gzip makes it without names and times, which would differ from build to build.
    fn write_compressed(&self, to: &str, bytes: &[u8]) -> Result<()> {
        let mut gzip = Command::new("gzip");
        gzip.args(["-9", "-n", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut gzip = gzip.spawn().map_err(|e| format!("run gzip: {e}"))?;
        let mut input = gzip.stdin.take().ok_or("gzip has no input")?;
        let output = std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(bytes));
            gzip.wait_with_output()
        });
        let output = output.map_err(|e| format!("run gzip: {e}"))?;
        if output.status.success() {
            self.write(to, &output.stdout)
        } else {
            Err(format!("gzip: {}", output.status))
        }
    }

    /// The names of the files under a folder, sorted, without links.
    pub fn files_under(&self, folder: &str) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.join(folder)];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
            for path in entries.filter_map(std::result::Result::ok).map(|entry| entry.path()) {
                if path.is_symlink() {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(name) = path.strip_prefix(&self.root) {
                    files.push(name.display().to_string());
                }
            }
        }
        files.sort();
        Ok(files)
    }

    fn make_parent(&self, file: &str) -> Result<()> {
        let path = self.root.join(file);
        let folder = path.parent().unwrap_or(&path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(|e| format!("create {}: {e}", folder.display()))
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|e| format!("chmod {}: {e}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))
}
