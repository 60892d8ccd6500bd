//! Folders that are full or nearly full: small file systems of their own, where a write is cut short as it is in
//! life and not refused by strace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use scenarios::{Instance, Output, Smtp, is_root, messages, run, wait_for};

use crate::site::{NOTE, greeted, send, send_deferred, usual};

/// Larger than what is left free.
const LARGE: usize = 200_000;
const FREE: usize = 50_000;

/// A file system in memory in the place of a folder of an instance; taken away when dropped.
struct Small {
    folder: PathBuf,
}

impl Small {
    fn mount(site: &Instance, name: &str) -> Self {
        let folder = site.path(name);
        let own = folder.metadata().expect("look at the folder");
        command("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", text(&folder)]).ok();
        fs::set_permissions(&folder, fs::Permissions::from_mode(own.mode() & 0o7777)).expect("its mode");
        chown(&folder, Some(own.uid()), Some(own.gid())).expect("its owner");
        Self { folder }
    }

    /// Leaves so many bytes free.
    fn fill(&self, free: usize) {
        let filler = self.folder.join("filler");
        while fs::OpenOptions::new().append(true).create(true).open(&filler).is_ok_and(|mut file| {
            use std::io::Write;
            file.write_all(&[b'x'; 4096]).is_ok()
        }) {}
        let file = fs::OpenOptions::new().write(true).open(&filler).expect("open the filler");
        let length = file.metadata().expect("look at the filler").len();
        file.set_len(length - u64::try_from(free).expect("a small number")).expect("cut the filler");
    }

    /// Lets nothing be written, or everything again. What is being written holds it up for a moment.
    fn set_read_only(&self, is_read_only: bool) {
        let option = if is_read_only { "remount,ro" } else { "remount,rw,size=4m" };
        wait_for(option, || {
            (command("mount", &["-o", option, text(&self.folder)]).status == 0).then_some(())
        });
    }

    fn make_space(&self) {
        fs::remove_file(self.folder.join("filler")).expect("remove the filler");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        command("umount", &["-l", text(&self.folder)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn command(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, b"")
}

fn large() -> String {
    format!("{NOTE}{}The end.\r\n", "0123456789 0123456789 0123456789\r\n".repeat(LARGE / 34))
}

/// Sends content, and gives the first reply that refuses it.
fn refusal(client: &mut Smtp, recipient: &str, content: &str) -> Option<(u16, String)> {
    for line in ["MAIL FROM:<>", &format!("RCPT TO:<{recipient}>"), "DATA", &format!("{content}.")] {
        let reply = client.command(line);
        if reply.code >= 400 {
            client.command("RSET");
            return Some((reply.code, reply.text()));
        }
    }
    None
}

#[test]
fn a_full_mail_folder_defers_and_shows_no_piece_of_a_message() {
    if !is_root("a full mail folder") {
        return;
    }
    let site = usual()
        .main(
            "virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ }, { box@box.example.com = box } }",
        )
        .main("allow_mail_to_files = alias\nminimal_backoff_time = 1h\nmaximal_backoff_time = 1h")
        .file("aliases", "postmaster: $user\nfile: $root/mail/file\n")
        .prepare();
    let small = Small::mount(&site, "mail");
    site.start();
    let user = format!("{}@example.com", site.user());
    let recipients = ["ann@box.example.com", "box@box.example.com", &user, "file@example.com"];
    // What is there before must stay as it is.
    send(&site, "", &recipients, NOTE);
    site.wait_for_empty_queue();
    let (boxes, kept) = (["mail/box", "mail/file"], |path: &&str| fs::read(site.path(path)).unwrap());
    let before: Vec<_> = boxes.iter().map(kept).collect();
    for free in [FREE, 0] {
        small.fill(free);
        let id = send(&site, "", &recipients, &large());
        for recipient in recipients {
            let line = site.wait_for_log(&[&id, &format!("to=<{recipient}>"), "status="]);
            let told = line.contains("status=deferred") && line.contains("No space left on device");
            assert!(told && (line.contains("dsn=4.2.2") || line.contains("dsn=4.3.1")), "{line}");
        }
        assert_eq!(boxes.iter().map(kept).collect::<Vec<_>>(), before, "{free}");
        for mailbox in ["ann", site.user()] {
            assert_eq!(messages(&site.maildir(mailbox)).len(), 1, "{free} {mailbox}");
            let unfinished = fs::read_dir(site.maildir(mailbox).join("tmp")).unwrap().count();
            assert_eq!(unfinished, 0, "{free} {mailbox}");
        }
        site.run("postsuper", &["-h", &id], "").ok();
        small.make_space();
    }
    site.run("postsuper", &["-H", "ALL"], "").ok();
    let ends = |path: &str| fs::read_to_string(site.path(path)).unwrap().matches("The end.\n").count();
    wait_for("the mail to be delivered", || {
        site.try_all();
        (messages(&site.maildir("ann")).len() == 3 && messages(&site.maildir(site.user())).len() == 3)
            .then_some(())
    });
    wait_for("the boxes to have it", || boxes.iter().all(|path| ends(path) == 2).then_some(()));
    site.wait_for_empty_queue();
    for mailbox in ["ann", site.user()] {
        let found = messages(&site.maildir(mailbox));
        assert_eq!(found.len(), 3, "{mailbox}");
        let whole =
            found.iter().filter(|mail| mail.len() > LARGE / 2 && mail.ends_with(b"The end.\n")).count();
        assert_eq!(whole, 2, "{mailbox}");
    }
    for path in boxes {
        let text = String::from_utf8(fs::read(site.path(path)).unwrap()).unwrap();
        assert_eq!(text.matches("The end.\n").count(), 2, "{path} {}", site.log());
        assert_eq!(text.lines().filter(|line| line.starts_with("From ")).count(), 3, "{path}");
    }
}

#[test]
fn a_queue_that_is_nearly_full_refuses_what_does_not_fit_and_takes_it_later() {
    if !is_root("a nearly full queue") {
        return;
    }
    let site = usual().main("message_size_limit = 0").prepare();
    let small = Small::mount(&site, "queue");
    site.start();
    send(&site, "", &["ann@box.example.com"], NOTE);
    site.wait_for_mail("ann", 1);
    site.wait_for_empty_queue();
    small.fill(FREE);
    let refused = refusal(&mut greeted(&site), "ann@box.example.com", &large());
    let (code, words) = refused.expect("a refusal");
    assert!(code == 452 && words.starts_with("4.3.1"), "{code} {words}");
    site.wait_for_log(&["No space left on device", "queue"]);
    let output = site.run("sendmail", &["ann@box.example.com"], &large());
    assert!(output.status == 75 && output.stderr.contains("No space left on device"), "{output:?}");
    // The postmaster is told of the session; of the message itself there is nothing.
    let left = fs::read_dir(site.path("queue/maildrop")).unwrap().count();
    assert_eq!(left, 0);
    small.make_space();
    send(&site, "", &["ann@box.example.com"], &large());
    site.wait_for_mail("ann", 2);
}

#[test]
fn a_queue_that_becomes_read_only_refuses_mail_and_goes_on_when_it_is_writable() {
    if !is_root("a read-only queue") {
        return;
    }
    let site = usual()
        .main("minimal_backoff_time = 1h\nmaximal_backoff_time = 1h\nmessage_size_limit = 0")
        .prepare();
    let small = Small::mount(&site, "queue");
    // Master holds its lock file open, which a disk that breaks would not ask for and the operator's mount does.
    site.start();
    site.postroad(&["stop"]).ok();
    let _lock = Small::mount(&site, "queue/pid");
    site.start();
    let waiting = send_deferred(&site);
    small.set_read_only(true);
    let refused = refusal(&mut greeted(&site), "ann@box.example.com", NOTE);
    let (code, words) = refused.expect("a refusal");
    assert!((400..500).contains(&code) && words.starts_with("4."), "{code} {words}");
    site.wait_for_log(&["cleanup[", "/queue/incoming/", "Read-only file system"]);
    let output = site.run("sendmail", &["ann@box.example.com"], NOTE);
    assert!(output.status == 75 || output.status == 0, "{output:?}");
    assert!(output.status == 0 || output.stderr.contains("Read-only file system"), "{output:?}");
    for option in ["-h", "-d"] {
        let output = site.run("postsuper", &[option, &waiting], "");
        assert!(output.status != 0 && output.stderr.contains("Read-only file system"), "{option} {output:?}");
    }
    // An attempt that cannot be written down; the message stays.
    site.run("postqueue", &["-f"], "");
    site.wait_for_log(&["qmgr[", &waiting, "Read-only file system"]);
    assert!(site.run("postqueue", &["-j"], "").ok().stdout.contains(&waiting));
    small.set_read_only(false);
    send(&site, "", &["ann@box.example.com"], NOTE);
    let expected = 1 + usize::from(output.status == 0);
    site.wait_for_mail("ann", expected);
    site.run("postsuper", &["-d", &waiting], "").ok();
    wait_for("the queue to become empty", || {
        site.try_all();
        site.queue_ids().is_empty().then_some(())
    });
}
