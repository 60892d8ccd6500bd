//! Mail that is delivered before it is acknowledged, and mail that is not since that would take long.

use std::thread;

use nix::sys::signal::Signal;
use scenarios::{Builder, Instance, Scripted, messages, wait_for};

use crate::site::{NOTE, send, send_deferred, signal, usual};

/// A mail system that offers every message.
fn early() -> Builder {
    usual().main("early_delivery_concurrency = 1")
}

fn to_ann(site: &Instance) -> String {
    send(site, "jane@client.example", &["ann@box.example.com"], NOTE)
}

#[test]
fn what_is_acknowledged_is_in_its_mailbox_already() {
    let site = early().start();
    let mut sent = 0;
    // A machine under load may take longer than cleanup waits.
    wait_for("a message that is delivered when it is acknowledged", || {
        to_ann(&site);
        sent += 1;
        (messages(&site.maildir("ann")).len() == sent).then_some(())
    });
    site.run("sendmail", &["ann@box.example.com"], NOTE).ok();
    let many: Vec<_> = (0..20).collect();
    thread::scope(|scope| many.iter().for_each(|_| drop(scope.spawn(|| to_ann(&site)))));
    site.wait_for_empty_queue();
    assert_eq!(messages(&site.maildir("ann")).len(), sent + 21, "{}", site.log());
}

#[test]
fn nobody_waits_for_a_queue_manager_that_stands_still_or_dies() {
    let site = early().start();
    to_ann(&site);
    site.wait_for_mail("ann", 1);
    site.wait_for_empty_queue();
    signal(&site, "qmgr", Signal::SIGSTOP);
    let id = to_ann(&site);
    assert_eq!(site.queue_ids(), [id]);
    signal(&site, "qmgr", Signal::SIGCONT);
    site.wait_for_mail("ann", 2);
    site.wait_for_empty_queue();
    signal(&site, "virtual", Signal::SIGSTOP);
    thread::scope(|scope| {
        let sent = scope.spawn(|| to_ann(&site));
        wait_for("the message to be offered", || (site.queue_ids().len() == 1).then_some(()));
        assert_eq!(site.kill("qmgr"), 1);
        assert_eq!(sent.join().unwrap(), site.queue_ids()[0]);
    });
    signal(&site, "virtual", Signal::SIGCONT);
    // The agent may have it from the one that died and from its successor.
    site.wait_for_mail("ann", 3);
    site.wait_for_empty_queue();
}

#[test]
fn what_goes_elsewhere_or_is_put_off_is_in_the_queue_when_it_is_acknowledged() {
    let relay = Scripted::start(&[(".", "...")]);
    let route =
        format!("relay_domains = relay.example\nrelay_transport = smtp:[127.0.0.1]:{}", relay.address.port());
    let site = early().main(&route).master("smtp unix - - n - - smtp").start();
    let relayed = send(&site, "jane@client.example", &["x@relay.example"], NOTE);
    let both = send(&site, "jane@client.example", &["ann@box.example.com", "x@relay.example"], NOTE);
    let deferred = send_deferred(&site);
    for id in [relayed, both, deferred] {
        // One that is being moved from one folder to the next may escape a listing.
        wait_for("the message in the queue", || site.queue_ids().contains(&id).then_some(()));
    }
    site.wait_for_mail("ann", 1);
}

#[test]
fn what_a_server_takes_at_once_is_acknowledged_when_it_has_it() {
    let relay = Scripted::start(&[]);
    let route =
        format!("relay_domains = relay.example\nrelay_transport = smtp:[127.0.0.1]:{}", relay.address.port());
    let site = early().main(&route).master("smtp unix - - n - - smtp").start();
    let mut sent = 0;
    wait_for("a message that is relayed when it is acknowledged", || {
        send(&site, "jane@client.example", &["x@relay.example", "y@relay.example"], NOTE);
        sent += 1;
        (relay.count("DATA") == sent).then_some(())
    });
    // What it refuses is reported, and what it puts off is in the queue.
    relay.say(&[("RCPT TO:<refused@", "550 5.1.1 nobody"), ("RCPT TO:<later@", "450 4.2.0 later")]);
    let recipients = ["x@relay.example", "refused@relay.example", "later@relay.example"];
    let id = send(&site, "ann@box.example.com", &recipients, NOTE);
    site.wait_for_mail("ann", 1);
    wait_for("the message in the queue", || (site.queue_ids() == [id.clone()]).then_some(()));
    let listed = site.run("postqueue", &["-p"], "").ok().stdout;
    assert!(listed.contains("later@") && !listed.contains("x@") && !listed.contains("refused@"), "{listed}");
}
