//! The clock jumps while mail waits. libfaketime stands between the programs and the C library's clock.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use scenarios::{Instance, Scripted};

use crate::site::{NOTE, send, usual, wait_for_state};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

const DAY: i64 = 86_400;

/// Has every program of the instance see the time so many seconds off.
fn turn(site: &Instance, seconds: i64) {
    // In place of the old one at once: a program may read it at any moment.
    fs::write(site.path("etc/clock.next"), format!("{seconds:+}\n")).unwrap();
    fs::rename(site.path("etc/clock.next"), site.path("etc/clock")).unwrap();
}

/// Puts a script in the place of a program, which runs it with that clock: master passes no environment on.
fn give_clock(site: &Instance, program: &str) {
    assert!(
        Path::new(LIBRARY).exists(),
        "libfaketime is missing; run: sudo apt-get install --no-install-recommends libfaketime"
    );
    let (place, real) = (site.path("sbin").join(program), site.path("real").join(program));
    fs::create_dir_all(site.path("real")).unwrap();
    fs::rename(&place, &real).unwrap();
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         exec {} \"$@\"\n",
        site.path("etc/clock").display(),
        real.display()
    );
    fs::write(&place, script).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_clock_that_jumps_returns_nothing_early_and_stops_no_retry() {
    let relay = Scripted::start(&[("RCPT", "451 4.3.0 not now")]);
    let site = usual()
        .main(&format!(
            "relay_domains = relay.example\nrelay_transport = smtp:[127.0.0.1]:{}",
            relay.address.port()
        ))
        .main("maximal_queue_lifetime = 1d\nbounce_queue_lifetime = 1d\nqueue_run_delay = 1s")
        .main("minimal_backoff_time = 1s\nmaximal_backoff_time = 2s")
        // They read the file that the time is in.
        .main("sandbox = no")
        .master("smtp unix - - n - - smtp")
        .prepare();
    turn(&site, 0);
    ["smtpd", "cleanup", "qmgr", "smtp", "bounce"].iter().for_each(|program| give_clock(&site, program));
    site.start();
    let waiting = send(&site, &format!("{}@example.com", site.user()), &["joe@relay.example"], NOTE);
    wait_for_state(&site, &waiting, "deferred");
    // Back: what waits is from the future then.
    turn(&site, -2 * DAY);
    let attempts = |site: &Instance| site.log().matches("status=deferred").count();
    let before = attempts(&site);
    let fresh = send(&site, &format!("{}@example.com", site.user()), &["jim@relay.example"], NOTE);
    scenarios::wait_for("attempts after the jump back", || {
        site.try_all();
        (attempts(&site) >= before + 4).then_some(())
    });
    assert!(!site.log().contains("status=expired"), "{}", site.log());
    // And to where it was: still nothing is older than a day but what was sent two days ago.
    turn(&site, 0);
    site.wait_for_log(&[&fresh, "status=expired"]);
    assert!(!site.log().lines().any(|line| line.contains(&waiting) && line.contains("expired")));
    relay.say(&[("RCPT", "250 2.0.0 OK")]);
    site.wait_for_log(&[&waiting, "status=sent"]);
}
