//! A mail system of its own in a scratch folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;

use crate::smtp::Smtp;
use crate::{Host, free_port, maildir, scratch_folder, wait_for, watcher};

/// The programs that an instance needs, beside each other in one folder.
const PROGRAMS: [&str; 32] = [
    "smtp",
    "lmtp",
    "master",
    "smtpd",
    "cleanup",
    "pickup",
    "qmgr",
    "local",
    "virtual",
    "pipe",
    "spawn",
    "bounce",
    "error",
    "discard",
    "showq",
    "postroad",
    "postmap",
    "postalias",
    "postconf",
    "postpasswd",
    "postqueue",
    "postsuper",
    "postcat",
    "postdrop",
    "sendmail",
    "mailq",
    "newaliases",
    "postlog",
    "anvil",
    "doctor",
    "verify",
    "postscreen",
];

/// Who the daemons run as, and the group of postdrop, where root starts the mail system: every Debian has them, nobody
/// uses them.
pub(crate) const MAIL_OWNER: &str = "news";
pub(crate) const SUBMISSION_GROUP: &str = "irc";

/// How an instance is to be; [`Builder::start`] makes it.
pub struct Builder {
    main: String,
    master: String,
    files: Vec<(String, String)>,
    tables: Vec<String>,
    as_root: bool,
    host: Option<Host>,
    programs: PathBuf,
}

/// A mail system. Dropping it ends it and removes its folder.
pub struct Instance {
    folder: Option<TempDir>,
    root: PathBuf,
    /// The port that smtpd listens at.
    pub port: u16,
    user: User,
    host: Option<Host>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// The same, if it exited with 0.
    ///
    /// # Panics
    /// When it did not.
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An instance with nothing special about it, of the programs that were built beside this one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            main: String::new(),
            master: String::new(),
            files: Vec::new(),
            tables: Vec::new(),
            as_root: false,
            host: None,
            programs: programs_folder(),
        }
    }

    /// Takes the programs from another folder.
    #[must_use]
    pub fn programs(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.programs);
        self
    }

    /// Adds a line to main.cf. `$root` stands for the instance's folder, `$user`, `$uid` and `$gid` for its
    /// user.
    #[must_use]
    pub fn main(mut self, line: &str) -> Self {
        self.main.push_str(line);
        self.main.push('\n');
        self
    }

    /// Adds a line to master.cf; it comes after the usual ones.
    #[must_use]
    pub fn master(mut self, line: &str) -> Self {
        self.master.push_str(line);
        self.master.push('\n');
        self
    }

    /// Writes a file into the configuration folder before the start, with `$root` and the others as in main.cf.
    #[must_use]
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Writes a table into the configuration folder and has `postmap` make its index.
    #[must_use]
    pub fn table(mut self, name: &str, content: &str) -> Self {
        self.tables.push(format!("etc/{name}"));
        self.file(name, content)
    }

    /// Keeps root's rights for what needs them; only where the test itself runs as root.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    /// Lives in a host of a [`crate::Network`], with that host's name and root's rights, and takes mail at port 25 of all its
    /// addresses; [`Host::smtp`] speaks with it.
    #[must_use]
    pub fn on(self, host: &Host) -> Self {
        let builder = Self { host: Some(host.clone()), as_root: true, ..self };
        builder
            .main("inet_interfaces = all")
            .main(&format!("myhostname = {}", host.name))
            .master("smtp inet n - n - - smtpd")
    }

    /// Makes the folder and the configuration and does not start.
    ///
    /// # Panics
    /// When a folder or file cannot be made.
    #[must_use]
    pub fn prepare(self) -> Instance {
        let folder = scratch_folder("postroad-");
        let root = folder.path().to_owned();
        let user = user_for(self.as_root);
        let host = self.host.clone();
        let instance = Instance { folder: Some(folder), root, port: free_port(), user, host };
        // Its own user must reach it, and in a privileged instance the mail owner and recipients too.
        fs::set_permissions(instance.root(), fs::Permissions::from_mode(0o755))
            .expect("open the scratch folder");
        for folder in ["etc", "queue", "data", "mail", "sbin"] {
            fs::create_dir(instance.path(folder)).expect("make a folder");
        }
        for program in PROGRAMS {
            let source = self.programs.join(program);
            if source.exists() {
                install(&source, &instance.path("sbin").join(program));
            }
        }
        instance.write("etc/main.cf", &self.main_cf(&instance));
        instance.write("etc/master.cf", &self.master_cf(&instance));
        instance.write("etc/aliases", "postmaster: root\n");
        for (name, content) in &self.files {
            instance.write(&format!("etc/{name}"), &instance.fill(content));
        }
        instance.own_all();
        instance.run("postalias", &["etc/aliases"], "").ok();
        for table in &self.tables {
            instance.run("postmap", &[table], "").ok();
        }
        if self.as_root {
            fs::set_permissions(instance.path("mail"), fs::Permissions::from_mode(0o1777))
                .expect("open mail/");
        }
        instance
    }

    /// Makes the instance and starts it.
    ///
    /// # Panics
    /// When it does not start; the message has what `postroad start` said and the log.
    #[must_use]
    pub fn start(self) -> Instance {
        let instance = self.prepare();
        instance.start();
        instance
    }

    fn main_cf(&self, instance: &Instance) -> String {
        let root = instance.root_text();
        let owner = if self.as_root {
            format!("mail_owner = {MAIL_OWNER}\nsetgid_group = {SUBMISSION_GROUP}\n")
        } else {
            String::new()
        };
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {root}/queue\n\
             data_directory = {root}/data\n\
             daemon_directory = {root}/sbin\n\
             command_directory = {root}/sbin\n\
             sendmail_path = {root}/sbin/sendmail\n\
             maillog_file = {root}/log\n\
             maillog_file_prefixes = {root}\n\
             myhostname = mail.example.com\n\
             mydomain = example.com\n\
             myorigin = $mydomain\n\
             mydestination = $myhostname, $mydomain, localhost\n\
             mynetworks = 127.0.0.0/8 [::1]/128\n\
             inet_interfaces = 127.0.0.1\n\
             alias_maps = hash:{root}/etc/aliases\n\
             alias_database =\n\
             mail_spool_directory = {root}/mail/\n\
             {owner}{}",
            instance.fill(&self.main)
        )
    }

    fn master_cf(&self, instance: &Instance) -> String {
        let port = instance.port;
        let _ = self;
        format!(
            "# service type private unpriv chroot wakeup maxproc command\n\
             127.0.0.1:{port} inet n - n - - smtpd\n\
             pickup  unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr    unix n - n 300 1 qmgr\n\
             bounce  unix - - n - 0 bounce\n\
             error   unix - - n - - error\n\
             retry   unix - - n - - error\n\
             discard unix - - n - - discard\n\
             local   unix - n n - - local\n\
             virtual unix - n n - - virtual\n\
             showq   unix n - n - - showq\n\
             {}",
            instance.fill(&self.master)
        )
    }
}

impl Instance {
    /// The scratch folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn root_text(&self) -> String {
        self.root.display().to_string()
    }

    fn fill(&self, text: &str) -> String {
        let numbers = [("$uid", self.user.uid.as_raw()), ("$gid", self.user.gid.as_raw())];
        let text = text.replace("$root", &self.root_text()).replace("$user", self.user());
        numbers.iter().fold(text, |text, (name, number)| text.replace(name, &number.to_string()))
    }

    /// The configuration folder.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.path("etc")
    }

    /// The name of the user it runs as; mail for it is delivered to [`Instance::maildir`].
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user.name
    }

    /// A path in the scratch folder.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Writes a file in the scratch folder, owned by the instance's user.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        fs::write(&path, content).expect("write a file of the instance");
        self.own(&path);
    }

    /// Starts the mail system.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&self) {
        let output = self.postroad(&["start"]);
        assert_eq!(output.status, 0, "{output:?}\n{}", self.log());
    }

    /// Runs `postroad` with these arguments.
    pub fn postroad(&self, arguments: &[&str]) -> Output {
        self.run("postroad", arguments, "")
    }

    /// Runs one of the mail system's commands as the instance's user.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(&self.path("sbin").join(program).display().to_string());
        command.args(arguments);
        run(command, input.as_bytes())
    }

    /// A command that runs as the instance's user with `MAIL_CONFIG` set.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        };
        command.env("MAIL_CONFIG", self.etc()).env("HOME", self.root()).current_dir(self.root());
        if Uid::effective().is_root() {
            command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw());
        }
        command
    }

    /// A new SMTP connection that has read the greeting.
    #[must_use]
    pub fn smtp(&self) -> Smtp {
        Smtp::connect(self.port)
    }

    /// The Maildir of a recipient.
    #[must_use]
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.path("mail").join(user)
    }

    /// Waits until a recipient has this many messages, and gives them.
    ///
    /// # Panics
    /// When they do not come in time; the message has the whole log.
    pub fn wait_for_mail(&self, user: &str, count: usize) -> Vec<Vec<u8>> {
        let began = std::time::Instant::now();
        let what = format!("{count} messages for {user}");
        wait_for(&what, || {
            let found = maildir::messages(&self.maildir(user));
            if began.elapsed() > crate::PATIENCE / 2 && found.len() < count {
                let output = self.log();
                panic!("only {} of {what}; the log:\n{output}", found.len());
            }
            (found.len() >= count).then_some(found)
        })
    }

    /// The mail log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// Waits until the log has a line that contains all of these, and gives the line.
    ///
    /// # Panics
    /// When there is none in time; the message has the whole log.
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        let began = std::time::Instant::now();
        wait_for(&format!("a log line with {parts:?}"), || {
            let log = self.log();
            let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            assert!(
                began.elapsed() < crate::PATIENCE / 2 || found.is_some(),
                "no line with {parts:?} in\n{log}"
            );
            found.map(str::to_owned)
        })
    }

    /// The ids of the messages in the queue, whatever their state.
    #[must_use]
    pub fn queue_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        // In the order in which messages move, and once more where they come back to: none slips through between two looks.
        for folder in ["incoming", "hold", "deferred", "active", "deferred"] {
            collect_files(&self.path("queue").join(folder), &mut ids);
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Waits until nothing is left in the queue, and nothing that was submitted waits for pickup.
    ///
    /// # Panics
    /// When something stays; the message has the log.
    pub fn wait_for_empty_queue(&self) {
        // A message that makes another one (a report, what is forwarded) may leave while that comes in behind the look at
        // incoming/: then the next look finds it.
        const LOOKS: usize = 3;
        let began = std::time::Instant::now();
        wait_for("the queue to become empty", || {
            let on_the_way = (0..LOOKS).map(|_| self.on_the_way()).find(|names| !names.is_empty());
            assert!(
                began.elapsed() < crate::PATIENCE / 2 || on_the_way.is_none(),
                "{on_the_way:?} stay; the log:\n{}",
                self.log()
            );
            on_the_way.is_none().then_some(())
        });
    }

    /// The names of what is on its way: finished submissions, and the messages in the queue.
    fn on_the_way(&self) -> Vec<String> {
        let submissions =
            fs::read_dir(self.path("queue/maildrop")).into_iter().flatten().filter_map(Result::ok);
        let is_finished = |entry: &fs::DirEntry| {
            entry.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o100 != 0)
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = submissions.filter(is_finished).map(name).collect();
        names.extend(self.queue_ids());
        names
    }

    /// Waits until the log has so many lines that contain all of these: a program writes its lines a moment after
    /// what they tell of.
    ///
    /// # Panics
    /// When there are fewer after some time, or more; the message has the whole log.
    pub fn wait_for_lines(&self, parts: &[&str], count: usize) {
        let began = std::time::Instant::now();
        wait_for(&format!("{count} log lines with {parts:?}"), || {
            let log = self.log();
            let found = log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count();
            let is_over = found > count || began.elapsed() > crate::PATIENCE / 2;
            assert!(!is_over, "{found} lines, not {count}, with {parts:?} in\n{log}");
            (found == count).then_some(())
        });
    }

    /// Has all mail tried that waits: what is deferred, and submissions that were not taken up.
    pub fn try_all(&self) {
        self.run("postqueue", &["-f"], "");
        // Whoever connects pokes pickup; where nobody listens, the next start looks by itself.
        let _ = UnixStream::connect(self.path("queue/public/pickup"));
    }

    /// The pids of the instance's programs of this name.
    #[must_use]
    pub fn pids(&self, program: &str) -> Vec<i32> {
        let wanted = self.path("sbin").join(program);
        let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == wanted))
            .collect()
    }

    /// Ends the instance's programs of this name as nobody can defend against, and says how many.
    pub fn kill(&self, program: &str) -> usize {
        let pids = self.pids(program);
        pids.iter().filter(|pid| kill(Pid::from_raw(**pid), Signal::SIGKILL).is_ok()).count()
    }

    /// Ends all of the instance's programs in the same way.
    pub fn kill_all(&self) {
        // Nobody starts one of them anew.
        self.kill("master");
        for program in PROGRAMS {
            self.kill(program);
        }
    }

    /// Leaves the instance running and its folder in place.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        if let Some(folder) = self.folder.take() {
            watcher::leave(&self.root);
            let _ = folder.keep();
        }
        self.root.clone()
    }

    fn own(&self, path: &Path) {
        if Uid::effective().is_root() && !self.user.uid.is_root() {
            let (uid, gid) = (self.user.uid.as_raw(), self.user.gid.as_raw());
            chown(path, Some(uid), Some(gid)).expect("give a file to the instance's user");
        }
    }

    fn own_all(&self) {
        self.own(self.root());
        for folder in ["etc", "queue", "data", "mail", "sbin"] {
            self.own(&self.path(folder));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.folder.is_some() {
            let _ = self.postroad(&["abort"]);
            // What a master that was killed has left behind, or one that does not listen any more.
            self.kill_all();
        }
    }
}

/// Runs a command with this input.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run(mut command: Command, input: &[u8]) -> Output {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|e| panic!("run {}: {e}", command.get_program().display()));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is free to do so.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().expect("wait for a command");
    Output {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Hard links where possible, so that an instance costs no space.
fn install(source: &Path, target: &Path) {
    if fs::hard_link(source, target).is_err() {
        fs::copy(source, target).expect("copy a program");
    }
}

/// `target/debug` or `target/release`, wherever the running test or tool was built; `POSTROAD_PROGRAMS` overrides.
fn programs_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("POSTROAD_PROGRAMS") {
        return folder.into();
    }
    let own = std::env::current_exe().expect("find the running program");
    let folder = own.parent().expect("a program is in a folder");
    if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_owned() } else { folder.to_owned() }
}

fn user_for(as_root: bool) -> User {
    let user = if as_root {
        User::from_uid(Uid::from_raw(0))
    } else if Uid::effective().is_root() {
        User::from_name("nobody")
    } else {
        User::from_uid(Uid::effective())
    };
    user.expect("look up a user").unwrap_or_else(|| panic!("this user has no name"))
}

fn collect_files(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.path().is_dir() {
            collect_files(&entry.path(), names);
        } else {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}
