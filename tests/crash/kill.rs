//! A crash at every call: of a program, or of all of them at once; the disk is as the last call left it.

use std::time::{Duration, Instant};

use scenarios::PATIENCE;

use crate::plan;
use crate::site::Site;
use crate::tracer::{Crash, Victim};
use crate::ways::{Copies, End, Letter, Way, copies, way};

/// What all attempts together came to.
#[derive(Default)]
struct Tally {
    struck: usize,
    promised: usize,
    twice: usize,
}

/// Tries the crashes that a way of mail has.
fn crash_at_every_call_of(name: &str) {
    let way = way(name);
    let site = Site::prepare(way, &[]);
    site.start();
    let mut tally = Tally::default();
    attempt(&site, way, 0, None, &mut tally);
    let (calls, programs) = (site.calls(), site.programs());
    let crashes = crashes(calls);
    let mut number = 0;
    // Any of them may come before something was promised, or after it.
    let as_they_come = |_: &Crash| false;
    let tried = plan::try_out(&crashes, as_they_come, |crash| {
        number += 1;
        // One that did not come must not come later.
        site.watch.set(None);
        site.abort();
        site.forget_mail();
        site.start();
        attempt(&site, way, number, Some(*crash), &mut tally);
    });
    println!(
        "{name}: {calls} calls of {programs:?}; {tried} of {} crashes tried, {} came; {} promises, {} delivered twice",
        crashes.len(),
        tally.struck,
        tally.promised,
        tally.twice
    );
}

/// Before and after each call, of the program that makes it and of everything.
fn crashes(calls: usize) -> Vec<Crash> {
    let ways = [
        (false, Victim::Program),
        (true, Victim::Program),
        (false, Victim::Everything),
        (true, Victim::Everything),
    ];
    let at = |call| ways.map(|(after, victim)| Crash { call, after, victim });
    (0..calls).flat_map(at).collect()
}

fn attempt(site: &Site, way: &Way, number: u64, crash: Option<Crash>, tally: &mut Tally) {
    let letter = Letter::new(number);
    let id = (way.prepare)(site, &letter);
    site.watch.set(crash);
    let promised = (way.act)(site, &letter, id.as_deref().unwrap_or_default());
    let is_deleted = promised > 0 && way.end == End::Deleted;
    let owed = if way.end == End::Deleted { 0 } else { promised.max(usize::from(id.is_some())) };
    let began = Instant::now();
    let copies = loop {
        revive(site);
        let found = copies(site, way.end, &letter);
        let is_over = match found {
            Ok(ref found) => found.keep(way.end, owed, 0),
            // Its other part comes when the message comes again.
            Err(_) if way.end == End::Mbox => false,
            Err(half) => panic!("{} {crash:?} {:?}: {half}", way.name, site.watch.struck()),
        };
        if is_over && site.queue_is_empty() {
            break found.unwrap_or_else(|half| Copies::of(half.whole));
        }
        if id.is_some() && !is_deleted {
            site.defer_later(false);
            site.instance.run("postsuper", &["-H", "ALL"], "");
        }
        site.try_all(began);
        assert!(
            began.elapsed() < PATIENCE,
            "{} {crash:?} {:?}: promised {promised}, found {found:?}\n{}\n{}",
            way.name,
            site.watch.struck(),
            site.instance.run("postqueue", &["-j"], "").stdout,
            site.instance.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    if is_deleted {
        assert_eq!(copies.most(), 0, "{crash:?}: what was deleted is delivered");
    }
    // One kill may find both a message to an alias and the one made of it done and not recorded: the second is made anew,
    // and the first comes again.
    let most = if way.name == "alias" { 3 } else { 2 };
    assert!(copies.most() <= most, "{} {crash:?} {:?}: {copies:?}", way.name, site.watch.struck());
    tally.struck += usize::from(site.watch.struck().is_some());
    tally.promised += promised;
    tally.twice += copies.besides_the_first();
}

/// Starts the mail system again where the crash took all of it, or its master.
fn revive(site: &Site) {
    if site.watch.struck().is_some() && site.instance.pids("master").is_empty() {
        site.start();
    }
}

macro_rules! crash_tests {
    ($($name:ident)*) => { $(#[test] fn $name() { crash_at_every_call_of(stringify!($name)); })* };
}

crash_tests! {
    smtp_to_virtual synced_first sendmail_to_local sendmail_over_maildrop smtp_to_mbox relay relay_synced_first bounce hold_and_release requeue delete
    reload deferred
    several found_by_a_scan side_by_side some_deferred alias
}
