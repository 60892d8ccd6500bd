//! A mail system whose programs are followed.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenarios::{Builder, Disk, DiskKind, Instance, PATIENCE, Scripted, Smtp, is_root};

use crate::calls::Effect;
use crate::tracer::{Tracer, Watch, on_word};
use crate::ways::{HANDED_OVER, Way};

/// How long mail is left to go its way before the queue manager is asked to look for it, which makes another way of it.
const UNASKED: Duration = Duration::from_millis(500);

/// A mail system in a scratch folder, and the mail system that it relays to.
pub(crate) struct Site {
    /// Where queue and mailboxes are, if not in the scratch folder.
    pub(crate) disk: Option<Disk>,
    pub(crate) instance: Instance,
    pub(crate) peer: Scripted,
    pub(crate) watch: Arc<Watch>,
}

impl Site {
    /// A mail system that is not started, with what this way of mail needs.
    pub(crate) fn prepare(way: &Way, settings: &[&str]) -> Self {
        let peer = Scripted::start(&[(".", HANDED_OVER)]);
        let builder = Builder::new()
            .main("virtual_mailbox_domains = box.example.com")
            .main("virtual_mailbox_base = $root/mail")
            .main("virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ }, { bob@box.example.com = bob/ } }")
            .main("virtual_uid_maps = static:$uid")
            .main("virtual_gid_maps = static:$gid")
            .main("virtual_minimum_uid = 1")
            .main("smtpd_error_sleep_time = 0")
            // A server that is killed breaks sessions off, and that is nobody's business here.
            .main("notify_classes =")
            .main("minimal_backoff_time = 1s")
            .main("queue_run_delay = 1s")
            // A message that comes alone is delivered early, too.
            .main("early_delivery_concurrency = 1")
            // Of a mailbox whose agent is dead.
            .main("stale_lock_time = 1s")
            .main(&format!("relayhost = [127.0.0.1]:{}", peer.address.port()))
            .master("smtp unix - - n - - smtp")
            .file("aliases", "");
        let builder = way.settings.iter().chain(settings).fold(builder, |builder, line| builder.main(line));
        let site = Self { disk: None, instance: builder.prepare(), peer, watch: Arc::default() };
        site.defer_later(true);
        site
    }

    /// Puts queue and mailboxes on a file system that keeps changes of names in order, where this machine can make one: the
    /// scratch folder may be on any.
    pub(crate) fn put_on_a_journal(&mut self) {
        if is_root("a disk with a journal")
            && DiskKind::EXT4.is_there("deliveries that rely on the order of a journal")
        {
            self.disk = Some(Disk::make(&self.instance, &DiskKind::EXT4));
        }
    }

    /// Starts it, followed.
    pub(crate) fn start(&self) {
        let status = self.follow("postroad", &["start"], b"");
        assert_eq!(status, 0, "it does not start\n{}", self.instance.log());
    }

    /// Ends it at once.
    pub(crate) fn abort(&self) {
        self.instance.postroad(&["abort"]);
        let began = Instant::now();
        while !self.instance.pids("master").is_empty() || !self.instance.pids("qmgr").is_empty() {
            assert!(began.elapsed() < PATIENCE, "it does not end\n{}", self.instance.log());
            for program in ["master", "qmgr"] {
                self.instance.kill(program);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes all mailboxes, so that each delivery makes the same calls.
    pub(crate) fn forget_mail(&self) {
        let mail = self.instance.path("mail");
        for entry in fs::read_dir(mail).expect("read mail/").filter_map(Result::ok) {
            let removed = match entry.path() {
                folder if folder.is_dir() => fs::remove_dir_all(folder),
                file => fs::remove_file(file),
            };
            removed.expect("remove a mailbox");
        }
    }

    /// Runs one of its commands, followed, to its end: the exit status.
    pub(crate) fn follow(&self, program: &str, arguments: &[&str], input: &[u8]) -> i32 {
        let path = self.instance.path("sbin").join(program).display().to_string();
        let mut command = self.instance.command("/bin/sh");
        command.args(on_word(&path, arguments));
        Tracer::start(&self.watch, command, input).wait()
    }

    /// Has mail for `later@example.com` deferred, or delivered to the user of the mail system.
    pub(crate) fn defer_later(&self, defer: bool) {
        let user = self.instance.user();
        let later = if defer { "\"|exit 75\"" } else { user };
        let aliases = format!(
            "later: {later}\nastray: no-such-user\n\
             everybody: ann@box.example.com, {user}, bob@box.example.com\n"
        );
        self.instance.write("etc/aliases", &aliases);
        self.instance.run("postalias", &["etc/aliases"], "").ok();
    }

    /// Sends a message: whether the mail system has taken it, and by which id.
    pub(crate) fn send(&self, sender: &str, recipients: &[&str], content: &str) -> Option<String> {
        let mut client = Smtp::try_connect(self.instance.port)?;
        client.try_read_reply().filter(|greeting| greeting.code == 220)?;
        let recipients = recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>"));
        let first = ["EHLO client.example".to_owned(), format!("MAIL FROM:<{sender}>")];
        for line in first.into_iter().chain(recipients).chain(["DATA".to_owned()]) {
            client.try_command(&line).filter(|reply| reply.code < 400)?;
        }
        let reply = client.try_command(&format!("{content}.")).filter(|reply| reply.code == 250)?;
        reply.text().rsplit(' ').next().map(str::to_owned)
    }

    /// Has everything tried that has been waiting since `began` for longer than it should.
    pub(crate) fn try_all(&self, began: Instant) {
        if began.elapsed() > UNASKED {
            self.instance.try_all();
        }
    }

    /// Whether the queue is empty, as the mail system itself says.
    pub(crate) fn queue_is_empty(&self) -> bool {
        let list = self.instance.run("postqueue", &["-j"], "");
        list.status == 0 && list.stdout.trim().is_empty()
    }

    /// How many calls were seen that a crash may come at.
    pub(crate) fn calls(&self) -> usize {
        self.watch.seen().len()
    }

    /// The calls of the disk among them, by program.
    pub(crate) fn programs(&self) -> Vec<String> {
        let mut programs: Vec<String> = self
            .watch
            .seen()
            .into_iter()
            .filter(|seen| !matches!(seen.effect, Effect::Said(_) | Effect::Heard(_) | Effect::Ends(_)))
            .map(|seen| seen.program)
            .collect();
        programs.sort();
        programs.dedup();
        programs
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.disk.is_some() {
            // It goes before the instance, which would not find there what runs.
            self.instance.kill_all();
        }
    }
}
