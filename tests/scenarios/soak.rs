//! An hour's worth of everything in a short time: what goes in comes out, and nobody grows.
//!
//! Mail comes by SMTP and by sendmail and goes to mailboxes, lists, a relay that is often in trouble, and back to its
//! sender. Meanwhile daemons are killed, the configuration is read anew, tables are made anew, and an operator holds,
//! releases, requeues and deletes. Then the account: each acknowledged message came to its place, or was deleted on purpose.
//! After that the load goes on without the trouble, and the memory of each daemon is compared; and when all is delivered,
//! nobody may have more files open than a daemon at rest has (under load qmgr has one for each active message).
//!
//! `cargo xtask soak --minutes N` takes its time; a seed that is printed repeats the order of what is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use scenarios::{Over, PATIENCE, Smtp};

use crate::faults::round::{
    END, MARK, SERVER_PATIENCE, Site, found, next_mark, open, tail, transfer, waiting,
};

/// How long the whole may take, and with which seed.
const MINUTES: &str = "POSTROAD_SOAK_MINUTES";
const SEED: &str = "POSTROAD_SOAK_SEED";

/// How long it takes where nobody says.
const SHORT: Duration = Duration::from_secs(24);

const DAEMONS: [&str; 10] =
    ["smtpd", "cleanup", "qmgr", "virtual", "local", "pickup", "bounce", "smtp", "showq", "master"];

/// What a daemon may have more of in the end than in the beginning: the noise of threads that come and go.
const MORE_KIB: usize = 6 * 1024;

/// The most descriptors of a daemon that has nothing to do: qmgr has 69, its folders among them.
const AT_REST: usize = 96;

/// Numbers that the seed decides (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % most
    }
}

/// What is owed, and what nobody may claim any more.
struct Soak {
    site: Site,
    owed: Mutex<BTreeSet<(String, &'static str)>>,
    deleted: Mutex<BTreeSet<String>>,
    over: AtomicBool,
}

impl Soak {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn owe(&self, mark: &str, places: &[&'static str]) {
        let mut owed = self.owed.lock().unwrap();
        owed.extend(places.iter().map(|place| (mark.to_owned(), *place)));
    }

    /// Sends one message after the other, each another way.
    fn send_over_smtp(&self, mut dice: Dice) {
        let user = format!("{}@example.com", self.site.user());
        let ways: [(&str, &[&str], &[&'static str]); 6] = [
            ("", &["ann@box.example.com"], &["ann"]),
            (&user, &["ann@box.example.com", &user], &["ann", "user"]),
            (&user, &["included@example.com"], &["ann"]),
            (&user, &["astray@example.com"], &["bounce"]),
            (&user, &["joe@relay.example"], &["relay"]),
            (&user, &["admin@lists.example.com", "joe@relay.example"], &["user", "relay"]),
        ];
        let mut client: Option<Smtp> = None;
        while !self.is_over() {
            let (sender, recipients, places) = ways[dice.below(ways.len())];
            let mark = next_mark();
            let text = "0123456789 0123456789\r\n".repeat(if dice.below(20) == 0 { 5000 } else { 20 });
            let content = format!("From: jane@client.example\r\n{MARK}{mark}\r\n\r\n{text}{END}\r\n.");
            client = client.or_else(|| open(self.site.port, SERVER_PATIENCE));
            match client.as_mut().map(|client| transfer(client, sender, recipients, &content)) {
                Some(Ok(())) => self.owe(&mark, places),
                Some(Err(reply)) if reply.starts_with("4") && !reply.starts_with("421") => {}
                Some(Err(reply)) => {
                    assert!(!reply.starts_with('5'), "{reply}");
                    client = None;
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
            if dice.below(50) == 0 {
                client = None;
            }
        }
    }

    fn send_with_sendmail(&self) {
        while !self.is_over() {
            let mark = next_mark();
            let mail = format!("Subject: submitted\n{MARK}{mark}\n\n{END}\n");
            if self.site.run("sendmail", &[self.site.user()], &mail).status == 0 {
                self.owe(&mark, &["user"]);
            }
        }
    }

    /// Does one thing after the other that disturbs, until the time is over.
    fn disturb(&self, mut dice: Dice, until: Instant) -> BTreeMap<&'static str, usize> {
        let mut done = BTreeMap::new();
        while Instant::now() < until {
            let deed = match dice.below(10) {
                0..4 => self.kill(&mut dice),
                4 => self.reload(),
                5 => self.rebuild(&mut dice),
                6 => self.relay_turns(&mut dice),
                7 => self.flush(),
                8 => self.hold_or_requeue(&mut dice),
                _ => self.delete(&mut dice),
            };
            *done.entry(deed).or_default() += 1;
            thread::sleep(Duration::from_millis(u64::try_from(dice.below(150)).unwrap()));
        }
        done
    }

    fn kill(&self, dice: &mut Dice) -> &'static str {
        let daemon = DAEMONS[dice.below(DAEMONS.len())];
        self.site.kill(daemon);
        if daemon == "master" {
            scenarios::wait_for("a new start", || (self.site.postroad(&["start"]).status == 0).then_some(()));
        }
        "kill"
    }

    fn reload(&self) -> &'static str {
        self.site.postroad(&["reload"]);
        "reload"
    }

    fn rebuild(&self, dice: &mut Dice) -> &'static str {
        let table = ["postmap etc/virtual", "postalias etc/aliases"][dice.below(2)];
        let (program, table) = table.split_once(' ').unwrap_or_default();
        self.site.run(program, &[table], "").ok();
        "rebuild"
    }

    fn relay_turns(&self, dice: &mut Dice) -> &'static str {
        let moods = ["250 2.0.0 taken", "451 4.3.0 not now", "421 4.3.2 going!", "250 2.0.0 taken"];
        self.site.relay.say(&[("RCPT", moods[dice.below(moods.len())])]);
        "relay"
    }

    fn flush(&self) -> &'static str {
        self.site.run("postqueue", &["-f"], "");
        "flush"
    }

    fn hold_or_requeue(&self, dice: &mut Dice) -> &'static str {
        let option = ["-h", "-H", "-r"][dice.below(3)];
        let ids = self.site.queue_ids();
        if !ids.is_empty() {
            self.site.run("postsuper", &[option, &ids[dice.below(ids.len())]], "");
        }
        option
    }

    /// Deletes a message, whose mark is then owed to nobody.
    fn delete(&self, dice: &mut Dice) -> &'static str {
        let ids = self.site.queue_ids();
        if ids.is_empty() {
            return "nothing to delete";
        }
        let id = &ids[dice.below(ids.len())];
        let text = self.site.run("postcat", &["-q", id], "").stdout;
        let mark = text.lines().find_map(|line| line.strip_prefix(MARK)).map(|mark| mark.trim().to_owned());
        let deleted = self.site.run("postsuper", &["-d", id], "");
        if deleted.stderr.contains("Deleted") || deleted.stdout.contains("Deleted") {
            self.deleted.lock().unwrap().extend(mark);
        }
        "delete"
    }

    /// Waits until nothing is on its way, and gives what is missing and how many came more than once.
    fn account(&self) -> (Vec<(String, &'static str)>, usize) {
        self.site.relay.say(&[("RCPT", "250 2.0.0 OK")]);
        let began = Instant::now();
        while !waiting(&self.site).is_empty() && began.elapsed() < 2 * PATIENCE {
            self.site.run("postsuper", &["-H", "ALL"], "");
            self.site.try_all();
            thread::sleep(Duration::from_millis(100));
        }
        let found = found(&self.site).unwrap_or_else(|half| panic!("{half}"));
        let (owed, deleted) = (self.owed.lock().unwrap(), self.deleted.lock().unwrap());
        let missing = owed
            .iter()
            .filter(|(mark, place)| !deleted.contains(mark) && !found.contains_key(&(mark.clone(), *place)));
        (missing.cloned().collect(), found.values().map(|times| times - 1).sum())
    }

    /// Descriptors and KiB of memory of each daemon: the most of any of its processes.
    fn sizes(&self) -> BTreeMap<&'static str, (usize, usize)> {
        let of = |pid: i32| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            Some((descriptors, line.split_whitespace().next()?.parse().ok()?))
        };
        let most = |daemon: &'static str| {
            let all: Vec<(usize, usize)> = self.site.pids(daemon).into_iter().filter_map(of).collect();
            (
                daemon,
                (
                    all.iter().map(|size| size.0).max().unwrap_or(0),
                    all.iter().map(|size| size.1).max().unwrap_or(0),
                ),
            )
        };
        DAEMONS.into_iter().map(most).collect()
    }

    /// The most that each daemon has while this time passes.
    fn most_during(&self, time: Duration) -> BTreeMap<&'static str, (usize, usize)> {
        let began = Instant::now();
        let mut most = BTreeMap::new();
        while began.elapsed() < time {
            for (daemon, (descriptors, memory)) in self.sizes() {
                let entry: &mut (usize, usize) = most.entry(daemon).or_default();
                *entry = (descriptors.max(entry.0), memory.max(entry.1));
            }
            thread::sleep(Duration::from_millis(100));
        }
        most
    }
}

#[test]
fn everything_at_once_loses_nothing_and_nobody_grows() {
    let minutes: Option<u64> = std::env::var(MINUTES).ok().and_then(|text| text.parse().ok());
    let time = minutes.map_or(SHORT, |minutes| Duration::from_secs(60 * minutes));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(now.subsec_nanos()) | 1);
    println!("{SEED}={seed}, {time:?}");
    let (owed, deleted) = (Mutex::default(), Mutex::default());
    let soak = Soak { site: Site::start(), owed, deleted, over: AtomicBool::new(false) };
    let (done, first, last) = thread::scope(|scope| {
        let _end = Over(&soak.over);
        for number in 1..=4 {
            let dice = Dice(seed.wrapping_mul(number * 2 + 1));
            scope.spawn(|| soak.send_over_smtp(dice));
        }
        scope.spawn(|| soak.send_with_sendmail());
        let done = soak.disturb(Dice(seed), Instant::now() + time / 2);
        soak.site.relay.say(&[("RCPT", "250 2.0.0 OK")]);
        let first = soak.most_during(time / 6);
        thread::sleep(time / 6);
        let last = soak.most_during(time / 6);
        (done, first, last)
    });
    let (missing, twice) = soak.account();
    let owed = soak.owed.lock().unwrap().len();
    let deleted = soak.deleted.lock().unwrap().len();
    println!(
        "{done:?}; {owed} deliveries owed, {deleted} messages deleted, {twice} delivered once more than needed"
    );
    assert!(missing.is_empty(), "{} of {owed} lost: {missing:?}\n{}", missing.len(), tail(&soak.site.log()));
    let waiting = waiting(&soak.site);
    assert!(waiting.is_empty(), "{waiting:?} wait\n{}", tail(&soak.site.log()));
    assert!(!soak.site.log().contains("panicked"), "{}", soak.site.log());
    for (daemon, (_, memory)) in &last {
        let before = first.get(daemon).map_or(0, |size| size.1);
        println!("{daemon}: {before} then {memory} KiB");
        assert!(*memory <= before + MORE_KIB, "{daemon}: {first:?} {last:?}");
    }
    let (began, mut now) = (Instant::now(), soak.sizes());
    while now.values().any(|size| size.0 > AT_REST) && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(100));
        now = soak.sizes();
    }
    println!("at rest: {now:?}");
    assert!(now.values().all(|size| size.0 <= AT_REST), "descriptors and KiB at rest: {now:?}");
}
