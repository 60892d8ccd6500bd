//! The order of a message's lines, which come from many programs.
//!
//! Log tools read `client=` before `from=`, that before `to=`, and `removed` last; pflogsumm counts senders and bytes by it.
//! Each program writes what it has gathered once in a [`STEP`], so that lines of one message that follow each other by less
//! than that would be in any order. So who speaks later in a message's life holds its lines back for longer than who spoke
//! before: nobody asks or waits for anybody, and only a writer that does not run for two steps is overtaken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sink::Batch;

/// For how long lines are gathered that are written together.
pub(super) const STEP: Duration = Duration::from_millis(20);

/// How much longer lines are held back than those of who spoke before: a line waits for up to a step until it is gathered,
/// and for another until its time is seen to have come.
const APART: Duration = STEP.saturating_mul(4);

/// When a message comes to this program, by the name that it logs under: not before the others that speak of it.
fn place_of(name: &str) -> u32 {
    match name.rsplit('/').next().unwrap_or_default() {
        "qmgr" => 1,
        "local" | "virtual" | "pipe" | "smtp" | "lmtp" | "relay" | "error" | "retry" | "discard" => 2,
        "bounce" | "defer" | "trace" => 3,
        // Servers, cleanup, pickup, and who speaks of no message.
        _ => 0,
    }
}

/// When qmgr says that it is done with one.
const LAST: u32 = 4;

/// The lines of some time.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) usual: Batch,
    /// Each is the last one of a message.
    pub(super) last: Batch,
}

/// Lines that wait until those of others are written.
#[derive(Debug)]
pub(super) struct Held {
    usual: Line,
    last: Line,
}

impl Held {
    /// Those of the program that logs under this name.
    pub(super) fn new(name: &str) -> Self {
        Self { usual: Line::new(place_of(name)), last: Line::new(LAST) }
    }

    /// What is to be written now, given what was gathered until now.
    pub(super) fn due(&mut self, gathered: Gathered, now: Instant) -> Vec<Batch> {
        self.usual.hold(gathered.usual, now);
        self.last.hold(gathered.last, now);
        self.last.take(now).chain(self.usual.take(now)).collect()
    }

    /// All that is left, with what was gathered.
    pub(super) fn end(&mut self, gathered: Gathered) -> Vec<Batch> {
        let now = Instant::now();
        self.usual.hold(gathered.usual, now);
        self.last.hold(gathered.last, now);
        let lines = [&mut self.usual, &mut self.last];
        lines.into_iter().flat_map(|line| line.waiting.drain(..).map(|(_, batch)| batch)).collect()
    }

    /// When something is to be written; none where nothing waits.
    pub(super) fn next(&self) -> Option<Instant> {
        [&self.usual, &self.last].iter().filter_map(|line| line.waiting.front().map(|(due, _)| *due)).min()
    }
}

/// Batches, and when each is to be written.
#[derive(Debug)]
struct Line {
    held_for: Duration,
    waiting: VecDeque<(Instant, Batch)>,
}

impl Line {
    const fn new(place: u32) -> Self {
        Self { held_for: APART.saturating_mul(place), waiting: VecDeque::new() }
    }

    fn hold(&mut self, batch: Batch, now: Instant) {
        if !batch.is_empty() {
            self.waiting.push_back((now + self.held_for, batch));
        }
    }

    fn take(&mut self, now: Instant) -> impl Iterator<Item = Batch> {
        let count = self.waiting.iter().take_while(|(due, _)| *due <= now).count();
        self.waiting.drain(..count).map(|(_, batch)| batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(usual: &str, last: &str) -> Gathered {
        Gathered { usual: Batch::of(usual), last: Batch::of(last) }
    }

    fn text(batches: &[Batch]) -> String {
        batches.iter().map(Batch::text).collect()
    }

    /// How long a program that logs under this name holds these back.
    fn held(name: &str, gathered: Gathered) -> Duration {
        let (mut held, now) = (Held::new(name), Instant::now());
        if !held.due(gathered, now).is_empty() {
            return Duration::ZERO;
        }
        let due = held.next().unwrap();
        assert!(held.due(Gathered::default(), due - Duration::from_nanos(1)).is_empty());
        assert_eq!(text(&held.due(Gathered::default(), due)), "x");
        due - now
    }

    #[test]
    fn who_speaks_later_of_a_message_holds_its_lines_back_for_longer() {
        let names = ["postroad/smtpd", "postroad/qmgr", "site/in/virtual", "postroad/bounce"];
        let mut all: Vec<Duration> = names.map(|name| held(name, gathered("x", ""))).to_vec();
        all.push(held("postroad/qmgr", gathered("", "x")));
        assert_eq!(all[0], Duration::ZERO);
        // A step until it is gathered, one until its time is seen to have come, and one to spare.
        assert!(all.windows(2).all(|two| two[1] - two[0] > 3 * STEP), "{all:?}");
        assert_eq!(held("postroad/cleanup", gathered("x", "")), all[0]);
        assert_eq!(held("postroad/smtp", gathered("x", "")), all[2]);
    }

    #[test]
    fn nothing_is_left_or_written_twice_and_each_program_keeps_its_order() {
        let (mut held, now) = (Held::new("postroad/qmgr"), Instant::now());
        assert!(held.due(gathered("1", "4"), now).is_empty());
        assert!(held.due(gathered("2", "5"), now + STEP).is_empty());
        assert_eq!(text(&held.end(gathered("3", "6"))), "123456");
        assert!(held.next().is_none() && held.end(Gathered::default()).is_empty());
        assert!(held.due(gathered("1", "2"), now).is_empty());
        assert_eq!(text(&held.due(gathered("3", ""), now + APART)), "1");
        assert_eq!(text(&held.due(Gathered::default(), now + APART * 5)), "23");
        assert!(held.next().is_none());
    }
}
