//! A power cut after every call: the disk is as a file system may leave it, and the mail system is started on that.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use scenarios::{PATIENCE, wait_for};

use crate::calls::Effect;
use crate::disk::{Disk, Operation};
use crate::plan;
use crate::power_cut::{Model, states};
use crate::recording::{Recording, Step};
use crate::site::Site;
use crate::ways::{Copies, End, Letter, Way, copies, way};

/// The folders that mail is kept in.
const FOLDERS: [&str; 2] = ["queue", "mail"];

/// How many states are made of one cut, where not all of them are; and fewer, where much is under way at once.
const MOST_STATES: u64 = 64;
const MOST_STATES_OF_CROWD: u64 = 8;

/// A disk after a power cut, and what had been said before it.
struct Case {
    model: Model,
    /// After how many steps.
    steps: usize,
    disk: Disk,
    promises: usize,
    handed_over: usize,
    /// The last thing that happened was that somebody was told something.
    is_told: bool,
}

/// How many second cuts are tried of a recovery, where not all of them are.
const MOST_SECOND_CUTS: usize = 2;

/// What all recoveries together came to.
#[derive(Default)]
struct Tally {
    promised: usize,
    /// Mailboxes that ended with a part of a message before the start.
    half: usize,
    twice: usize,
}

/// Tries the disks that a power cut may leave on a way of mail, by both models.
fn cut_after_every_call_of(name: &str) {
    let way = way(name);
    for model in [Model::Ordered, Model::Any] {
        let (site, recording) = recorded(way, model);
        let letter = Letter::new(0);
        let (made, cases) = cases(&recording, way, model, None);
        let mut tally = Tally::default();
        let tried = plan::try_out(&cases, has_promise, |case| recover(&site, way, &letter, case, &mut tally));
        println!(
            "{name}, {model:?}: {} steps, {made} disks, {} of them different; {tried} tried, {} with a promise, \
             {} delivered twice, {} with half a message in a mailbox before the start",
            recording.steps.len(),
            cases.len(),
            tally.promised,
            tally.twice,
            tally.half
        );
    }
}

/// The mail system that a message goes its way through, which is ended then, and what was done to its disk.
fn recorded(way: &Way, model: Model) -> (Site, Recording) {
    // Where no order of changes is kept, none may be relied on.
    let trusts = if model == Model::Ordered { "yes" } else { "no" };
    let mut site = Site::prepare(way, &[&format!("maildir_trusts_journal = {trusts}")]);
    if model == Model::Ordered {
        site.put_on_a_journal();
    }
    site.start();
    let recording = record(&site, way, &Letter::new(0));
    if site.disk.is_some() && matches!(way.end, End::Virtual | End::Local | End::Together(_) | End::Each(_)) {
        let is_relied_on = |step: &Step| matches!(step, Step::Disk(Operation::WriteOut { .. }));
        assert!(recording.steps.iter().any(is_relied_on), "{}: everything is synced", way.name);
    }
    site.abort();
    site.defer_later(false);
    (site, recording)
}

/// Tries the disks that a second power cut may leave while the mail system recovers from a first one.
fn cut_again_after_every_call_of(name: &str) {
    let way = way(name);
    let model = Model::Ordered;
    let (site, recording) = recorded(way, model);
    let letter = Letter::new(0);
    let (_, firsts) = cases(&recording, way, model, None);
    let (mut tally, mut made, mut tried) = (Tally::default(), 0, 0);
    let first_cuts = plan::try_out(&firsts, has_promise, |first| {
        let (_, seconds) = cases(&record_recovery(&site, way, &letter, first), way, model, Some(first));
        made += seconds.len();
        let most = if plan::is_complete() { seconds.len() } else { MOST_SECOND_CUTS };
        for place in plan::spread(seconds.len()).take(most) {
            recover(&site, way, &letter, &seconds[place], &mut tally);
            tried += 1;
        }
    });
    println!(
        "{name}, {model:?}, twice: {first_cuts} of {} first cuts, {tried} of their {made} second ones tried, {} with a \
         promise, {} delivered twice",
        firsts.len(),
        tally.promised,
        tally.twice
    );
}

/// Starts the mail system on the disk that a power cut left, and notes what is done to that until all is well.
fn record_recovery(site: &Site, way: &Way, letter: &Letter, first: &Case) -> Recording {
    let root = site.instance.root();
    first.disk.materialise(root, &FOLDERS).expect("make the disk that the power cut left");
    let base = Disk::read(root, &FOLDERS).expect("read the disk that the power cut left");
    site.watch.set(None);
    site.start();
    let began = Instant::now();
    wait_for("the mail system to recover", || {
        site.try_all(began);
        let is_there =
            copies(site, way.end, letter).is_ok_and(|found| found.keep(way.end, first.promises, 0));
        (site.queue_is_empty() && is_there).then_some(())
    });
    let recording = Recording::of(&base, root, &site.watch.seen());
    site.abort();
    recording
}

/// What lies behind the end of a file after a power cut must not count when the file grows over it, and another cut comes:
/// that must come at a certain moment, and is seen from the order of calls, too.
#[test]
fn a_process_that_appends_to_what_an_earlier_one_wrote_syncs_first() {
    let way = way("some_deferred");
    let site = Site::prepare(way, &[]);
    site.start();
    let letter = Letter::new(0);
    let id = (way.prepare)(&site, &letter).expect("a message that waits");
    site.abort();
    site.watch.set(None);
    site.start();
    site.instance.try_all();
    let done = wait_for("another attempt", || {
        let seen = site.watch.seen();
        let of_message = seen.iter().filter_map(|seen| match &seen.effect {
            Effect::Written { path, .. } if path.ends_with(&id) => Some("write"),
            Effect::Synced { path, .. } if path.ends_with(&id) => Some("sync"),
            Effect::Renamed { to, .. } if to.ends_with(&id) => Some("rename"),
            _ => None,
        });
        let done: Vec<&str> = of_message.skip_while(|what| *what == "rename").collect();
        done.contains(&"rename").then_some(done)
    });
    assert!(done.starts_with(&["write", "sync", "write"]), "{done:?}");
}

/// Lets a message go its way and notes what was done to the disk.
fn record(site: &Site, way: &Way, letter: &Letter) -> Recording {
    let base = Disk::read(site.instance.root(), &FOLDERS).expect("read the disk of the mail system");
    site.watch.set(None);
    let id = (way.prepare)(site, letter);
    let promised = (way.act)(site, letter, id.as_deref().unwrap_or_default());
    assert!(promised > 0, "{}", site.instance.log());
    let began = Instant::now();
    wait_for("the message to arrive", || {
        let there =
            way.end == End::Deleted || copies(site, way.end, letter).is_ok_and(|copies| copies.fewest() == 1);
        if !there {
            site.try_all(began);
        }
        (there && site.queue_is_empty()).then_some(())
    });
    let recording = Recording::of(&base, site.instance.root(), &site.watch.seen());
    let promises = recording.steps.iter().filter(|step| matches!(step, Step::Promised)).count();
    assert!(promises > 0, "nothing was promised: {:?}", recording.steps);
    recording
}

/// Before anything was promised nothing can be lost.
fn has_promise(case: &Case) -> bool {
    case.promises > 0
}

/// How many disks there are, and those that differ. What was said before an earlier cut is still to be kept.
fn cases(recording: &Recording, way: &Way, model: Model, earlier: Option<&Case>) -> (usize, Vec<Case>) {
    let (promised, given) = earlier.map_or((0, 0), |earlier| (earlier.promises, earlier.handed_over));
    let most = if way.name == "crowd" { MOST_STATES_OF_CROWD } else { MOST_STATES };
    let (mut known, mut cases, mut made) = (HashSet::new(), Vec::new(), 0);
    for steps in 0..=recording.steps.len() {
        let said =
            |what: fn(&Step) -> bool| recording.steps[..steps].iter().filter(|step| what(step)).count();
        let promises = promised + said(|step| matches!(step, Step::Promised));
        let handed_over = given + said(|step| matches!(step, Step::HandedOver));
        let is_told = matches!(recording.steps[..steps].last(), Some(Step::Promised));
        let operations = recording.operations(steps);
        for disk in states(&recording.base, &operations, model, most, steps as u64) {
            made += 1;
            if known.insert((disk.print(), promises, handed_over)) {
                cases.push(Case { model, steps, disk, promises, handed_over, is_told });
            }
        }
    }
    (made, cases)
}

fn recover(site: &Site, way: &Way, letter: &Letter, case: &Case, tally: &mut Tally) {
    let root = site.instance.root();
    case.disk.materialise(root, &FOLDERS).expect("make the disk that the power cut left");
    let what = format!("{}: {:?} after {} steps", way.name, case.model, case.steps);
    let before = match copies(site, way.end, letter) {
        Ok(before) => before,
        // It goes when the message comes again, which it must.
        Err(half) if way.end == End::Mbox => {
            tally.half += 1;
            Copies::of(half.whole)
        }
        Err(half) => panic!("{what}: {half}"),
    };
    let waiting = queued(&case.disk, letter);
    site.instance.start();
    if case.is_told && way.held_after == case.promises {
        let list = site.instance.run("postqueue", &["-j"], "").stdout;
        assert!(list.contains("\"hold\""), "{what}: what is held is not: {list}\n{}", site.instance.log());
    }
    let is_deleted = way.end == End::Deleted && case.promises == way.promises;
    let is_owed = way.end != End::Deleted && case.handed_over == 0;
    let owed = if is_owed { case.promises } else { 0 };
    let began = Instant::now();
    let after = loop {
        let is_empty = site.queue_is_empty();
        let enough = if way.end == End::Peer { before.most() } else { 0 };
        let found = copies(site, way.end, letter);
        match &found {
            Ok(found) if is_empty && found.keep(way.end, owed, enough) => break found.clone(),
            Err(half) if is_empty || way.end != End::Mbox => {
                panic!("{what}: {half}\n{}", site.instance.log())
            }
            _ => {}
        }
        site.instance.run("postsuper", &["-H", "ALL"], "");
        site.instance.try_all();
        assert!(
            began.elapsed() < PATIENCE / 2,
            "{what}: {} promises, {before:?} before and {found:?} after the start, {waiting} in the queue:\n{:#?}\n{}\n{}",
            case.promises,
            case.disk.tree().keys().collect::<Vec<_>>(),
            site.instance.run("postqueue", &["-j"], "").stdout,
            site.instance.log()
        );
        std::thread::sleep(Duration::from_millis(5));
    };
    // What was delivered and not removed is delivered again; what is in the queue once is not delivered twice.
    assert!(
        after.more_than(&before, way.end) <= waiting,
        "{what}: {before:?}, then {after:?} of {waiting} messages:\n{:#?}\n{}",
        case.disk.tree().keys().collect::<Vec<_>>(),
        site.instance.log()
    );
    assert!(!is_deleted || after == before, "{what}: what was deleted is delivered");
    site.abort();
    tally.promised += usize::from(case.promises > 0);
    // With the other mail system, all copies of all attempts add up.
    tally.twice += match way.end {
        End::Peer => (after.most() - before.most() + case.handed_over).saturating_sub(1),
        _ => after.besides_the_first(),
    };
}

/// How many files in the queue have the message, whatever their names.
fn queued(disk: &Disk, letter: &Letter) -> usize {
    let nodes: HashSet<_> = disk
        .tree()
        .into_iter()
        .filter(|(path, _)| path.starts_with("queue/"))
        .filter_map(|(_, node)| node)
        .filter(|node| letter.is_in(&disk.nodes[*node].data))
        .collect();
    nodes.len()
}

macro_rules! power_cut_tests {
    ($($name:ident)*) => { $(#[test] fn $name() { cut_after_every_call_of(stringify!($name)); })* };
}

power_cut_tests! {
    smtp_to_virtual synced_first sendmail_to_local sendmail_over_maildrop smtp_to_mbox relay relay_synced_first bounce hold_and_release requeue delete
    reload deferred
    several found_by_a_scan side_by_side crowd some_deferred alias
}

mod twice {
    use super::cut_again_after_every_call_of;

    #[test]
    fn smtp_to_virtual() {
        cut_again_after_every_call_of("smtp_to_virtual");
    }

    #[test]
    fn some_deferred() {
        cut_again_after_every_call_of("some_deferred");
    }
}
