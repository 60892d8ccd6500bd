//! Master is killed, whatever it and the others are about: those that it leaves behind end, a start works at once, and
//! nothing acknowledged is lost.

use std::thread;
use std::time::{Duration, Instant};

use scenarios::{Instance, Scripted, Smtp, wait_for};

use crate::crash::{EndOf, Load, deliver_all, some_moment};
use crate::site::{NOTE, greeted, send, send_deferred, usual};

const DAEMONS: [&str; 12] = [
    "master", "smtpd", "cleanup", "qmgr", "virtual", "local", "pickup", "bounce", "smtp", "pipe", "error",
    "showq",
];

/// Far less than any limit of time in the configuration, and far more than it takes.
const SOON: Duration = Duration::from_secs(40);

/// The processes that there are.
fn pids(site: &Instance) -> Vec<(&'static str, i32)> {
    let of = |name: &'static str| site.pids(name).into_iter().map(move |pid| (name, pid));
    DAEMONS.into_iter().flat_map(of).collect()
}

/// Kills master, and gives those that it leaves behind.
fn kill_master(site: &Instance) -> Vec<(&'static str, i32)> {
    let left = pids(site);
    site.kill("master");
    wait_for("its end", || site.pids("master").is_empty().then_some(()));
    left
}

fn start_again(site: &Instance) {
    let began = Instant::now();
    wait_for("a start", || {
        let output = site.postroad(&["start"]);
        assert!(output.status == 0 || began.elapsed() < SOON, "{output:?}\n{}", site.log());
        (output.status == 0).then_some(())
    });
}

/// Waits until none of these is there.
fn wait_for_their_end(site: &Instance, left: &[(&'static str, i32)]) {
    let began = Instant::now();
    wait_for("those without a master to end", || {
        let there: Vec<_> = pids(site).into_iter().filter(|one| left.contains(one)).collect();
        assert!(there.is_empty() || began.elapsed() < SOON, "{there:?} are still there:\n{}", site.log());
        there.is_empty().then_some(())
    });
}

#[test]
fn those_who_wait_for_others_end_without_a_master_and_keep_no_start_waiting() {
    let relay = Scripted::start(&[(".", "...")]);
    let port = relay.address.port();
    let site = usual()
        .main(&format!(
            "relay_domains = relay.example, slow.example\nrelay_transport = smtp:[127.0.0.1]:{port}"
        ))
        .main("transport_maps = inline:{ { slow.example = slow: } }")
        .main("smtpd_timeout = 600s\nsmtp_data_done_timeout = 600s\nsmtp_connection_cache_on_demand = no")
        .file("slow", "touch \"$1/begun\"\nwhile test -d \"$1\" && ! test -e \"$1/go\"; do sleep 0.2; done\n")
        .master("smtp unix - - n - - smtp")
        .master("slow unix - n n - - pipe user=$user argv=/bin/sh $root/etc/slow $root/mail")
        .start();
    // A server that does not answer to content, a command that takes its time, mail that waits, and clients at every stage.
    let sender = format!("{}@example.com", site.user());
    send(&site, &sender, &["joe@relay.example"], NOTE);
    send(&site, &sender, &["joe@slow.example"], NOTE);
    send_deferred(&site);
    wait_for("the content at the relay", || (relay.count("\r\n.\r\n") == 1).then_some(()));
    wait_for("the command", || site.path("mail/begun").exists().then_some(()));
    let idle = site.smtp();
    let lines = ["MAIL FROM:<>", "RCPT TO:<ann@box.example.com>", "DATA"];
    let begun: Vec<Smtp> = (1..=lines.len())
        .map(|count| {
            let mut client = greeted(&site);
            lines[..count].iter().for_each(|line| drop(client.command(line)));
            client.send_raw(b"Subject: half");
            client
        })
        .collect();
    let left = kill_master(&site);
    assert!(
        ["smtpd", "cleanup", "qmgr", "smtp", "pipe"].iter().all(|name| left.iter().any(|(n, _)| n == name)),
        "{left:?}"
    );
    relay.say(&[]);
    start_again(&site);
    let began = Instant::now();
    send(&site, "", &["ann@box.example.com"], NOTE);
    site.wait_for_mail("ann", 1);
    assert!(began.elapsed() < SOON, "mail waited {:?}:\n{}", began.elapsed(), site.log());
    wait_for_their_end(&site, &left);
    drop((idle, begun));
    site.write("mail/go", "");
    site.try_all();
    for place in ["joe@relay.example", "joe@slow.example"] {
        site.wait_for_log(&[&format!("to=<{place}>"), "status=sent"]);
    }
    wait_for("nothing to be left but what was deferred", || (site.queue_ids().len() == 1).then_some(()));
    assert!(!site.log().contains("panicked"), "{}", site.log());
}

#[test]
fn a_master_may_be_killed_while_it_starts_serves_reloads_and_stops() {
    let site = usual().start();
    let load = Load::endless(&site);
    let mut left = thread::scope(|scope| {
        let _end = EndOf(&load);
        (0..4).for_each(|_| drop(scope.spawn(|| load.send_over_smtp())));
        scope.spawn(|| load.send_with_sendmail(1000));
        let mut left = Vec::new();
        for command in ["status", "reload", "stop", "start"].iter().cycle().take(8) {
            let before = load.count();
            wait_for("mail to pass", || (load.count() >= before + 10).then_some(()));
            if *command == "start" {
                left.extend(kill_master(&site));
            }
            let meanwhile = scope.spawn(|| site.postroad(&[command]));
            wait_for("a master", || {
                (meanwhile.is_finished() || !site.pids("master").is_empty()).then_some(())
            });
            thread::sleep(some_moment());
            left.extend(kill_master(&site));
            meanwhile.join().unwrap();
            start_again(&site);
        }
        left
    });
    let running = site.pids("master");
    left.retain(|(_, pid)| !running.contains(pid));
    wait_for_their_end(&site, &left);
    let acknowledged = load.acknowledged();
    let twice = deliver_all(&site, &acknowledged);
    println!("{} acknowledged, {twice} delivered once more than needed", acknowledged.len());
    assert!(!site.log().contains("panicked"), "{}", site.log());
}
