//! `sendmail` hands its message to pickup over the socket that every user reaches; whatever is not as it should be there, the
//! message goes through `maildrop/`, and nobody loses one.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use scenarios::{Instance, is_root, messages, run, wait_for};

use crate::rights::{RECIPIENT, as_games, roots, user};
use crate::site::{only_mail, signal, usual};

const MAIL: &str = "Subject: handed over\n\nHello.\n";

/// A submission as a stranger may write it, with the length before it that pickup's socket wants.
fn submission(recipient: &str) -> Vec<u8> {
    let head = format!("postroad-submission 1\nsender stranger@example.com\nrecipient {recipient}\n\n");
    let length = u64::try_from(MAIL.len()).unwrap().to_le_bytes();
    let bytes = [head.as_bytes(), MAIL.as_bytes(), b"\0postroad-end", &length].concat();
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], &bytes].concat()
}

fn connect(site: &Instance) -> UnixStream {
    let client = UnixStream::connect(site.path("queue/submit/pickup")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client
}

/// What pickup says to this; none if it has closed.
fn answer(site: &Instance, bytes: &[u8]) -> Option<char> {
    let (mut client, mut answer) = (connect(site), [0]);
    // It may have closed already.
    let _ = client.write_all(bytes);
    client.read_exact(&mut answer).ok().map(|()| char::from(answer[0]))
}

/// No file can be made there, so that what comes through has been handed over.
fn close_maildrop(site: &Instance) {
    fs::set_permissions(site.path("queue/maildrop"), Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn mail_is_handed_over_without_a_file_in_between() {
    let site = usual().start();
    close_maildrop(&site);
    site.run("sendmail", &["-f", "", "-F", "Jane Doe", "ann@box.example.com"], MAIL).ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.starts_with("Return-Path: <>\n") && mail.ends_with("\n\nHello.\n"), "{mail}");
    site.wait_for_log(&["/pickup[", ": uid=", " from=<>"]);
}

#[test]
fn who_submits_is_told_by_the_kernel() {
    if !is_root("another user") {
        return;
    }
    let site = roots().start();
    // There is no set-gid postdrop here.
    let program = site.path("sbin/sendmail").display().to_string();
    run(as_games(&site, &[&program, "-f", "root@example.com", "ann@box.example.com"]), MAIL.as_bytes()).ok();
    let uid = user(RECIPIENT).uid;
    let mail = only_mail(&site, "ann");
    assert!(mail.contains(&format!("(Postroad, from userid {uid})")), "{mail}");
    site.wait_for_log(&[&format!("uid={uid} from=<root@example.com>")]);
    let socket = fs::metadata(site.path("queue/submit")).unwrap().permissions();
    assert_eq!(socket.mode() & 0o7777, 0o755);
    let replaced = as_games(&site, &["rm", "-f", &site.path("queue/submit/pickup").display().to_string()]);
    assert_ne!(run(replaced, b"").status, 0);
}

#[test]
fn a_pickup_that_stands_still_is_left_for_maildrop_and_takes_nothing_twice() {
    let site = usual().start();
    // It has run once.
    site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
    site.wait_for_mail("ann", 1);
    signal(&site, "pickup", Signal::SIGSTOP);
    site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
    assert_eq!(fs::read_dir(site.path("queue/maildrop")).unwrap().count(), 1);
    signal(&site, "pickup", Signal::SIGCONT);
    site.wait_for_mail("ann", 2);
    site.wait_for_empty_queue();
    assert_eq!(messages(&site.maildir("ann")).len(), 2, "{}", site.log());
}

#[test]
fn who_dies_before_the_answer_costs_no_mail() {
    for program in ["pickup", "cleanup"] {
        let site = usual().start();
        // Both run, and cleanup takes a message when it goes on.
        site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
        site.wait_for_mail("ann", 1);
        signal(&site, "cleanup", Signal::SIGSTOP);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| site.run("sendmail", &["-f", "late", "ann@box.example.com"], MAIL));
            site.wait_for_log(&["/pickup[", "from=<late>"]);
            assert_eq!(site.kill(program), 1, "{program}");
            sent.join().unwrap().ok();
        });
        signal(&site, "cleanup", Signal::SIGCONT);
        site.wait_for_mail("ann", 2);
    }
}

#[test]
fn a_cleanup_that_cannot_be_reached_leaves_the_mail_in_maildrop() {
    let site = usual().start();
    let socket = site.path("queue/public/cleanup");
    let aside = socket.with_extension("aside");
    fs::rename(&socket, &aside).unwrap();
    site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
    site.wait_for_log(&["/pickup[", "it is left to its submitter"]);
    assert_eq!(fs::read_dir(site.path("queue/maildrop")).unwrap().count(), 1);
    fs::rename(&aside, &socket).unwrap();
    wait_for("the mail to be taken up", || {
        site.try_all();
        (messages(&site.maildir("ann")).len() == 1).then_some(())
    });
}

#[test]
fn what_waits_in_maildrop_is_taken_up_however_many_come_to_the_desk() {
    // The last line for a service counts.
    let site = usual().master("pickup unix n - n 1 1 pickup").start();
    // Nobody rings for it: a round that comes by itself finds it.
    let (made, file) = (site.path("queue/made"), site.path("queue/maildrop/1234567890abcdef"));
    fs::write(&made, &submission("ann@box.example.com")[4..]).unwrap();
    fs::set_permissions(&made, Permissions::from_mode(0o744)).unwrap();
    fs::rename(&made, &file).unwrap();
    wait_for("the file to be taken up", || {
        drop(connect(&site));
        (!file.exists()).then_some(())
    });
    site.wait_for_mail("ann", 1);
}

#[test]
fn who_is_not_among_authorized_submit_users_has_no_way_in() {
    let user = usual().prepare().user().to_owned();
    let site = usual().main(&format!("authorized_submit_users = !{user}, static:all")).start();
    assert_eq!(site.run("sendmail", &["ann@box.example.com"], MAIL).status, 77);
    assert_ne!(answer(&site, &submission("ann@box.example.com")), Some('+'));
    let site = usual().main(&format!("authorized_submit_users = {user}")).start();
    assert_ne!(answer(&site, &submission("ann@box.example.com")), Some('+'));
    site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
    only_mail(&site, "ann");
}

#[test]
fn a_header_that_is_rejected_comes_back_once() {
    let site = usual()
        .main("header_checks = regexp:$root/etc/headers")
        .file("headers", "/^Subject: handed/ REJECT no\n")
        .start();
    site.run("sendmail", &["-f", "ann@box.example.com", "team"], MAIL).ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.contains("Undelivered Mail Returned to Sender") && mail.contains("5.7.1"), "{mail}");
}

#[test]
fn who_fills_the_desk_keeps_nobody_from_sending() {
    let site = usual().start();
    let valid = submission("ann@box.example.com");
    let nonsense: [&[u8]; 6] =
        [b"GET / HTTP/1.0\r\n\r\n", &[0xff; 4], &[0; 4], &[4, 0, 0, 0, 1, 2, 3, 4], &valid[..30], b"\x7f"];
    for bytes in nonsense {
        assert_ne!(answer(&site, bytes), Some('+'), "{bytes:?}");
    }
    let longer = [&valid[..], b"more"].concat();
    assert_ne!(answer(&site, &longer), Some('+'));
    // They say nothing, or a little now and then, and stay.
    let mut crowd: Vec<UnixStream> = std::iter::repeat_with(|| connect(&site)).take(200).collect();
    for _ in 0..3 {
        crowd.iter_mut().for_each(|client| drop(client.write_all(&valid[..1])));
        site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
    }
    site.wait_for_mail("ann", 3);
    drop(crowd);
    // And afterwards there is place again.
    wait_for("a place at the desk", || (answer(&site, &valid) == Some('+')).then_some(()));
    let log = site.log();
    assert!(!log.contains("panicked") && site.pids("pickup").len() == 1, "{log}");
}

#[test]
fn a_queue_that_an_older_version_has_made_goes_on_and_gets_what_is_missing() {
    let site = usual().start();
    // As it was before there was this folder.
    site.postroad(&["stop"]).ok();
    fs::remove_dir_all(site.path("queue/submit")).unwrap();
    site.run("sendmail", &["ann@box.example.com"], MAIL).ok();
    site.start();
    site.wait_for_mail("ann", 1);
    assert_eq!(answer(&site, &submission("ann@box.example.com")), Some('+'));
    // The socket outlives a reload.
    site.postroad(&["reload"]).ok();
    assert_eq!(answer(&site, &submission("ann@box.example.com")), Some('+'));
    site.wait_for_mail("ann", 3);
}
