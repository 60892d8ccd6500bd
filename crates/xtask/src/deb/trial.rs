//! The life of a package on a machine: installed, used, configured, upgraded, removed, purged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::room::Room;
use super::{pack, succeed};
use crate::shell::{Result, command, output_of};

/// What a purged package leaves behind: what other mail programs use as well, and what others did meanwhile.
const MAY_STAY: [&str; 14] = [
    "etc/aliases",
    "etc/mailname",
    "var/mail/root",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "home/",
    "run/adduser",
    "var/cache/",
    "var/lib/apt/",
    "var/lib/dpkg/",
    "var/lib/ucf/",
    "var/log/",
];

/// What the files of configuration of a later version end with.
const LATER: &str = "\n# Of a later version, ";

/// What follows an administrator's entry in master.cf.
const ENTRY: &str = "\n2525 inet n - n - - smtpd\n";

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why nothing can be tried here.
pub fn impossible() -> Option<String> {
    Room::impossible()
}

/// Leads the package through its life and demands that nothing is lost and nothing left.
pub fn run(package: &Path) -> Result<()> {
    if let Some(reason) = impossible() {
        return Err(reason);
    }
    let began = Instant::now();
    let trial = Trial { room: Room::open()? };
    trial.room.run(&["useradd", "--create-home", "--shell", "/bin/sh", "jane"])?;
    let before = trial.files()?;
    trial.install(package)?;
    trial.is_laid_out()?;
    trial.delivers_once_started()?;
    trial.brings_what_nobody_changed(package)?;
    trial.takes_configuration()?;
    trial.takes_other_answers()?;
    trial.survives_upgrade(package)?;
    trial.keeps_what_is_not_its_own_on_remove(package)?;
    trial.leaves_nothing_on_purge(&before)?;
    println!("tried in {} s: installed, used, upgraded, removed, purged", began.elapsed().as_secs());
    Ok(())
}

struct Trial {
    room: Room,
}

impl Trial {
    fn install(&self, package: &Path) -> Result<()> {
        fs::copy(package, self.room.path("tmp/postroad.deb"))
            .map_err(|e| format!("copy {}: {e}", package.display()))?;
        let text = self.room.run(&[
            "apt-get",
            "install",
            "--yes",
            "--no-install-recommends",
            "/tmp/postroad.deb",
        ])?;
        // The programs' own words would be in it, were there anything to say.
        let remarks: Vec<&str> = text.lines().filter(|line| line.starts_with("postroad:")).collect();
        demand(remarks.is_empty(), || format!("the installation remarks: {}", remarks.join("; ")))
    }

    fn is_laid_out(&self) -> Result<()> {
        for (file, expected) in [
            ("/usr/sbin/postdrop", "2755 root postdrop"),
            ("/usr/sbin/postqueue", "2755 root postdrop"),
            ("/etc/postroad/main.cf", "644 root root"),
            ("/etc/postroad/master.cf", "644 root root"),
            ("/etc/mailname", "644 root root"),
            ("/var/spool/postroad/maildrop", "1730 postroad postdrop"),
            ("/var/spool/postroad/submit", "755 root root"),
            ("/var/lib/postroad", "755 postroad postroad"),
        ] {
            let found = self.room.run(&["stat", "--format", "%a %U %G", file])?;
            demand(found.trim() == expected, || format!("{file} is {}, not {expected}", found.trim()))?;
        }
        let user = self.room.run(&["getent", "passwd", "postroad"])?;
        demand(user.trim().ends_with(":/var/spool/postroad:/usr/sbin/nologin"), || {
            format!("the user is {user}")
        })?;
        self.room.run(&["test", "-s", "/etc/aliases.db"])?;
        for check in ["check", "set-permissions", "upgrade-configuration"] {
            self.room.run(&["postfix", check])?;
        }
        demand(!self.runs()?, || "without systemd, the installation starts the mail system".into())
    }

    /// Mail that is sent before the start is delivered after it.
    fn delivers_once_started(&self) -> Result<()> {
        self.send(&["sendmail", "root"], "before")?;
        self.room.run(&["postroad", "start"])?;
        self.wait_for("var/mail/root", "Subject: before")?;
        self.send(&["runuser", "-u", "jane", "--", "sendmail", "-t"], "To: postmaster\nSubject: from jane")?;
        self.wait_for("var/mail/root", "Subject: from jane")?;
        let queue = self.room.run(&["runuser", "-u", "jane", "--", "postqueue", "-p"])?;
        demand(queue.contains("empty"), || format!("postqueue -p as an ordinary user: {queue}"))
    }

    /// A later version's master.cf, while nobody has changed the earlier one's; main.cf stays what it is.
    fn brings_what_nobody_changed(&self, package: &Path) -> Result<()> {
        self.install(&later(package, 1, &self.room.path("tmp"))?)?;
        let [main, master] =
            ["main.cf", "master.cf"].map(|name| read(&self.room.path("etc/postroad").join(name)));
        demand(master?.contains(LATER), || "the upgrade brings no new master.cf".into())?;
        demand(!main?.contains(LATER), || "the upgrade brings a new main.cf".into())?;
        demand(self.runs()?, || "the mail system does not run after the upgrade".into())
    }

    fn takes_configuration(&self) -> Result<()> {
        self.room.run(&["postconf", "-e", "home_mailbox = Maildir/"])?;
        let master = read(&self.room.path("etc/postroad/master.cf"))?;
        self.room.write("etc/postroad/master.cf", &(master + ENTRY))?;
        self.room.run(&["postroad", "reload"])?;
        self.send(&["sendmail", "jane"], "to a Maildir")?;
        self.wait_for("home/jane/Maildir/new", "Subject: to a Maildir")
    }

    /// What one answer has set does not stay behind when it is replaced by another; what was not answered differently stays
    /// as the administrator wrote it.
    fn takes_other_answers(&self) -> Result<()> {
        let ours =
            ["relayhost", "smtp_sasl_password_maps", "smtp_tls_wrappermode", "smtp_tls_security_level"];
        let logins = "hash:/etc/postroad/smarthost_password";
        for (answers, expected) in [
            (
                "main_mailer_type=Internet with smarthost\nrelayhost=[smtp.example.net]:465\nrelayhost_user=jane\n\
                 relayhost_password=two words\n",
                ["[smtp.example.net]:465", logins, "yes", "encrypt"],
            ),
            ("relayhost=[smtp.example.net]:587\n", ["[smtp.example.net]:587", logins, "no", "encrypt"]),
            (
                "relayhost=[smtp.example.net]:465\nrelayhost_user=\n",
                ["[smtp.example.net]:465", "", "yes", "encrypt"],
            ),
            ("main_mailer_type=Internet Site\n", ["", "", "no", "may"]),
        ] {
            self.answer(answers)?;
            for (name, expected) in ours.iter().zip(expected) {
                self.has(name, expected)?;
            }
            let login = self.room.ask(&["cat", "/etc/postroad/smarthost_password"], "")?;
            demand(login.text.contains(" jane:two words") != expected[1].is_empty(), || {
                format!("after {answers:?} the login is {}", login.text)
            })?;
        }
        let written = ["inet_interfaces = 127.0.0.1", "mydestination = $myhostname, localhost, example.org"];
        self.room.run(&["postconf", "-e", written[0], written[1]])?;
        self.answer("recipient_delim=-\n")?;
        self.has("recipient_delimiter", "-")?;
        written.iter().try_for_each(|line| {
            let (name, value) = line.split_once(" = ").unwrap_or_default();
            self.has(name, value)
        })
    }

    /// Has the questions asked again and gives these answers to some.
    fn answer(&self, answers: &str) -> Result<()> {
        let editor = "#!/bin/sh\nwhile IFS== read -r name value; do\n  \
                      sed -i \"s|^postroad/$name=.*|postroad/$name=\\\"$value\\\"|\" \"$1\"\ndone </tmp/answers\n";
        self.room.write("tmp/answers", answers)?;
        self.room.write("tmp/editor", editor)?;
        self.room.run(&["chmod", "755", "/tmp/editor"])?;
        let reconfigure = ["dpkg-reconfigure", "--priority=low", "postroad"];
        self.room
            .run(
                &[
                    &["env", "DEBIAN_FRONTEND=editor", "EDITOR=/tmp/editor", "VISUAL=/tmp/editor"],
                    &reconfigure[..],
                ]
                .concat(),
            )
            .map(drop)
    }

    fn has(&self, name: &str, expected: &str) -> Result<()> {
        let value = self.room.run(&["postconf", "-h", name])?;
        demand(value.trim() == expected, || format!("main.cf: {name} is {value}, not {expected}"))
    }

    /// A new version comes while mail waits; it has new files of configuration, which an administrator has changed.
    fn survives_upgrade(&self, package: &Path) -> Result<()> {
        self.room.run(&["postconf", "-e", "local_transport = retry:4.3.0 wait"])?;
        self.room.run(&["postroad", "reload"])?;
        self.send(&["sendmail", "jane"], "waits")?;
        self.wait_for_queue("jane@")?;
        self.install(&later(package, 2, &self.room.path("tmp"))?)?;
        demand(self.runs()?, || "the mail system does not run after the upgrade".into())?;
        self.is_configured()?;
        self.wait_for_queue("jane@")?;
        self.room.run(&["postconf", "-X", "local_transport"])?;
        self.room.run(&["postroad", "reload"])?;
        self.room.run(&["postroad", "flush"])?;
        self.wait_for("home/jane/Maildir/new", "Subject: waits")
    }

    fn is_configured(&self) -> Result<()> {
        let value = self.room.run(&["postconf", "-h", "home_mailbox"])?;
        demand(value.trim() == "Maildir/", || format!("main.cf: home_mailbox is now {value}"))?;
        let master = read(&self.room.path("etc/postroad/master.cf"))?;
        demand(master.ends_with(ENTRY) && !master.contains("later version, 2"), || {
            format!("master.cf is not as the administrator left it:\n{master}")
        })
    }

    fn keeps_what_is_not_its_own_on_remove(&self, package: &Path) -> Result<()> {
        self.room.run(&["postconf", "-e", "local_transport = retry:4.3.0 wait"])?;
        self.room.run(&["postroad", "reload"])?;
        self.send(&["sendmail", "jane"], "outlives the package")?;
        self.wait_for_queue("jane@")?;
        let text = self.room.run(&["apt-get", "remove", "--yes", "postroad"])?;
        demand(text.contains("postroad: 1 messages stay"), || {
            format!("nothing is said of the mail that stays:\n{text}")
        })?;
        let left = self.room.ask(&["pgrep", "-u", "postroad"], "")?;
        demand(!left.success, || format!("programs run on after the removal: {}", left.text))?;
        self.install(package)?;
        self.is_configured()?;
        self.is_laid_out()?;
        self.room.run(&["postconf", "-X", "local_transport"])?;
        self.room.run(&["postroad", "start"])?;
        self.room.run(&["postroad", "flush"])?;
        self.wait_for("home/jane/Maildir/new", "Subject: outlives the package")
    }

    fn leaves_nothing_on_purge(&self, before: &BTreeSet<String>) -> Result<()> {
        self.room.run(&["apt-get", "purge", "--yes", "postroad"])?;
        let after = self.files()?;
        let left: Vec<&String> = after.difference(before).filter(|file| !may_stay(file)).collect();
        demand(left.is_empty(), || format!("left behind: {left:?}"))?;
        let lost: Vec<&String> = before.difference(&after).filter(|file| !may_stay(file)).collect();
        demand(lost.is_empty(), || format!("taken away: {lost:?}"))?;
        for (database, name) in [("passwd", "postroad"), ("group", "postroad"), ("group", "postdrop")] {
            let found = self.room.ask(&["getent", database, name], "")?;
            demand(!found.success, || format!("{name} is still in {database}"))?;
        }
        let registered =
            self.room.ask(&["grep", "postroad", "/var/lib/ucf/hashfile", "/var/lib/ucf/registry"], "")?;
        demand(!registered.success, || format!("ucf still knows of {}", registered.text))?;
        let overrides = self.room.ask(&["dpkg-statoverride", "--list", "/usr/sbin/post*"], "")?;
        demand(!overrides.success, || format!("overrides are left: {}", overrides.text))
    }

    fn runs(&self) -> Result<bool> {
        self.room.ask(&["postroad", "status"], "").map(|said| said.success)
    }

    fn send(&self, sendmail: &[&str], subject: &str) -> Result<()> {
        let header = if subject.contains(':') { subject.to_owned() } else { format!("Subject: {subject}") };
        self.room.run_with(sendmail, &format!("{header}\n\nHello.\n")).map(drop)
    }

    /// Waits until a file, or a file in this folder, contains a text.
    fn wait_for(&self, place: &str, text: &str) -> Result<()> {
        let place = self.room.path(place);
        let contains = |path: &Path| read(path).is_ok_and(|content| content.contains(text));
        let found = || match fs::read_dir(&place) {
            Ok(entries) => entries.filter_map(std::result::Result::ok).any(|entry| contains(&entry.path())),
            Err(_) => contains(&place),
        };
        patiently(found, || {
            let queue = self.room.ask(&["postqueue", "-p"], "").map(|said| said.text).unwrap_or_default();
            format!("{text} is not in {}; the queue:\n{queue}", place.display())
        })
    }

    fn wait_for_queue(&self, text: &str) -> Result<()> {
        let listed = || self.room.ask(&["postqueue", "-p"], "").is_ok_and(|said| said.text.contains(text));
        patiently(listed, || format!("{text} is not in the queue"))
    }

    /// Everything that is there, by name.
    fn files(&self) -> Result<BTreeSet<String>> {
        let list = self.room.run(&[
            "find", "/", "-xdev", "-not", "-path", "/proc*", "-not", "-path", "/tmp/*", "-printf", "%P\\n",
        ])?;
        Ok(list.lines().map(str::to_owned).collect())
    }
}

/// The same package with a higher version, and with other files of configuration in it.
pub(super) fn later(package: &Path, number: u32, into: &Path) -> Result<PathBuf> {
    let folder = into.join("later");
    let tree = folder.display().to_string();
    let _ = fs::remove_dir_all(&folder);
    succeed(&mut command("dpkg-deb", &["--raw-extract", &package.display().to_string(), &tree]))?;
    let version = output_of("dpkg-deb", &["--field", &package.display().to_string(), "Version"])?;
    let control = folder.join("DEBIAN/control");
    let text = read(&control)?
        .replace(&format!("Version: {}", version.trim()), &format!("Version: {}.{number}", version.trim()));
    write(&control, &text)?;
    for name in ["main.cf", "master.cf"] {
        let path = folder.join("usr/share/postroad").join(name);
        write(&path, &format!("{}{LATER}{number}\n", read(&path)?))?;
    }
    let later = into.join("later.deb");
    pack(&folder, &later, &["-Znone"], "0")?;
    fs::remove_dir_all(&folder).map_err(|e| format!("remove {tree}: {e}"))?;
    Ok(later)
}

fn may_stay(file: &str) -> bool {
    MAY_STAY.iter().any(|name| if name.ends_with('/') { file.starts_with(name) } else { file == *name })
}

fn patiently(is_so: impl Fn() -> bool, complaint: impl Fn() -> String) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > give_up {
            return Err(complaint());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

pub(super) fn demand(is_so: bool, complaint: impl FnOnce() -> String) -> Result<()> {
    if is_so { Ok(()) } else { Err(complaint()) }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
}
