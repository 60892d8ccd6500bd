//! What no sane peer, disk or operator does: the daemons say so and go on, and no mail is lost.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use scenarios::{Instance, Smtp, is_root, messages, wait_for};

use crate::site::{NOTE, entry, greeted, only_mail, send, send_deferred, state_of, usual, wait_for_state};

const ANN: &str = "ann@box.example.com";

/// A sequence of bytes that looks like nothing, and is the same in each run (xorshift).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Nonsense of several kinds: noise, frames with lengths that are lies, commands that go wrong.
fn nonsense() -> Vec<Vec<u8>> {
    let frame = |length: u32, content: &[u8]| [&length.to_le_bytes(), content].concat();
    let mut all: Vec<Vec<u8>> = (1..20).map(|seed| noise(seed, 1 << (seed % 12))).collect();
    all.extend((1..40).map(|seed: u64| frame(40, &noise(seed, 40))));
    all.extend((0..40).map(|byte: u8| frame(9, &[byte, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff])));
    all.push(frame(u32::MAX, b"x"));
    all.push(frame(0, b""));
    all.push(frame(100, b"half"));
    all.push(b"\x00".repeat(5000));
    all.push(b"\n".repeat(5000));
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    all.push(
        b"MAIL FROM:<\xff\xfe@>\r\nRCPT TO:<<<>>\r\nBDAT 99999999999999999999\r\nEHLO \x00\r\nDATA\r\n.\r\n"
            .to_vec(),
    );
    all
}

/// Nobody died, nobody panicked, and mail of every kind is still delivered.
fn assert_well(site: &Instance, masters: &[i32]) {
    let before = messages(&site.maildir("ann")).len();
    send(site, "", &[ANN], NOTE);
    site.wait_for_mail("ann", before + 1);
    let log = site.log();
    for sign in ["panicked", "was ended by signal", "exited with status"] {
        assert!(!log.contains(sign), "{sign}: {log}");
    }
    assert_eq!(site.pids("master"), masters);
}

#[test]
fn nonsense_at_the_smtp_port_harms_nobody() {
    let site = usual().main("smtpd_client_connection_count_limit = 0").start();
    let masters = site.pids("master");
    for bytes in nonsense() {
        let mut client = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
        client.set_read_timeout(Some(scenarios::PATIENCE)).unwrap();
        // The server may close first.
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    assert_well(&site, &masters);
}

fn sockets(site: &Instance) -> Vec<PathBuf> {
    let folders = ["queue/public", "queue/private", "queue/submit"]
        .map(|folder| fs::read_dir(site.path(folder)).unwrap());
    folders.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn nonsense_at_the_sockets_harms_nobody() {
    let site = usual().start();
    let masters = site.pids("master");
    let sockets = sockets(&site);
    assert!(sockets.len() >= 10, "{sockets:?}");
    for socket in &sockets {
        for bytes in nonsense() {
            let mut client =
                UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
            client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let _ = client.write_all(&bytes);
        }
    }
    assert_well(&site, &masters);
    send(&site, &format!("{}@example.com", site.user()), &["astray@example.com"], NOTE);
    only_mail(&site, site.user());
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn damaged_queue_files_are_set_aside_and_the_others_delivered() {
    let site = usual().start();
    let ids: Vec<String> = (0..60).map(|_| send(&site, "", &["later@example.com"], NOTE)).collect();
    ids.iter().for_each(|id| wait_for_state(&site, id, "deferred"));
    site.postroad(&["stop"]).ok();
    let mut paths = files(&site.path("queue/deferred"));
    paths.sort();
    let (good, bad) = paths.split_at(10);
    for (number, path) in bad.iter().enumerate() {
        let mut bytes = fs::read(path).unwrap();
        let place = number * bytes.len() / bad.len();
        match number % 2 {
            0 => bytes.truncate(place),
            _ => bytes[place] ^= 1 << (number % 8),
        }
        // In place, so that owner and mode stay.
        fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap().write_all(&bytes).unwrap();
    }
    site.write("queue/incoming/0/README", "not a queue file");
    site.write("etc/aliases", &format!("later: {}\n", site.user()));
    site.run("postalias", &["etc/aliases"], "").ok();
    site.start();
    site.run("postqueue", &["-f"], "").ok();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let corrupt = || files(&site.path("queue/corrupt")).iter().map(name).collect::<BTreeSet<_>>();
    let waiting = || site.run("postqueue", &["-j"], "").ok().stdout.lines().count();
    wait_for("each message to be delivered or set aside", || {
        site.run("postqueue", &["-f"], "");
        let delivered = messages(&site.maildir(site.user())).len();
        (delivered + corrupt().len() >= ids.len() && waiting() == 0).then_some(())
    });
    let (corrupt, delivered) = (corrupt(), messages(&site.maildir(site.user())));
    assert!(corrupt.len() >= bad.len() / 2, "{} of {}:\n{}", corrupt.len(), bad.len(), site.log());
    assert!(good.iter().all(|path| !corrupt.contains(&name(path))));
    for mail in &delivered {
        let text = String::from_utf8_lossy(mail);
        assert!(text.contains("\nSubject: note\n") && text.ends_with("\n\nHello.\n"), "{text}");
    }
    corrupt.iter().for_each(|id| drop(site.wait_for_log(&["qmgr", id, "corrupt/"])));
    assert!(!site.log().contains("panicked"), "{}", site.log());
    println!("{} set aside, {} delivered", corrupt.len(), delivered.len());
}

#[test]
fn a_corrupt_table_defers_and_the_log_says_what_to_do() {
    let site = usual().main("smtpd_hard_error_limit = 1000").start();
    site.write("etc/virtual.db", "This is no table.");
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    let reply = wait_for("the table to be looked at", || {
        let reply = client.command("RCPT TO:<admin@lists.example.com>");
        (reply.code != 250).then_some(reply)
    });
    assert_eq!((reply.code, &reply.text()[..5]), (451, "4.3.0"), "{reply:?}");
    site.wait_for_log(&["warning: ", "etc/virtual", "postmap"]);
    // Mail that is under way already waits; mail that the table has no part in goes on.
    site.run("sendmail", &["admin@lists.example.com"], "Subject: from within\n\nHello.\n").ok();
    site.run("postmap", &["etc/virtual"], "").ok();
    wait_for("the mended table", || {
        (client.command("RCPT TO:<admin@lists.example.com>").code == 250).then_some(())
    });
    wait_for("the message from within", || {
        site.try_all();
        (messages(&site.maildir(site.user())).len() == 1).then_some(())
    });
}

#[test]
fn an_unreadable_configuration_refuses_the_start_and_keeps_what_runs() {
    let site = usual().start();
    fs::set_permissions(site.path("etc/main.cf"), Permissions::from_mode(0o0)).unwrap();
    let reload = site.postroad(&["reload"]);
    assert!(reload.status != 0 && reload.stderr.contains("main.cf: Permission denied"), "{reload:?}");
    let mut client: Smtp = greeted(&site);
    assert_eq!(client.message("jane@client.example", &[ANN], NOTE).code, 250);
    only_mail(&site, "ann");
    site.kill("master");
    let start = site.postroad(&["start"]);
    assert!(
        start.status != 0 && start.stderr.contains("main.cf: cannot be read: Permission denied"),
        "{start:?}"
    );
    fs::set_permissions(site.path("etc/main.cf"), Permissions::from_mode(0o644)).unwrap();
    site.start();
}

/// A mail system with a service whose program does this, and nothing else.
fn with_odd_program(script: &str) -> Instance {
    let site = usual().master("odd unix - - n 60 1 discard").prepare();
    fs::rename(site.path("sbin/discard"), site.path("sbin/discard.real")).unwrap();
    let real = site.path("sbin/discard.real").display().to_string();
    site.write("sbin/discard", &format!("#!/bin/sh\n[ \"$1\" = check ] && exec {real} check\n{script}\n"));
    fs::set_permissions(site.path("sbin/discard"), Permissions::from_mode(0o755)).unwrap();
    site.start();
    site
}

#[test]
fn a_program_that_says_nonsense_to_master_is_ended() {
    let site = with_odd_program("printf '\\377\\377\\377\\377\\377' >&3; exec sleep 300");
    site.wait_for_log(&["master[", "protocol error", "it is ended"]);
    site.wait_for_log(&["process discard pid", "(odd) was ended by signal SIGKILL; next start in"]);
    assert_eq!(greeted(&site).message("jane@client.example", &[ANN], NOTE).code, 250);
    only_mail(&site, "ann");
}

#[test]
fn a_program_that_has_closed_its_way_to_master_keeps_nobody_busy() {
    let site = with_odd_program("exec 3>&-; exec sleep 300");
    let closed = || {
        let status = site.postroad(&["status"]).stdout;
        let pid = status.split_once("odd: discard pid ")?.1.split_once(',')?.0;
        let open = format!("/proc/{pid}/fd");
        (Path::new(&open).exists() && !Path::new(&format!("{open}/3")).exists()).then_some(())
    };
    wait_for("the end of its way", closed);
    let master = site.pids("master")[0];
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{master}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, began) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_millis(500));
    // A tick is the hundredth part of a second.
    let (busy, all) = ((ticks() - before) * 10, began.elapsed().as_millis());
    assert!(u128::from(busy) < all / 5, "{busy} of {all} ms");
}

#[test]
fn a_master_cf_that_is_gone_is_not_taken_for_one_without_services() {
    let site = usual().start();
    fs::rename(site.path("etc/master.cf"), site.path("etc/gone")).unwrap();
    let reload = site.postroad(&["reload"]);
    assert!(reload.status != 0 && reload.stderr.contains("master.cf: does not exist"), "{reload:?}");
    assert_eq!(greeted(&site).message("jane@client.example", &[ANN], NOTE).code, 250);
    only_mail(&site, "ann");
    // Commands do not need it.
    assert!(site.run("mailq", &[], "").ok().stdout.contains("empty"));
    site.postroad(&["stop"]).ok();
    let start = site.postroad(&["start"]);
    assert!(start.status != 0 && start.stderr.contains("master.cf: does not exist"), "{start:?}");
}

#[test]
fn mail_for_a_maildir_that_cannot_be_written_waits() {
    let site = usual().start();
    send(&site, "jane@client.example", &[ANN], NOTE);
    site.wait_for_mail("ann", 1);
    let folders = ["tmp", "new"].map(|folder| site.maildir("ann").join(folder));
    folders.iter().for_each(|folder| fs::set_permissions(folder, Permissions::from_mode(0o500)).unwrap());
    let id = send(&site, "jane@client.example", &[ANN], NOTE);
    wait_for_state(&site, &id, "deferred");
    let reason = entry(&site, &id).unwrap()["recipients"][0]["delay_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("Permission denied") && reason.contains("ann/new"), "{reason}");
    assert!(site.run("mailq", &[], "").ok().stdout.contains("Permission denied"));
    folders.iter().for_each(|folder| fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap());
    site.run("postqueue", &["-f"], "").ok();
    site.wait_for_mail("ann", 2);
    site.wait_for_empty_queue();
}

/// A small disk of its own under the queue; it goes away with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(site: &Instance, kilobytes: usize) -> Self {
        let path = site.path("queue");
        let (uid, gid) = (nix::unistd::User::from_name(site.user()).unwrap().unwrap().uid, 0);
        let options = format!("size={kilobytes}k,mode=755,uid={uid},gid={gid}");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mount a tmpfs");
        Self(path)
    }

    /// Takes all of the space but this.
    fn fill(&self, leave_kilobytes: usize) {
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        let length = filler.metadata().unwrap().len();
        filler.set_len(length.saturating_sub(u64::try_from(leave_kilobytes * 1024).unwrap())).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_refuses_new_mail_and_loses_none() {
    if !is_root("a full disk") {
        return;
    }
    let site = usual().main("message_size_limit = 100000").main("smtpd_hard_error_limit = 1000").prepare();
    let disk = SmallDisk::mount(&site, 2048);
    site.start();
    let waiting = send_deferred(&site);
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect(&format!("RCPT TO:<{ANN}>"), 250);
    client.expect("DATA", 354);
    client.send_raw(NOTE.as_bytes());
    disk.fill(0);
    client.send_raw(&b"0123456789\r\n".repeat(8000));
    let reply = client.expect(".", 452);
    assert!(reply.text().starts_with("4.3.1 "), "{reply:?}");
    let reply = wait_for("the full disk to be noticed", || {
        let reply = client.command("MAIL FROM:<jane@client.example>");
        client.command("RSET");
        (reply.code != 250).then_some(reply)
    });
    assert_eq!((reply.code, &reply.text()[..5]), (452, "4.3.1"), "{reply:?}");
    let submission = site.run("sendmail", &[ANN], NOTE);
    assert_ne!(submission.status, 0, "{submission:?}");
    // Attempts while nothing can be written down, and then space again.
    site.run("postqueue", &["-f"], "");
    disk.empty();
    wait_for("new mail to be taken", || {
        let reply = client.command("MAIL FROM:<jane@client.example>");
        client.command("RSET");
        (reply.code == 250).then_some(())
    });
    assert_eq!(client.message("jane@client.example", &[ANN], NOTE).code, 250);
    site.wait_for_mail("ann", 1);
    wait_for_state(&site, &waiting, "deferred");
    assert_eq!(messages(&site.maildir("ann")).len(), 1);
    assert_eq!(state_of(&site, &waiting).as_deref(), Some("deferred"));
    site.postroad(&["stop"]).ok();
    wait_for("the end of master", || site.pids("master").is_empty().then_some(()));
}
