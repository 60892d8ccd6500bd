//! Real Postfix in a scratch folder, to compare with. It needs root; nothing is installed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Group, Pid, User};
use tempfile::TempDir;

use crate::instance::{MAIL_OWNER, SUBMISSION_GROUP};
use crate::{Host, Smtp, free_port, maildir, postfix_package, scratch_folder, wait_for};

/// A running Postfix. Dropping it ends it and removes its folder.
pub struct Postfix {
    folder: TempDir,
    master: Child,
    /// The port that smtpd listens at.
    pub port: u16,
}

impl Postfix {
    /// Starts Postfix with these lines at the end of main.cf; `$root` stands for its folder.
    ///
    /// # Panics
    /// When a file cannot be made, or it does not start.
    #[must_use]
    pub fn start(lines: &[&str]) -> Self {
        Self::start_with(lines, &BTreeMap::new())
    }

    /// As [`Postfix::start`], with these files beside main.cf.
    ///
    /// # Panics
    /// As [`Postfix::start`].
    #[must_use]
    pub fn start_with(lines: &[&str], files: &BTreeMap<String, String>) -> Self {
        Self::start_in(None, lines, "", files)
    }

    /// As [`Postfix::start`], with these lines at the end of master.cf.
    ///
    /// # Panics
    /// As [`Postfix::start`].
    #[must_use]
    pub fn start_with_services(lines: &[&str], services: &str) -> Self {
        Self::start_in(None, lines, services, &BTreeMap::new())
    }

    /// The same in a host of a [`crate::Network`]: with that host's name, and at port 25 of all its addresses as well.
    ///
    /// # Panics
    /// As [`Postfix::start`].
    #[must_use]
    pub fn start_on(host: &Host, lines: &[&str]) -> Self {
        Self::start_on_with(host, lines, "")
    }

    /// As [`Postfix::start_on`], with these lines at the end of master.cf.
    ///
    /// # Panics
    /// As [`Postfix::start`].
    #[must_use]
    pub fn start_on_with(host: &Host, lines: &[&str], services: &str) -> Self {
        Self::start_in(Some(host), lines, services, &BTreeMap::new())
    }

    fn start_in(host: Option<&Host>, lines: &[&str], more: &str, files: &BTreeMap<String, String>) -> Self {
        let folder = scratch_folder("postfix-");
        let (root, port) = (folder.path(), free_port());
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("open the scratch folder");
        let name = host.map(|host| format!("myhostname = {}", host.name));
        // The lines that were asked for come last, and so count.
        let lines: Vec<&str> = name.iter().map(String::as_str).chain(lines.iter().copied()).collect();
        let outside = if host.is_some() { "smtp inet n - n - - smtpd\n" } else { "" };
        let program = Self::prepare(root, port, &lines, &format!("{more}{outside}"));
        for (name, content) in files {
            fs::write(root.join("etc").join(name), content).expect("write a table");
        }
        let program = program.display().to_string();
        let mut master = host.map_or_else(|| Command::new(&program), |host| host.command(&program));
        Self::give_arguments(&mut master, root);
        master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = master.spawn().expect("start Postfix");
        let postfix = Self { folder, master, port };
        wait_for("Postfix to start", || postfix.log().contains("daemon started").then_some(()));
        postfix
    }

    /// Makes what a Postfix needs in this folder, with these lines at the end of main.cf and master.cf; gives the program of
    /// its master, which [`Postfix::give_arguments`] tells where it is.
    ///
    /// # Panics
    /// When a file cannot be made.
    #[must_use]
    pub fn prepare(root: &Path, port: u16, lines: &[&str], services: &str) -> PathBuf {
        let package = postfix_package();
        make_folders(root);
        fs::write(root.join("etc/main.cf"), main_cf(root, &package, lines)).expect("write main.cf");
        fs::write(root.join("etc/master.cf"), master_cf(port) + services).expect("write master.cf");
        package.join("usr/lib/postfix/sbin/master")
    }

    /// Has master run in the foreground with the configuration of [`Postfix::prepare`].
    pub fn give_arguments(master: &mut Command, root: &Path) {
        master.args(["-c", &root.join("etc").display().to_string(), "-d"]);
        let library = postfix_package().join("usr/lib/postfix");
        master.env("LD_LIBRARY_PATH", library).env("MAIL_CONFIG", root.join("etc"));
    }

    /// A new SMTP connection that has read the greeting.
    #[must_use]
    pub fn smtp(&self) -> Smtp {
        Smtp::connect(self.port)
    }

    /// A path in the scratch folder.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Waits until a recipient has this many messages, and gives them.
    #[must_use]
    pub fn wait_for_mail(&self, user: &str, count: usize) -> Vec<Vec<u8>> {
        wait_for(&format!("{count} messages for {user} in Postfix"), || {
            let found = maildir::messages(&self.path("mail").join(user));
            (found.len() >= count).then_some(found)
        })
    }

    /// The mail log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.master.id()).unwrap_or(0));
        // Master hands the signal on to its programs.
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.master.wait();
    }
}

fn main_cf(root: &Path, package: &Path, lines: &[&str]) -> String {
    let (root, package) = (root.display().to_string(), package.display());
    let lines = lines.join("\n").replace("$root", &root);
    format!(
        "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
         mail_owner = {MAIL_OWNER}\nsetgid_group = {SUBMISSION_GROUP}\nmaillog_file = {root}/log\n\
         maillog_file_prefixes = /\ndaemon_directory = {package}/usr/lib/postfix/sbin\n\
         command_directory = {package}/usr/sbin\nshlib_directory = {package}/usr/lib/postfix\n\
         meta_directory = {package}/etc/postfix\ninet_protocols = ipv4\n\
         import_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C\n\
         export_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C\n\
         {lines}\n"
    )
}

fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\n\
         showq unix n - n - - showq\nerror unix - - n - - error\nretry unix - - n - - error\n\
         discard unix - - n - - discard\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\n\
         smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nlmtp unix - - n - - lmtp\n\
         anvil unix - - n - 1 anvil\npostlog unix-dgram n - n - 1 postlogd\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\nscache unix - - n - 1 scache\n"
    )
}

/// What `postfix start` would make.
fn make_folders(root: &Path) {
    let owner = User::from_name(MAIL_OWNER).ok().flatten().expect("the mail owner's user").uid.as_raw();
    let group =
        Group::from_name(SUBMISSION_GROUP).ok().flatten().expect("the group for submissions").gid.as_raw();
    for name in ["etc", "queue", "data", "mail", "queue/pid"] {
        fs::create_dir(root.join(name)).expect("make a folder");
    }
    fs::set_permissions(root.join("mail"), fs::Permissions::from_mode(0o1777)).expect("open mail/");
    chown(root.join("data"), Some(owner), None).expect("give data/ to the mail owner");
    let private = [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
        "trace",
    ];
    for (name, group) in private
        .map(|name| (name, None))
        .into_iter()
        .chain(["maildrop", "public"].map(|name| (name, Some(group))))
    {
        let path = root.join("queue").join(name);
        fs::create_dir(&path).expect("make a folder of the queue");
        chown(&path, Some(owner), group).expect("give a folder to the mail owner");
    }
}
