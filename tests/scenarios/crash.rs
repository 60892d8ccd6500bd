//! Invariant: what was acknowledged is delivered, whichever program dies at whatever moment. Delivered twice is allowed,
//! and counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use scenarios::{Instance, Reply, Smtp, messages, wait_for};

use crate::site::usual;

/// The mark that a message is known by.
const MARK: &str = "X-Mark: ";

/// A message that somebody was told is safe.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    mark: String,
    /// The mailboxes that it belongs in.
    mailboxes: Vec<String>,
    /// What was said, which has the queue id.
    #[expect(dead_code, reason = "shown when the message is missing")]
    with: String,
}

/// Those who send, the marks that were acknowledged to them, and whether they may stop.
pub(crate) struct Load<'a> {
    site: &'a Instance,
    acknowledged: Mutex<Vec<Acknowledged>>,
    attempts: AtomicUsize,
    wanted: AtomicUsize,
    submitted: AtomicBool,
    /// Whether what is acknowledged is heard by nobody.
    is_unheard: AtomicBool,
}

impl<'a> Load<'a> {
    fn new(site: &'a Instance, wanted: usize) -> Self {
        Self {
            site,
            acknowledged: Mutex::default(),
            attempts: AtomicUsize::new(0),
            wanted: wanted.into(),
            submitted: AtomicBool::new(false),
            is_unheard: AtomicBool::new(false),
        }
    }

    /// Goes on until it is told to [end](Self::end).
    pub(crate) fn endless(site: &'a Instance) -> Self {
        Self::new(site, usize::MAX)
    }

    /// From the moment of a power cut until the machine is there again, nobody is told anything.
    pub(crate) fn set_unheard(&self, is_unheard: bool) {
        self.is_unheard.store(is_unheard, Ordering::SeqCst);
    }

    pub(crate) fn end(&self) {
        self.wanted.store(0, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    pub(crate) fn acknowledged(&self) -> Vec<Acknowledged> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn has_enough(&self) -> bool {
        self.count() >= self.wanted.load(Ordering::Relaxed)
    }

    fn done(&self) -> bool {
        self.has_enough() && self.submitted.load(Ordering::Relaxed)
    }

    fn next_mark(&self) -> String {
        self.attempts.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn acknowledge(&self, mark: String, mailboxes: &[&str], with: String) {
        if !self.is_unheard.load(Ordering::SeqCst) {
            let mailboxes = mailboxes.iter().map(|&name| name.to_owned()).collect();
            self.acknowledged.lock().unwrap().push(Acknowledged { mark, mailboxes, with });
        }
    }

    /// Sends one message after the other, and connects anew whenever the server is gone.
    pub(crate) fn send_over_smtp(&self) {
        let (user, ann) = (self.site.user(), "ann@box.example.com");
        let local = format!("{user}@example.com");
        let mut client = None;
        while !self.has_enough() {
            let mark = self.next_mark();
            let (recipients, mailboxes): (&[&str], &[&str]) = match mark.as_bytes().last() {
                Some(b'1' | b'5' | b'9') => (&[ann], &["ann"]),
                Some(b'3' | b'7') => (&[ann, &local], &["ann", user]),
                Some(b'6') => (&["team@example.com"], &["ann", user]),
                _ => (&[&local], &[user]),
            };
            client = client.or_else(|| open(self.site.port));
            match client.as_mut().map(|client| transfer(client, recipients, &mark)) {
                Some(Some(reply)) if reply.code == 250 => self.acknowledge(mark, mailboxes, reply.text()),
                Some(Some(_)) => {}
                Some(None) => client = None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Submits so many messages, or as many as there is time for.
    pub(crate) fn send_with_sendmail(&self, number: usize) {
        let is_over = || self.wanted.load(Ordering::Relaxed) == 0;
        for _ in (0..number).take_while(|_| !is_over()) {
            let mark = self.next_mark();
            let mail = format!("Subject: submitted\n{MARK}{mark}\n\nHello.\n");
            if self.site.run("sendmail", &[self.site.user()], &mail).status == 0 {
                self.acknowledge(mark, &[self.site.user()], "sendmail".to_owned());
            }
        }
        self.submitted.store(true, Ordering::Relaxed);
    }
}

/// Ends the load when it is dropped: whoever sends would go on for ever if the test failed.
pub(crate) struct EndOf<'a>(pub(crate) &'a Load<'a>);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn open(port: u16) -> Option<Smtp> {
    let mut client = Smtp::try_connect(port)?;
    client.try_read_reply().filter(|greeting| greeting.code == 220)?;
    (client.try_command("EHLO client.example")?.code == 250).then_some(client)
}

/// The final reply; none if the server was gone before.
fn transfer(client: &mut Smtp, recipients: &[&str], mark: &str) -> Option<Reply> {
    let recipients = recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>"));
    for line in ["MAIL FROM:<>".to_owned()].into_iter().chain(recipients).chain(["DATA".to_owned()]) {
        let reply = client.try_command(&line)?;
        if reply.code >= 400 {
            client.try_command("RSET")?;
            return Some(reply);
        }
    }
    let lines = format!("From: jane@client.example\r\n{MARK}{mark}\r\n\r\nHello.\r\n.");
    client.try_command(&lines)
}

/// How often each mark was delivered, and into which mailbox.
fn delivered(site: &Instance) -> BTreeMap<(String, String), usize> {
    let mut marks = BTreeMap::new();
    let of = |user: &&str| {
        messages(&site.maildir(user)).into_iter().map(|mail| ((*user).to_owned(), mail)).collect::<Vec<_>>()
    };
    for (user, mail) in [site.user(), "ann"].iter().flat_map(of) {
        let text = String::from_utf8_lossy(&mail).into_owned();
        // The postmaster is told of sessions that a killed program has broken off.
        if text.starts_with("Return-Path: <double-bounce@") {
            continue;
        }
        let mark = text.lines().find_map(|line| line.strip_prefix(MARK)).expect("a mark in each message");
        *marks.entry((user, mark.to_owned())).or_default() += 1;
    }
    marks
}

/// Has all that was acknowledged delivered, and says how many messages came once more than needed.
pub(crate) fn deliver_all(site: &Instance, acknowledged: &[Acknowledged]) -> usize {
    let missing = missing_after_patience(site, acknowledged);
    let (lost, all) = (missing.len(), acknowledged.len());
    assert!(missing.is_empty(), "{lost} of {all} lost: {missing:?}\n{}", site.log());
    delivered(site).values().map(|times| times - 1).sum()
}

/// What of it is not delivered, however often the queue is tried.
fn missing_after_patience<'a>(site: &Instance, acknowledged: &'a [Acknowledged]) -> Vec<&'a Acknowledged> {
    let missing = || {
        site.try_all();
        let marks = delivered(site);
        let has = |one: &Acknowledged, name: &String| marks.contains_key(&(name.clone(), one.mark.clone()));
        let is_missing = |one: &&Acknowledged| !one.mailboxes.iter().all(|name| has(one, name));
        acknowledged.iter().filter(is_missing).collect::<Vec<_>>()
    };
    let began = Instant::now();
    while !missing().is_empty() && began.elapsed() < scenarios::PATIENCE {
        thread::sleep(Duration::from_millis(200));
    }
    missing()
}

/// Kills the programs in turn, each at some moment after the next few messages were acknowledged.
fn kill_in_turn(load: &Load<'_>, programs: &[&str]) -> BTreeMap<String, usize> {
    let mut killed = BTreeMap::new();
    for program in programs.iter().cycle() {
        let before = load.count();
        wait_for("the next acknowledged messages", || {
            (load.done() || load.count() >= before + 20).then_some(())
        });
        if load.done() {
            break;
        }
        thread::sleep(some_moment());
        *killed.entry((*program).to_owned()).or_default() += load.site.kill(program);
        if *program == "master" {
            wait_for("a new start", || (load.site.postroad(&["start"]).status == 0).then_some(()));
        }
    }
    killed
}

/// Up to 10 ms; no two runs are the same, and each failure must be one that no run may have.
pub(crate) fn some_moment() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_micros(u64::from(now.subsec_nanos() / 7 % 10_000))
}

#[test]
fn no_acknowledged_message_is_lost_whatever_program_is_killed() {
    let site = usual().start();
    let load = Load::new(&site, 1000);
    let programs = ["smtpd", "cleanup", "qmgr", "virtual", "local", "pickup", "master"];
    let killed = thread::scope(|scope| {
        (0..8).for_each(|_| drop(scope.spawn(|| load.send_over_smtp())));
        scope.spawn(|| load.send_with_sendmail(60));
        kill_in_turn(&load, &programs)
    });
    let acknowledged = load.acknowledged();
    let twice = deliver_all(&site, &acknowledged);
    println!(
        "killed {killed:?}; {} acknowledged, {twice} delivered once more than needed",
        acknowledged.len()
    );
    let idle = programs.iter().filter(|program| killed.get(**program).is_none_or(|times| *times == 0));
    assert_eq!(idle.count(), 0, "each program was killed at least once: {killed:?}");
    assert!(!site.log().contains("panicked"), "{}", site.log());
}

#[test]
fn a_message_that_was_not_acknowledged_leaves_nothing() {
    let site = usual().start();
    let mut client = crate::site::greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect("RCPT TO:<ann@box.example.com>", 250);
    client.expect("DATA", 354);
    client.send_raw(&b"Half a line and then ".repeat(20_000));
    drop(client);
    site.wait_for_log(&["lost connection after DATA"]);
    site.wait_for_empty_queue();
    assert!(messages(&site.maildir("ann")).is_empty());
}
