//! What a recipient, or somebody beside him, prepares where root's programs deliver: a link, another's file, a FIFO, a
//! file that changes between the look and the open. Mail waits or comes back; nobody else's file is read or written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use scenarios::{Instance, Over, Strace, Tracing, is_root, messages};

use super::{SECRET, assert_kept, give, prepared, secret, site};
use crate::rights::{RECIPIENT, user};
use crate::site::{NOTE, send};

const GAMES: &str = "games@example.com";

/// Sends a message that must not be delivered, waits for the line that says so, and takes it out of the queue.
fn assert_refused(site: &Instance, recipient: &str, because: &str) -> String {
    let id = send(site, "", &[recipient], NOTE);
    let line = site.wait_for_log(&[&id, "to=<", "status="]);
    assert!(!line.contains("status=sent") && line.contains(because), "{because}: {line}");
    site.run("postsuper", &["-d", "ALL"], "").ok();
    line
}

/// A folder that is root's alone.
fn roots_folder(site: &Instance) -> std::path::PathBuf {
    let folder = site.path("roots");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    folder
}

#[test]
fn a_maildir_that_leads_elsewhere_gets_only_what_its_user_could_write() {
    if !is_root("a Maildir of links") {
        return;
    }
    let site = prepared(site());
    let (maildir, roots) = (site.maildir(RECIPIENT), roots_folder(&site));
    // All of it a link to a folder that is not his.
    symlink(&roots, &maildir).unwrap();
    assert_refused(&site, GAMES, "Permission denied");
    fs::remove_file(&maildir).unwrap();
    for linked in ["new", "tmp"] {
        fs::create_dir(&maildir).unwrap();
        give(&maildir);
        for folder in ["new", "tmp", "cur"] {
            let path = maildir.join(folder);
            if folder == linked {
                symlink(&roots, &path).unwrap()
            } else {
                fs::create_dir(&path).unwrap()
            }
            give(&path);
        }
        if linked == "new" {
            assert_refused(&site, GAMES, "Permission denied");
        } else {
            // A message without a name does not go through tmp/.
            let id = send(&site, "", &[GAMES], NOTE);
            site.wait_for_log(&[&id, "to=<", "status=sent"]);
            assert_eq!(messages(&maildir).len(), 1);
        }
        fs::remove_dir_all(&maildir).unwrap();
    }
    // Another's Maildir in his place.
    for folder in ["", "new", "tmp", "cur"] {
        fs::create_dir(maildir.join(folder)).unwrap();
        fs::set_permissions(maildir.join(folder), Permissions::from_mode(0o700)).unwrap();
        chown(maildir.join(folder), Some(user("news").uid.as_raw()), None).unwrap();
    }
    assert_refused(&site, GAMES, "Permission denied");
    assert!(fs::read_dir(roots).unwrap().next().is_none());
    assert!(messages(&maildir).is_empty());
    assert_kept(&site);
}

/// The mail spool as most systems have it, and as those have it that let everybody write there.
const SPOOLS: [(u32, u32); 2] = [(0o2775, 8), (0o1777, 0)];

#[test]
fn a_mailbox_that_is_no_file_of_its_user_is_not_written() {
    if !is_root("a mailbox of links") {
        return;
    }
    for (mode, group) in SPOOLS {
        let site = prepared(site().main("mail_spool_directory = $root/spool"));
        let spool = site.path("spool");
        fs::create_dir(&spool).unwrap();
        chown(&spool, Some(0), Some(group)).unwrap();
        fs::set_permissions(&spool, Permissions::from_mode(mode)).unwrap();
        let (mailbox, secret) = (spool.join(RECIPIENT), secret(&site));
        symlink(&secret, &mailbox).unwrap();
        give(&mailbox);
        assert_refused(&site, GAMES, "symbolic link");
        fs::remove_file(&mailbox).unwrap();
        // A link of his own to a file of his own is no better: tomorrow it leads elsewhere.
        let own = site.path("home/games/own");
        fs::write(&own, "").unwrap();
        give(&own);
        fs::hard_link(&own, &mailbox).unwrap();
        assert_refused(&site, GAMES, "hard links");
        fs::remove_file(&mailbox).unwrap();
        mkfifo(&mailbox, Mode::S_IRWXU).unwrap();
        give(&mailbox);
        assert_refused(&site, GAMES, "cannot update mailbox");
        fs::remove_file(&mailbox).unwrap();
        // What another has put there first.
        fs::write(&mailbox, "").unwrap();
        fs::set_permissions(&mailbox, Permissions::from_mode(0o666)).unwrap();
        chown(&mailbox, Some(user("news").uid.as_raw()), None).unwrap();
        assert_refused(&site, GAMES, "not owned by recipient");
        assert_eq!(fs::metadata(&mailbox).unwrap().len(), 0);
        fs::remove_file(&mailbox).unwrap();
        // A lock that never goes away leads nowhere, and is not followed.
        let lock = spool.join("games.lock");
        symlink(&secret, &lock).unwrap();
        assert_refused(&site, GAMES, "unable to create lock file");
        fs::remove_file(&lock).unwrap();
        send(&site, "", &[GAMES], NOTE);
        site.wait_for_empty_queue();
        let found = fs::metadata(&mailbox).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (user(RECIPIENT).uid.as_raw(), 0o600), "{mode:o}");
        assert!(fs::read_to_string(&mailbox).unwrap().ends_with("\nHello.\n\n"));
        assert_kept(&site);
    }
}

/// Has `swap` done over and over while these messages are sent and all are gone.
fn while_swapping(site: &Instance, recipient: &str, swap: impl Fn() + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                swap();
            }
        });
        let _end = Over(&done);
        let mut client = crate::site::greeted(site);
        for _ in 0..100 {
            assert_eq!(client.message(GAMES, &[recipient], NOTE).code, 250);
        }
        scenarios::wait_for("each message to be looked at", || {
            let looked =
                site.log().lines().filter(|line| line.contains(&format!("to=<{recipient}>"))).count();
            (looked >= 100).then_some(())
        });
    });
    site.run("postsuper", &["-d", "ALL"], "").ok();
}

/// Puts a file, then a link to root's secret, in a path's place.
fn swap(path: &Path, text: &str, secret: &Path) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    give(&next);
    fs::rename(&next, path).unwrap();
    symlink(secret, &next).unwrap();
    give(&next);
    fs::rename(&next, path).unwrap();
}

/// Whether any mail that came to the user, or the log, has a word of the secret.
fn assert_untold(site: &Instance) {
    for mail in messages(&site.maildir(RECIPIENT)) {
        assert!(!String::from_utf8_lossy(&mail).contains(SECRET));
    }
    assert_kept(site);
}

#[test]
fn a_forward_file_that_becomes_a_link_between_look_and_open_tells_nothing() {
    if !is_root("a race for .forward") {
        return;
    }
    let site = prepared(site());
    let (forward, secret) = (site.path("home/games/.forward"), secret(&site));
    while_swapping(&site, GAMES, || swap(&forward, "\\games\n", &secret));
    assert_untold(&site);
}

#[test]
fn a_list_that_becomes_a_link_between_look_and_open_tells_nothing() {
    if !is_root("a race for :include:") {
        return;
    }
    let list = "aliases";
    let site = prepared(site().file(list, "postmaster: games\nlist: :include:$root/home/games/list\n"));
    let (file, secret) = (site.path("home/games/list"), secret(&site));
    while_swapping(&site, "list@example.com", || swap(&file, "games\n", &secret));
    assert_untold(&site);
}

#[test]
fn a_forward_file_of_another_is_not_believed() {
    if !is_root("a foreign .forward") {
        return;
    }
    let site = prepared(site());
    let forward = site.path("home/games/.forward");
    fs::write(&forward, format!("|touch {}\n", site.path("mail/evil").display())).unwrap();
    chown(&forward, Some(user("news").uid.as_raw()), None).unwrap();
    send(&site, "", &[GAMES], NOTE);
    site.wait_for_mail(RECIPIENT, 1);
    site.wait_for_log(&["has bad owner uid"]);
    give(&forward);
    fs::set_permissions(&forward, Permissions::from_mode(0o646)).unwrap();
    send(&site, "", &[GAMES], NOTE);
    site.wait_for_mail(RECIPIENT, 2);
    site.wait_for_log(&["is world writable"]);
    assert!(!site.path("mail/evil").exists());
}

#[test]
fn forwarding_in_a_circle_ends_with_a_bounce() {
    if !is_root("forwarding in a circle") {
        return;
    }
    let circle = "postmaster: root\nhere: there\nthere: here\nlist: :include:$root/etc/list\n";
    let site = prepared(site().file("aliases", circle).file("list", "list\nlist@example.com\n"));
    fs::write(site.path("home/games/.forward"), "games@example.com\n").unwrap();
    give(&site.path("home/games/.forward"));
    for recipient in ["here@example.com", "list@example.com", GAMES] {
        send(&site, "news@example.com", &[recipient], NOTE);
    }
    site.wait_for_empty_queue();
    assert!(site.log().lines().count() < 200, "{}", site.log());
    assert_kept(&site);
}

#[test]
fn mail_for_a_home_that_is_gone_waits_and_the_log_says_what_is_missing() {
    if !is_root("a home that is gone") {
        return;
    }
    let site = prepared(site().main("home_mailbox = Maildir/").file("aliases", "postmaster: root\n"));
    let line = assert_refused(&site, "list@example.com", "status=deferred");
    assert!(line.contains("/var/list") && line.contains("dsn=4."), "{line}");
    assert!(!Path::new("/var/list").exists());
}

#[test]
fn a_user_database_that_cannot_be_opened_makes_nobody_unknown() {
    if !is_root("a user database that cannot be opened") {
        return;
    }
    let check = "local_recipient_maps = unix:passwd.byname";
    let site = prepared(site().main(check).main("smtpd_hard_error_limit = 100"));
    send(&site, "", &[GAMES], NOTE);
    site.wait_for_mail(RECIPIENT, 1);
    let fault = Tracing {
        calls: "openat".into(),
        fault: Some("openat:error=ENFILE".into()),
        when: "1+".into(),
        ..Tracing::default()
    };
    // What is known of a user is forgotten after a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let strace = Strace::attach(&site.pids("local"), &fault, &site.path("strace"));
    let id = send(&site, "", &[GAMES], NOTE);
    let line = site.wait_for_log(&[&id, "to=<", "status="]);
    drop(strace);
    assert!(line.contains("status=deferred") && line.contains("Too many open files"), "{line}");
    let strace = Strace::attach(&site.pids("smtpd"), &fault, &site.path("strace"));
    let mut client = crate::site::greeted(&site);
    client.expect("MAIL FROM:<>", 250);
    let reply = client.command(&format!("RCPT TO:<{GAMES}>"));
    drop(strace);
    assert!(reply.code / 100 == 4, "{reply:?}");
    site.try_all();
    site.wait_for_mail(RECIPIENT, 2);
}

#[test]
fn postmap_in_a_folder_for_all_writes_no_file_of_another() {
    if !is_root("a sticky folder") {
        return;
    }
    let site = prepared(site());
    let (folder, secret) = (site.path("mail"), secret(&site));
    fs::write(folder.join("table"), "key value\n").unwrap();
    symlink(&secret, folder.join("table.db")).unwrap();
    for name in ["table.db.tmp", "table.db.new", "table.db.lock", ".table.db.tmp", "table.db~"] {
        symlink(&secret, folder.join(name)).unwrap();
        give(&folder.join(name));
    }
    give(&folder.join("table.db"));
    let table = folder.join("table").display().to_string();
    let refused = site.run("postmap", &[&table], "");
    assert!(refused.status != 0 && refused.stderr.contains("a symbolic link of uid"), "{refused:?}");
    fs::remove_file(folder.join("table.db")).unwrap();
    assert_ne!(site.run("postmap", &[&table], "").status, 0);
    fs::remove_file(folder.join("table.db.new")).unwrap();
    site.run("postmap", &[&table], "").ok();
    assert_kept(&site);
}
