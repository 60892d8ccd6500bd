//! What the operator does while calls fail: the list of the queue, holding, releasing and deleting. What fails says so and
//! why, loses nothing, and can be done again.

use std::time::{Duration, Instant};

use scenarios::{PATIENCE, Strace, Tracing, is_root};

use super::programs::fails;
use crate::site::{NOTE, entry, greeted, send_deferred, usual, wait_for_state};

#[test]
fn the_list_of_the_queue_is_whole_or_an_error() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let site = usual().main("minimal_backoff_time = 1h\nmaximal_backoff_time = 1h\nipc_timeout = 4s").start();
    let ids = [send_deferred(&site), send_deferred(&site)];
    for option in ["-p", "-j"] {
        fails(
            &site,
            &["postqueue", option],
            "",
            false,
            || (),
            |point, call, output| {
                let is_whole = ids.iter().all(|id| output.stdout.contains(id));
                match output.status {
                    0 if is_whole => None,
                    0 => Some("a part, with status 0".into()),
                    // Nobody takes the connection: showq says nothing, whatever the reason.
                    _ if call.name == "connect" => None,
                    _ if point.is_worth_a_line() && !output.stderr.contains(point.cause()) => {
                        Some("no cause".into())
                    }
                    _ => None,
                }
            },
        );
    }
    // And where showq is the one that fails.
    for error in ["EMFILE", "EIO"] {
        for call in ["openat", "getdents64", "read", "pread64", "newfstatat", "sendto"] {
            site.run("postqueue", &["-j"], "").ok();
            let fault = Some(format!("{call}:error={error}"));
            let tracing = Tracing { calls: call.into(), fault, when: "1+".into(), ..Tracing::default() };
            let strace = Strace::attach(&site.pids("showq"), &tracing, &site.path("strace"));
            let log_before = site.log().len();
            let output = site.run("postqueue", &["-j"], "");
            let hit = strace.detach().iter().any(|call| call.is_injected);
            let is_whole = ids.iter().all(|id| output.stdout.contains(id));
            let told = || output.stderr.clone() + site.log().get(log_before..).unwrap_or_default();
            let cause = if error == "EIO" { "nput/output error" } else { "Too many open files" };
            if hit && !is_whole {
                let began = Instant::now();
                // A daemon writes its lines a moment later.
                while !told().contains(cause) && output.status == 0 && began.elapsed() < PATIENCE / 4 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                assert!(
                    output.status != 0 || told().contains(cause),
                    "{call} {error}: {output:?} {}",
                    told()
                );
            }
            assert!(!told().contains("panic"), "{call} {error}: {}", told());
            let list = site.run("postqueue", &["-j"], "").ok().stdout;
            assert!(ids.iter().all(|id| list.contains(id)), "{call} {error}: {list}");
        }
    }
}

#[test]
fn what_postsuper_cannot_do_is_told_and_loses_nothing() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    let site = usual().main("minimal_backoff_time = 1h\nmaximal_backoff_time = 1h\nipc_timeout = 4s").start();
    let id = std::cell::RefCell::new(send_deferred(&site));
    let state = |id: &str| entry(&site, id).and_then(|entry| Some(entry["queue_name"].as_str()?.to_owned()));
    // Something to hold, to release, to delete.
    for (option, from, to) in
        [("-h", "deferred", Some("hold")), ("-H", "hold", None), ("-d", "deferred", None)]
    {
        let prepare = || {
            let mut known = id.borrow_mut();
            if state(&known).is_none() {
                *known = send_deferred(&site);
            }
            match (from, state(&known).as_deref()) {
                ("hold", Some("hold")) => {}
                ("hold", _) => drop(site.run("postsuper", &["-h", &known], "").ok()),
                (_, Some("hold")) => drop(site.run("postsuper", &["-H", &known], "").ok()),
                _ => {}
            }
            wait_for_state(&site, &known, from);
        };
        prepare();
        fails(&site, &["postsuper", option, "ALL"], "", false, prepare, |point, _, output| {
            let found = state(&id.borrow());
            match (option, output.status, found.as_deref()) {
                ("-d", 0, None) | ("-d", 1.., Some(_)) | ("-h" | "-H", 1.., Some(_)) => {
                    let silent = output.status != 0
                        && point.is_worth_a_line()
                        && !output.stderr.contains(point.cause());
                    silent.then(|| "no cause".into())
                }
                ("-h", 0, found) if found == to => None,
                ("-H", 0, Some(_)) => None,
                // Done, though the one who did it had trouble in the end and said so.
                ("-d", 1.., None) if output.stderr.contains(point.cause()) => None,
                (_, _, found) => Some(format!("is found in {found:?}")),
            }
        });
    }
    let mut client = greeted(&site);
    assert_eq!(client.message("", &["ann@box.example.com"], NOTE).code, 250);
}
