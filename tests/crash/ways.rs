//! The ways that mail goes, what is promised on each, and what became of a message.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use scenarios::{messages, wait_for};

use crate::site::Site;

/// What the mail system that is relayed to says when it has taken a message.
pub(crate) const HANDED_OVER: &str = "250 2.0.0 taken";

/// A way that mail goes.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Lines of main.cf.
    pub(crate) settings: &'static [&'static str],
    /// What is done first, without a crash: the id of the message, where the way begins with one in the queue.
    pub(crate) prepare: fn(&Site, &Letter) -> Option<String>,
    /// What is done then; how many things were promised.
    pub(crate) act: fn(&Site, &Letter, &str) -> usize,
    pub(crate) end: End,
    /// How many promises there are; the last may be that there is no message any more.
    pub(crate) promises: usize,
    /// After how many of them the message is on hold until something else is done; 0 for never.
    pub(crate) held_after: usize,
}

/// Where messages are in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In the Maildir of `ann`.
    Virtual,
    /// So many messages in the Maildir of `ann`.
    Together(u64),
    /// In each of these Maildirs; that without a name is of the user of the mail system.
    Each(&'static [&'static str]),
    /// In the Maildir of the user of the mail system, or in the mailbox.
    Local,
    Mbox,
    /// With another mail system.
    Peer,
    /// In a report to the sender, `ann`.
    Report,
    /// Nowhere, because the operator wants it so.
    Deleted,
}

/// Every way.
pub(crate) const WAYS: [Way; 19] = [
    Way {
        name: "smtp_to_virtual",
        settings: &[],
        prepare: nothing,
        act: to_ann,
        end: End::Virtual,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "synced_first",
        settings: &["early_delivery_concurrency = 0"],
        prepare: nothing,
        act: to_ann,
        end: End::Virtual,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "sendmail_to_local",
        settings: &[],
        prepare: nothing,
        act: with_sendmail,
        end: End::Local,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "sendmail_over_maildrop",
        // Where only some users may submit mail, pickup takes none at its socket.
        settings: &["authorized_submit_users = !nobody-of-this-name, static:all"],
        prepare: nothing,
        act: with_sendmail,
        end: End::Local,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "smtp_to_mbox",
        settings: &["mail_spool_directory = $root/mail"],
        prepare: nothing,
        act: to_user,
        end: End::Mbox,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "relay",
        settings: &[],
        prepare: nothing,
        act: to_elsewhere,
        end: End::Peer,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "relay_synced_first",
        settings: &["early_delivery_concurrency = 0"],
        prepare: nothing,
        act: to_elsewhere,
        end: End::Peer,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "bounce",
        settings: &[],
        prepare: nothing,
        act: astray,
        end: End::Report,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "hold_and_release",
        settings: &[],
        prepare: deferred,
        act: hold_and_release,
        end: End::Local,
        promises: 3,
        held_after: 2,
    },
    Way {
        name: "requeue",
        settings: &[],
        prepare: deferred,
        act: requeue,
        end: End::Local,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "delete",
        settings: &[],
        prepare: deferred,
        act: delete,
        end: End::Deleted,
        promises: 2,
        held_after: 0,
    },
    Way {
        name: "reload",
        settings: &[],
        prepare: nothing,
        act: reload,
        end: End::Virtual,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "deferred",
        settings: &[],
        prepare: deferred,
        act: try_again,
        end: End::Local,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "several",
        settings: &[],
        prepare: nothing,
        act: to_several,
        end: End::Each(&EVERYBODY),
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "found_by_a_scan",
        settings: &["early_delivery_concurrency = 0"],
        prepare: nothing,
        act: to_ann_and_flush,
        end: End::Virtual,
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "side_by_side",
        settings: &[],
        prepare: nothing,
        act: to_ann_side_by_side,
        end: End::Together(2),
        promises: 2,
        held_after: 0,
    },
    Way {
        name: "crowd",
        settings: &[],
        prepare: nothing,
        act: to_ann_in_a_crowd,
        end: End::Together(CROWD),
        promises: 5,
        held_after: 0,
    },
    Way {
        name: "some_deferred",
        settings: &[],
        prepare: some_deferred,
        act: try_again,
        end: End::Each(&EVERYBODY),
        promises: 1,
        held_after: 0,
    },
    Way {
        name: "alias",
        settings: &[],
        prepare: nothing,
        act: to_alias,
        end: End::Each(&EVERYBODY),
        promises: 1,
        held_after: 0,
    },
];

/// So many that some wait until others are done.
const CROWD: u64 = 5;

/// Who has a mailbox: some are served by one agent, one by another.
const EVERYBODY: [&str; 3] = ["ann", "bob", ""];

/// The way of this name.
pub(crate) fn way(name: &str) -> &'static Way {
    WAYS.iter().find(|way| way.name == name).expect("a way of that name")
}

/// A message that is known by its mark, and of which each block differs from each other.
pub(crate) struct Letter {
    pub(crate) mark: String,
    /// With LF line ends.
    pub(crate) text: String,
}

impl Letter {
    pub(crate) fn new(number: u64) -> Self {
        Self::marked(format!("mark-{number}-"))
    }

    /// Those that go their way at the same time, it being the first of so many.
    fn and_others(&self, count: u64) -> Vec<Self> {
        let other = |number| Self::marked(format!("other-{number}-than-{}", self.mark.to_uppercase()));
        [Self { mark: self.mark.clone(), text: self.text.clone() }]
            .into_iter()
            .chain((1..count).map(other))
            .collect()
    }

    /// Whether a file has it, or another one that goes its way at the same time.
    pub(crate) fn is_in(&self, file: &[u8]) -> bool {
        let text = String::from_utf8_lossy(file);
        self.and_others(CROWD).iter().any(|letter| text.contains(&letter.mark))
    }

    fn marked(mark: String) -> Self {
        // Nothing that the mail system would add is missing.
        let mut text = format!(
            "From: jane@client.example\nTo: you@client.example\nDate: Sun, 22 Nov 2026 12:00:00 +0000\n\
             Message-Id: <{mark}@client.example>\nX-Mark: {mark}\n\n"
        );
        for line in 0..140 {
            text.push_str(&format!("{line} {mark} what is in this line is in no other one of any letter\n"));
        }
        Self { mark, text }
    }

    pub(crate) fn wire(&self) -> String {
        self.text.replace('\n', "\r\n")
    }
}

fn nothing(_: &Site, _: &Letter) -> Option<String> {
    None
}

fn deferred(site: &Site, letter: &Letter) -> Option<String> {
    put_aside(site, "ann@box.example.com", &["later@example.com"], letter)
}

/// The others have it already.
fn some_deferred(site: &Site, letter: &Letter) -> Option<String> {
    put_aside(site, "", &["ann@box.example.com", "later@example.com", "bob@box.example.com"], letter)
}

fn put_aside(site: &Site, sender: &str, recipients: &[&str], letter: &Letter) -> Option<String> {
    site.defer_later(true);
    let id = site.send(sender, recipients, &letter.wire()).expect("a message is taken");
    wait_for("a message to be deferred", || {
        let list = site.instance.run("postqueue", &["-j"], "").stdout;
        list.lines().any(|line| line.contains(&id) && line.contains("\"deferred\"")).then_some(())
    });
    Some(id)
}

fn to_ann(site: &Site, letter: &Letter, _: &str) -> usize {
    usize::from(site.send("", &["ann@box.example.com"], &letter.wire()).is_some())
}

/// What is coming, or has just come, is moved when it is found.
fn to_ann_and_flush(site: &Site, letter: &Letter, _: &str) -> usize {
    let is_taken = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_taken.load(Ordering::Relaxed) {
                site.instance.try_all();
            }
        });
        let promised = to_ann(site, letter, "");
        is_taken.store(true, Ordering::Relaxed);
        promised
    })
}

/// Whatever is shared by deliveries into one folder, and by messages, is shared.
fn to_ann_side_by_side(site: &Site, letter: &Letter, _: &str) -> usize {
    to_ann_together(site, letter, 2)
}

fn to_ann_in_a_crowd(site: &Site, letter: &Letter, _: &str) -> usize {
    to_ann_together(site, letter, CROWD)
}

fn to_ann_together(site: &Site, letter: &Letter, count: u64) -> usize {
    let letters = letter.and_others(count);
    std::thread::scope(|scope| {
        let sent: Vec<_> =
            letters.iter().map(|letter| scope.spawn(move || to_ann(site, letter, ""))).collect();
        sent.into_iter().map(|sent| sent.join().unwrap_or_default()).sum()
    })
}

fn to_several(site: &Site, letter: &Letter, _: &str) -> usize {
    let user = format!("{}@example.com", site.instance.user());
    usize::from(
        site.send("", &["ann@box.example.com", &user, "bob@box.example.com"], &letter.wire()).is_some(),
    )
}

fn to_alias(site: &Site, letter: &Letter, _: &str) -> usize {
    usize::from(site.send("", &["everybody@example.com"], &letter.wire()).is_some())
}

fn to_user(site: &Site, letter: &Letter, _: &str) -> usize {
    usize::from(site.send("", &[&format!("{}@example.com", site.instance.user())], &letter.wire()).is_some())
}

fn to_elsewhere(site: &Site, letter: &Letter, _: &str) -> usize {
    usize::from(site.send("", &["bob@elsewhere.example"], &letter.wire()).is_some())
}

fn astray(site: &Site, letter: &Letter, _: &str) -> usize {
    usize::from(site.send("ann@box.example.com", &["astray@example.com"], &letter.wire()).is_some())
}

fn with_sendmail(site: &Site, letter: &Letter, _: &str) -> usize {
    usize::from(site.follow("sendmail", &[site.instance.user()], letter.text.as_bytes()) == 0)
}

fn hold_and_release(site: &Site, _: &Letter, id: &str) -> usize {
    let is_done = site.follow("postsuper", &["-h", id], b"") == 0 && {
        site.defer_later(false);
        site.follow("postsuper", &["-H", id], b"") == 0
    };
    usize::from(is_done)
}

fn requeue(site: &Site, _: &Letter, id: &str) -> usize {
    site.defer_later(false);
    usize::from(site.follow("postsuper", &["-r", id], b"") == 0)
}

fn delete(site: &Site, _: &Letter, id: &str) -> usize {
    usize::from(site.follow("postsuper", &["-d", id], b"") == 0)
}

fn try_again(site: &Site, _: &Letter, _: &str) -> usize {
    site.defer_later(false);
    site.instance.run("postqueue", &["-f"], "");
    1
}

/// The client is being served while the configuration is replaced.
fn reload(site: &Site, letter: &Letter, _: &str) -> usize {
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| site.follow("postroad", &["reload"], b""));
        let taken = to_ann(site, letter, "");
        drop(reload.join());
        taken
    })
}

/// What is there and is not a whole message.
#[derive(Debug)]
pub(crate) struct Half {
    text: String,
    /// How often the message is there, besides.
    pub(crate) whole: usize,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "half a message, beside {} whole ones:\n{}", self.whole, self.text)
    }
}

/// How often a message is in each place where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copies(Vec<usize>);

impl Copies {
    /// So many in the one place.
    pub(crate) fn of(count: usize) -> Self {
        Self(vec![count])
    }

    pub(crate) fn fewest(&self) -> usize {
        self.0.iter().copied().min().unwrap_or_default()
    }

    pub(crate) fn most(&self) -> usize {
        self.0.iter().copied().max().unwrap_or_default()
    }

    /// How many there are besides the first in each place.
    pub(crate) fn besides_the_first(&self) -> usize {
        self.0.iter().map(|count| count.saturating_sub(1)).sum()
    }

    /// Whether what was promised so often is there, more than `before` times: in each place, or of several messages so many.
    pub(crate) fn keep(&self, end: End, promises: usize, before: usize) -> bool {
        let places = if matches!(end, End::Together(_)) { promises } else { self.0.len() * promises.min(1) };
        self.0.iter().filter(|count| **count > before).count() >= places
    }

    /// How many more there are than before: in the place where that is most, or of all messages together.
    pub(crate) fn more_than(&self, before: &Self, end: End) -> usize {
        let more = self.0.iter().zip(&before.0).map(|(now, before)| now - before);
        if matches!(end, End::Together(_)) { more.sum() } else { more.max().unwrap_or_default() }
    }
}

/// How often a message is where it belongs.
///
/// # Errors
/// What is there and is not whole.
pub(crate) fn copies(site: &Site, end: End, letter: &Letter) -> Result<Copies, Half> {
    match end {
        End::Together(count) => letter
            .and_others(count)
            .iter()
            .map(|letter| in_maildir(site, "ann", letter))
            .collect::<Result<_, _>>()
            .map(Copies),
        End::Each(names) => {
            let folder = |name: &&'static str| if name.is_empty() { site.instance.user() } else { *name };
            names
                .iter()
                .map(|name| in_maildir(site, folder(name), letter))
                .collect::<Result<_, _>>()
                .map(Copies)
        }
        end => in_one_place(site, end, letter).map(Copies::of),
    }
}

fn in_one_place(site: &Site, end: End, letter: &Letter) -> Result<usize, Half> {
    let user = site.instance.user();
    match end {
        End::Virtual => in_maildir(site, "ann", letter),
        End::Local | End::Deleted | End::Together(_) | End::Each(_) => in_maildir(site, user, letter),
        End::Mbox => in_mailbox(site, user, letter),
        End::Peer => Ok(site.peer.count(&format!("{}.\r\n", letter.wire()))),
        End::Report => {
            let reports = messages(&site.instance.maildir("ann"));
            let reports = reports.iter().map(|mail| String::from_utf8_lossy(mail));
            let about: Vec<_> = reports.filter(|mail| mail.contains(&letter.mark)).collect();
            match about
                .iter()
                .find(|mail: &&Cow<'_, str>| !mail.contains(&letter.text) || !mail.ends_with("--\n"))
            {
                Some(half) => Err(Half { text: half.to_string(), whole: about.len() - 1 }),
                None => Ok(about.len()),
            }
        }
    }
}

fn in_maildir(site: &Site, user: &str, letter: &Letter) -> Result<usize, Half> {
    let mails = messages(&site.instance.maildir(user));
    let mails = mails.iter().map(|mail| String::from_utf8_lossy(mail));
    count(mails, |mail| mail.starts_with("Return-Path: <") && mail.ends_with(&letter.text), letter)
}

/// A mailbox is parted at lines that begin with `From ` behind an empty one.
fn in_mailbox(site: &Site, user: &str, letter: &Letter) -> Result<usize, Half> {
    let mailbox = fs::read(site.instance.maildir(user)).unwrap_or_default();
    let text = String::from_utf8_lossy(&mailbox);
    let ends = text.is_empty() || text.ends_with("\n\n");
    let mails = text.split("\n\nFrom ").map(|mail| mail.trim_end_matches('\n').into());
    let is_whole = |mail: &str| mail.ends_with(letter.text.trim_end_matches('\n'));
    let whole = count(mails.filter(|mail: &Cow<'_, str>| !mail.is_empty()), is_whole, letter)?;
    if ends { Ok(whole) } else { Err(Half { text: "it has no end".into(), whole }) }
}

/// How many of these are the message; the others must be whole messages, too.
fn count<'a>(
    mails: impl Iterator<Item = Cow<'a, str>>,
    is_whole: impl Fn(&str) -> bool,
    letter: &Letter,
) -> Result<usize, Half> {
    let (whole, rest): (Vec<_>, Vec<_>) = mails.partition(|mail| is_whole(mail));
    match rest.iter().find(|mail| mail.contains(&letter.mark) || !mail.contains("X-Mark: ")) {
        Some(half) => Err(Half { text: half.to_string(), whole: whole.len() }),
        None => Ok(whole.len()),
    }
}
