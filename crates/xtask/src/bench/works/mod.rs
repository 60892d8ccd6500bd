//! What is measured: one work, one file; those that differ only in their load share one.

mod backlog;
mod dead_relay;
mod flow;
mod growth;
mod idle;
mod recipients;
mod slow_relay;
mod submit;
mod suite;
mod tables;

use super::Scale;
use super::meter::Figure;
use super::system::Side;
use crate::shell::Result;

/// Something to do that takes time.
pub struct Work {
    pub name: &'static str,
    pub about: &'static str,
    /// Does it on a fresh disk.
    pub run: fn(Side, Scale) -> Result<Vec<Figure>>,
    /// Counts its system calls, with fewer messages.
    pub calls: Option<fn(Side) -> Result<String>>,
    /// The other side cannot do it in a time that one wants to wait.
    pub ours_alone: bool,
    /// It takes so long that one round is enough.
    pub once: bool,
    /// It is about what a package installs, whose programs are built with the profile `shipped`.
    pub packaged: bool,
}

/// A work without a special feature.
const PLAIN: Work = Work {
    name: "",
    about: "",
    run: flow::deliver,
    calls: None,
    ours_alone: false,
    once: false,
    packaged: false,
};

pub const WORKS: [Work; 15] = [
    Work {
        name: "floor",
        about: "the disk work of `deliver` alone",
        run: flow::floor,
        ours_alone: true,
        ..PLAIN
    },
    Work {
        name: "deliver",
        about: "SMTP in, Maildir out: 4 KiB, 50 sessions kept open",
        run: flow::deliver,
        calls: Some(flow::calls_of_deliver),
        ..PLAIN
    },
    Work {
        name: "sessions",
        about: "the same with 200 sessions, default settings",
        run: flow::sessions,
        ..PLAIN
    },
    Work {
        name: "reconnect",
        about: "the same with a new connection for each message",
        run: flow::reconnect,
        calls: Some(flow::calls_of_reconnect),
        ..PLAIN
    },
    Work {
        name: "large",
        about: "SMTP in, Maildir out: 100 KiB, 10 sessions",
        run: flow::large,
        calls: Some(flow::calls_of_large),
        ..PLAIN
    },
    Work {
        name: "relay",
        about: "SMTP in, SMTP out: 4 KiB, 50 sessions",
        run: flow::relay,
        calls: Some(flow::calls_of_relay),
        ..PLAIN
    },
    Work {
        name: "dead-relay",
        about: "20,000 messages to a relay that is dead, and comes back",
        run: dead_relay::run,
        ..PLAIN
    },
    Work {
        name: "slow-relay",
        about: "mail to a relay beside one that takes a second for each message",
        run: slow_relay::run,
        ..PLAIN
    },
    Work {
        name: "recipients",
        about: "messages to 50 mailboxes; an alias of 10,000",
        run: recipients::run,
        ..PLAIN
    },
    Work { name: "submit", about: "sendmail, one at a time and four in parallel", run: submit::run, ..PLAIN },
    Work { name: "idle", about: "sessions that say nothing", run: idle::run, ..PLAIN },
    Work { name: "tables", about: "postmap of a million entries, and lookups", run: tables::run, ..PLAIN },
    Work {
        name: "suite",
        about: "start, reload, memory of a system at rest",
        run: suite::run,
        packaged: true,
        ..PLAIN
    },
    Work {
        name: "backlog",
        about: "a million deferred messages: start, list, memory, and mail that passes them",
        run: backlog::run,
        ours_alone: true,
        once: true,
        ..PLAIN
    },
    Work {
        name: "growth",
        about: "the same with 1,000, 10,000, 100,000 and a million: a table and a plot",
        run: growth::run,
        ours_alone: true,
        once: true,
        ..PLAIN
    },
];
