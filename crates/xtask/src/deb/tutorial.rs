//! The guide, typed word for word into a booted machine, and what comes after it: mail from outside and from cron, a
//! reboot, an upgrade, another configuration, a second instance, the end.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::figures::Figures;
use super::machine::{ADDRESS, Answer, Machine, content};
use super::trial::{demand, later};
use crate::peers;
use crate::shell::{Result, root};

/// How long a delivery may take; cron looks once a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is answered at the installation, as the guide has it.
const INSTALLATION: [Answer<'_>; 8] = [
    ("General type of mail configuration:", "Internet Site"),
    ("System mail name:", "example.com"),
    ("Root and postmaster mail recipient:", "jane"),
    ("Other destinations", "example.com, mail.example.com, localhost.example.com, localhost"),
    ("Local networks:", ""),
    ("Mailbox size limit (bytes):", "0"),
    ("Local address extension character:", "+"),
    ("Internet protocols to use:", "all"),
];

/// The same questions, with the configuration as it is as the answer.
const AS_IT_IS: [Answer<'_>; 8] = [
    ("General type of mail configuration:", ""),
    ("System mail name:", ""),
    ("Root and postmaster mail recipient:", ""),
    ("Other destinations", ""),
    ("Local networks:", ""),
    ("Mailbox size limit (bytes):", ""),
    ("Local address extension character:", ""),
    ("Internet protocols to use:", ""),
];

/// A message over SMTP from the neighbour; says whether each recipient was taken.
const FROM_OUTSIDE: &str = r#"
import smtplib, sys
with smtplib.SMTP(sys.argv[1], 25, "outside.example.net", timeout=20) as server:
    print(server.sendmail("joe@example.net", sys.argv[2], "Subject: " + sys.argv[3] + "\r\n\r\nHello.\r\n"))
"#;

/// Why there can be no machine here.
pub fn impossible() -> Option<String> {
    let missing = ["mmdebstrap", "systemd-nspawn", "nsenter", "unshare", "ip", "python3"];
    let missing = missing.into_iter().find(|program| peers::find(program).is_none());
    let rights =
        (!nix::unistd::Uid::effective().is_root()).then(|| "only root can boot a machine".to_owned());
    rights.or_else(|| missing.map(|program| format!("{program} is not installed")))
}

/// Follows the guide and goes on from there.
pub fn run(package: &Path) -> Result<()> {
    if let Some(reason) = impossible() {
        return Err(reason);
    }
    let began = Instant::now();
    let mut tutorial = Tutorial { machine: Machine::boot()? };
    tutorial.follow_guide(package)?;
    tutorial.mail_comes_from_outside()?;
    tutorial.mail_comes_from_programs()?;
    tutorial.log_tools_read_the_log()?;
    tutorial.clients_send_mail()?;
    tutorial.is_measured(package)?;
    tutorial.a_second_instance_runs()?;
    tutorial.mail_survives_a_reboot()?;
    tutorial.mail_survives_an_upgrade(package)?;
    tutorial.goes_through_a_smarthost()?;
    tutorial.is_gone_after_purge()?;
    tutorial.postfix_is_measured()?;
    println!("the guide was followed on a booted machine in {} s", began.elapsed().as_secs());
    Ok(())
}

struct Tutorial {
    machine: Machine,
}

impl Tutorial {
    fn follow_guide(&self, package: &Path) -> Result<()> {
        let guide = root().join("packaging/GUIDE.md");
        let guide = fs::read_to_string(&guide).map_err(|e| format!("read {}: {e}", guide.display()))?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        fs::copy(package, self.machine.path("home/jane").join(&*name))
            .map_err(|e| format!("copy {}: {e}", package.display()))?;
        demand(guide.contains(&*name), || format!("GUIDE.md does not speak of {name}"))?;
        for line in guide.lines().filter_map(|line| line.strip_prefix("    $ ")) {
            println!("  $ {line}");
            self.follow(line)?;
        }
        Ok(())
    }

    /// Types one line of the guide and looks whether it did what the guide says.
    fn follow(&self, line: &str) -> Result<()> {
        let readline = |line: &str| line.replacen("sudo ", "sudo DEBIAN_FRONTEND=readline ", 1);
        if line.contains("apt install -y ./") {
            self.machine.converse(&readline(line), &INSTALLATION)?;
            return self.is_installed();
        }
        if line.contains("dpkg-reconfigure") {
            let before = self.machine.run(&["postconf", "-n"])?;
            self.machine.converse(&readline(line), &AS_IT_IS)?;
            let after = self.machine.run(&["postconf", "-n"])?;
            return demand(before == after, || {
                format!("dpkg-reconfigure without a change changes\n{before}\nto\n{after}")
            });
        }
        if line == "s-nail" {
            let shown = self.machine.converse(line, &[("init", "1"), ("Subject: init", "q")])?;
            return demand(shown.contains("jane"), || format!("s-nail shows\n{shown}"));
        }
        if line.starts_with("ls -R") {
            return self.wait_for("home/jane/Maildir/new", "Subject: init");
        }
        let said = self.machine.type_line(line)?;
        match line {
            "sudo postroad status" => demand(said.contains("master pid"), || format!("{line}: {said}")),
            "mailq" => demand(said.contains("empty"), || format!("{line}: {said}")),
            "sudo postroad check" => demand(said.is_empty(), || format!("{line}: {said}")),
            "sudo ufw allow Postroad" => {
                let rules = self.machine.run(&["ufw", "show", "added"])?;
                demand(rules.contains("allow Postroad"), || format!("ufw: {rules}"))
            }
            _ => Ok(()),
        }
    }

    fn is_installed(&self) -> Result<()> {
        let unit = self.machine.run(&[
            "systemctl",
            "show",
            "--property=ActiveState,SubState,StatusText,Type",
            "postroad",
        ])?;
        for expected in ["ActiveState=active", "StatusText=serving", "Type=notify"] {
            demand(unit.contains(expected), || format!("{expected} is not so:\n{unit}"))?;
        }
        let enabled = self.machine.run(&["systemctl", "is-enabled", "postroad"])?;
        demand(enabled.trim() == "enabled", || format!("the unit is {enabled}"))?;
        let settings = self.machine.run(&["postconf", "-n"])?;
        for expected in [
            "inet_interfaces = all",
            "mydestination = example.com, mail.example.com, localhost.example.com, localhost",
            "myorigin = /etc/mailname",
        ] {
            demand(settings.contains(expected), || format!("{expected} is not in\n{settings}"))?;
        }
        // In tenths; what costs points is explained in the unit.
        let analyze = ["systemd-analyze", "security", "--no-pager", "--threshold=37", "postroad"];
        let exposure = self.machine.run(&analyze)?;
        println!("  {}", exposure.lines().last().unwrap_or_default());
        Ok(())
    }

    fn mail_comes_from_outside(&self) -> Result<()> {
        let send = |to: &str, subject: &str| {
            self.machine.neighbour_runs(&["python3", "-", ADDRESS, to, subject], FROM_OUTSIDE)
        };
        let said = send("admin@example.com", "from outside")?;
        demand(said.success, || format!("admin@example.com is refused: {}", said.text))?;
        self.wait_for("home/jane/Maildir", "Subject: from outside")?;
        let refused = send("someone@example.org", "not for you")?;
        demand(refused.text.contains("Relay access denied"), || format!("a relay: {}", refused.text))?;
        let unknown = send("nobody-of-that-name@example.com", "unknown")?;
        demand(unknown.text.contains("550"), || format!("a user that is not there: {}", unknown.text))?;
        let list = self.machine.type_line("s-nail -H")?;
        demand(list.contains("from outside"), || format!("s-nail -H: {list}"))
    }

    fn mail_comes_from_programs(&self) -> Result<()> {
        self.machine.write("etc/cron.d/greeting", "* * * * * jane echo greetings from cron\n")?;
        self.machine.type_line("printf 'Subject: from sendmail\\n\\nHello.\\n' | /usr/sbin/sendmail jane")?;
        self.machine.type_line(
            "python3 -c \"import smtplib; smtplib.SMTP('localhost').sendmail('jane', 'contact@example.com', 'Subject: from Python')\"",
        )?;
        self.machine.type_line("php -r 'exit(mail(\"jane\", \"from PHP\", \"Hello.\") ? 0 : 1);'")?;
        self.machine.type_line(
            "python3 -c 'import subprocess; subprocess.run([\"/usr/sbin/sendmail\", \"-t\", \"-oi\"], check=True, \
             input=b\"To: jane\\nSubject: from a Python script\\n\\nHello.\\n\")'",
        )?;
        // Commands of users run as they do without a daemon's confinement.
        self.machine.type_line("echo '\\jane, \"|/usr/bin/tee -a /home/jane/commanded | /usr/sbin/sendmail -f jane root+copy\"' > ~/.forward")?;
        self.machine.type_line("printf 'Subject: by a command\\n\\nHello.\\n' | /usr/sbin/sendmail jane")?;
        self.wait_for("home/jane/commanded", "Subject: by a command")?;
        self.machine.type_line("rm ~/.forward")?;
        self.wait_for("home/jane/Maildir", "Subject: from PHP")?;
        self.wait_for("home/jane/Maildir", "Subject: from a Python script")?;
        self.wait_for("home/jane/Maildir", "Subject: from sendmail")?;
        self.wait_for("home/jane/Maildir", "Subject: from Python")?;
        self.wait_for("home/jane/Maildir", "greetings from cron")?;
        fs::remove_file(self.machine.path("etc/cron.d/greeting"))
            .map_err(|e| format!("remove the crontab: {e}"))
    }

    /// rsyslog and the journal have every line, and fail2ban's filter finds what it looks for.
    fn log_tools_read_the_log(&self) -> Result<()> {
        self.wait_for("var/log/mail.log", "status=sent (delivered to maildir)")?;
        let journal = self.machine.run(&["journalctl", "--no-pager", "SYSLOG_IDENTIFIER=postroad/smtpd"])?;
        demand(journal.contains("Relay access denied"), || format!("the journal has\n{journal}"))?;
        let filter = "/etc/fail2ban/filter.d/postroad.conf[mode=aggressive]";
        let found = self.machine.run(&["fail2ban-regex", "/var/log/mail.log", filter])?;
        let matched = found.lines().find(|line| line.starts_with("Lines:")).unwrap_or_default();
        println!("  fail2ban: {matched}");
        demand(!matched.contains(" 0 matched"), || format!("fail2ban finds nothing:\n{found}"))
    }

    /// Programs that speak SMTP themselves.
    fn clients_send_mail(&self) -> Result<()> {
        self.machine.type_line(
            "printf 'Subject: from curl\\n\\nHello.\\n' | curl --silent --show-error smtp://localhost --mail-from jane@example.com \
             --mail-rcpt admin@example.com --upload-file -",
        )?;
        self.machine.type_line(
            "printf 'Subject: from msmtp\\n\\nHello.\\n' | msmtp --host=localhost --from=jane@example.com admin@example.com",
        )?;
        self.wait_for("home/jane/Maildir", "Subject: from curl")?;
        self.wait_for("home/jane/Maildir", "Subject: from msmtp")
    }

    /// A system that was started, has had one message of each kind, and rests.
    fn is_measured(&self, package: &Path) -> Result<()> {
        self.machine.run(&["systemctl", "restart", "postroad"])?;
        self.is_used("at rest")?;
        let archive = fs::metadata(package).map_err(|e| format!("look at {}: {e}", package.display()))?.len();
        Figures::of(&self.machine, "postroad", archive / 1024)?.print("Postroad");
        Ok(())
    }

    /// The same of Debian's Postfix, on the same machine.
    fn postfix_is_measured(&self) -> Result<()> {
        let install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postfix";
        self.machine.run(&["sh", "-c", install])?;
        self.machine.run(&["postconf", "-e", "home_mailbox = Maildir/", "mydestination = example.com"])?;
        self.machine.run(&["systemctl", "restart", "postfix"])?;
        self.is_used("of Postfix")?;
        let archive = "stat --format %s /var/cache/apt/archives/postfix_*.deb";
        let archive = self.machine.run(&["sh", "-c", archive])?;
        let archive: u64 = archive.trim().parse().map_err(|e| format!("{archive:?}: {e}"))?;
        Figures::of(&self.machine, "postfix", archive / 1024)?.print("Postfix");
        Ok(())
    }

    /// A message from outside and one from a program.
    fn is_used(&self, what: &str) -> Result<()> {
        let subject = format!("from outside, {what}");
        self.patiently(
            || {
                let send = ["python3", "-", ADDRESS, "jane@example.com", &subject];
                self.machine.neighbour_runs(&send, FROM_OUTSIDE).is_ok_and(|said| said.success)
            },
            || "nothing is taken from outside".into(),
        )?;
        let line = format!(
            "printf 'Subject: from inside, {what}\\n\\nHello.\\n' | /usr/sbin/sendmail jane@example.com"
        );
        self.machine.type_line(&line)?;
        self.wait_for("home/jane/Maildir", &format!("Subject: {subject}"))?;
        self.wait_for("home/jane/Maildir", &format!("Subject: from inside, {what}"))?;
        // What was needed for a moment has been given back.
        sleep(Duration::from_secs(5));
        Ok(())
    }

    fn a_second_instance_runs(&self) -> Result<()> {
        let script = "set -e
            mkdir /etc/postroad-two
            cp /etc/postroad/main.cf /etc/postroad/master.cf /etc/postroad-two/
            sed -i 's/^smtp .*smtpd$/2525 inet n - n - - smtpd/' /etc/postroad-two/master.cf
            postconf -c /etc/postroad-two -e queue_directory=/var/spool/postroad-two data_directory=/var/lib/postroad-two \
                syslog_name=postroad-two virtual_alias_maps=
            systemctl start postroad@two
            printf 'Subject: the second\\n\\nHello.\\n' | sendmail -C /etc/postroad-two jane
            systemctl reload postroad@two";
        self.machine.run(&["sh", "-c", script])?;
        self.wait_for("home/jane/Maildir", "Subject: the second")?;
        self.wait_for("var/log/mail.log", "postroad-two/local")?;
        let clear = "systemctl stop postroad@two; rm -r /etc/postroad-two /var/spool/postroad-two /var/lib/postroad-two";
        self.machine.run(&["sh", "-c", clear]).map(drop)
    }

    fn hold_back(&self) -> Result<()> {
        self.machine.run(&["postconf", "-e", "local_transport = retry:4.3.0 wait"])?;
        self.machine.run(&["systemctl", "reload", "postroad"]).map(drop)
    }

    fn let_go(&self, subject: &str) -> Result<()> {
        self.machine.run(&["postconf", "-X", "local_transport"])?;
        self.machine.run(&["systemctl", "reload", "postroad"])?;
        self.machine.run(&["postqueue", "-f"])?;
        self.wait_for("home/jane/Maildir", subject)
    }

    fn send_to_wait(&self, subject: &str) -> Result<()> {
        self.machine
            .type_line(&format!("printf 'Subject: {subject}\\n\\nHello.\\n' | /usr/sbin/sendmail jane"))?;
        self.patiently(
            || self.machine.ask(&["postqueue", "-p"], "").is_ok_and(|said| said.text.contains("jane@")),
            || format!("{subject} does not wait in the queue"),
        )
    }

    fn mail_survives_a_reboot(&mut self) -> Result<()> {
        self.hold_back()?;
        self.send_to_wait("through a reboot")?;
        self.machine.reboot()?;
        self.patiently(
            || self.machine.ask(&["postroad", "status"], "").is_ok_and(|said| said.success),
            || "the mail system does not run after a reboot".into(),
        )?;
        self.let_go("Subject: through a reboot")
    }

    fn mail_survives_an_upgrade(&self, package: &Path) -> Result<()> {
        self.hold_back()?;
        self.send_to_wait("through an upgrade")?;
        let upgrade = later(package, 1, &self.machine.path("root"))?;
        let inside = format!("/root/{}", upgrade.file_name().unwrap_or_default().display());
        self.machine.run(&[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "--yes",
            &inside,
        ])?;
        let main = content(&self.machine.path("etc/postroad/main.cf"));
        demand(main.contains("home_mailbox = Maildir/"), || format!("main.cf is\n{main}"))?;
        self.let_go("Subject: through an upgrade")
    }

    fn goes_through_a_smarthost(&self) -> Result<()> {
        let mut answers = AS_IT_IS.to_vec();
        answers[0].1 = "Satellite system";
        answers.insert(2, ("SMTP relay host", "[smtp.example.net]:587"));
        answers.insert(3, ("User name at the smarthost", "jane@example.net"));
        answers.insert(4, ("Password at the smarthost", "secret:word"));
        let line = "sudo DEBIAN_PRIORITY=low DEBIAN_FRONTEND=readline dpkg-reconfigure postroad";
        self.machine.converse(line, &answers)?;
        let settings = self.machine.run(&["postconf", "-n"])?;
        for expected in [
            "relayhost = [smtp.example.net]:587",
            "inet_interfaces = loopback-only",
            "smtp_sasl_auth_enable = yes",
            "smtp_tls_security_level = encrypt",
        ] {
            demand(settings.contains(expected), || format!("{expected} is not in\n{settings}"))?;
        }
        let logins = "/etc/postroad/smarthost_password";
        let found = self.machine.run(&["stat", "--format", "%a %U", logins, &format!("{logins}.db")])?;
        demand(found == "600 root\n600 root\n", || format!("the smarthost's password is {found}"))?;
        let login =
            self.machine.run(&["postmap", "-q", "[smtp.example.net]:587", &format!("hash:{logins}")])?;
        demand(login.trim() == "jane@example.net:secret:word", || format!("the login is {login}"))?;
        let kept = content(&self.machine.path("var/cache/debconf/passwords.dat"));
        demand(!kept.contains("secret:word"), || "debconf keeps the password".into())
    }

    fn is_gone_after_purge(&self) -> Result<()> {
        let purge = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "purge", "--yes", "postroad"];
        self.machine.run(&purge)?;
        let find = ["find", "/etc", "/usr", "/var/lib", "/var/spool", "/run", "-xdev", "-name", "*postroad*"];
        let left = self.machine.run(&find)?;
        demand(left.is_empty(), || format!("left behind:\n{left}"))?;
        let unit = self.machine.ask(&["systemctl", "is-active", "postroad"], "")?;
        demand(!unit.success, || format!("the unit is {}", unit.text))
    }

    fn wait_for(&self, place: &str, text: &str) -> Result<()> {
        let place = self.machine.path(place);
        self.patiently(
            || content(&place).contains(text),
            || {
                let queue = self.machine.ask(&["mailq"], "").map(|said| said.text).unwrap_or_default();
                format!("{text} is not in {}; the queue:\n{queue}", place.display())
            },
        )
    }

    fn patiently(&self, is_so: impl Fn() -> bool, complaint: impl Fn() -> String) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > give_up {
                let log = content(&self.machine.path("var/log/mail.log"));
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                return Err(format!("{}\nthe log ends, newest first:\n{}", complaint(), end.join("\n")));
            }
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}
