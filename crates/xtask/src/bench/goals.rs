//! What is to be reached, beside what was measured.

use super::shown;

/// Something to reach.
struct Goal {
    work: &'static str,
    figure: &'static str,
    compared: Compared,
    bound: Bound,
}

/// What is looked at.
#[derive(Clone, Copy)]
enum Compared {
    /// Our figure itself.
    Alone,
    /// Its ratio to Postfix's.
    ToPostfix,
    /// Its ratio to ours in another work.
    ToWork(&'static str),
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Compared::{Alone, ToPostfix, ToWork};

const fn goal(work: &'static str, figure: &'static str, compared: Compared, bound: Bound) -> Goal {
    Goal { work, figure, compared, bound }
}

const GOALS: [Goal; 28] = [
    goal("deliver", "messages per second", ToPostfix, AtLeast(4.0)),
    goal("deliver", "CPU ms per message", ToPostfix, AtMost(0.25)),
    goal("deliver", "messages per second", ToWork("floor"), AtLeast(0.4)),
    goal("sessions", "messages per second", ToWork("deliver"), AtLeast(0.9)),
    goal("large", "messages per second", ToPostfix, AtLeast(2.5)),
    goal("relay", "messages per second", ToPostfix, AtLeast(4.0)),
    goal("relay", "CPU ms per message", ToPostfix, AtMost(0.25)),
    goal("dead-relay", "drained per second", ToPostfix, AtLeast(4.0)),
    goal("dead-relay", "list s", Alone, AtMost(0.2)),
    goal("recipients", "recipients per second", ToPostfix, AtLeast(4.0)),
    goal("recipients", "alias that makes mailboxes, per second", ToPostfix, AtLeast(4.0)),
    goal("recipients", "alias, per second", ToPostfix, AtLeast(4.0)),
    goal("submit", "one at a time per second", ToPostfix, AtLeast(5.0)),
    goal("submit", "four in parallel per second", ToPostfix, AtLeast(5.0)),
    goal("idle", "sessions", Alone, AtLeast(10_000.0)),
    goal("idle", "new sessions per second", Alone, AtLeast(10_000.0)),
    goal("idle", "KiB per session", Alone, AtMost(20.0)),
    goal("idle", "KiB per session with TLS", Alone, AtMost(45.0)),
    goal("tables", "hash: postmap s", Alone, AtMost(1.5)),
    goal("tables", "cdb: lookups per second", ToPostfix, AtLeast(1.0)),
    goal("suite", "start to greeting s", Alone, AtMost(0.1)),
    goal("suite", "reload s", Alone, AtMost(0.03)),
    goal("suite", "memory at rest MiB", Alone, AtMost(12.0)),
    goal("backlog", "messages", Alone, AtLeast(1_000_000.0)),
    goal("backlog", "start until qmgr knows all s", Alone, AtMost(60.0)),
    goal("backlog", "list, first line s", Alone, AtMost(0.2)),
    goal("backlog", "CPU ms per second at rest", Alone, AtMost(1.0)),
    goal("backlog", "bytes per message in qmgr", Alone, AtMost(200.0)),
];

/// What a work came to: the medians of a figure.
pub struct Row {
    pub work: &'static str,
    pub figure: &'static str,
    pub ours: Option<f64>,
    pub theirs: Option<f64>,
    /// Ours to theirs: the median of the ratios of each round.
    pub ratio: Option<f64>,
}

/// Says of each goal of a work whether it was reached, by the rows of the works so far.
pub fn judge(work: &str, rows: &[Row]) -> Vec<String> {
    GOALS.iter().filter(|goal| goal.work == work).map(|goal| goal.judge(rows)).collect()
}

impl Goal {
    fn judge(&self, rows: &[Row]) -> String {
        let of = |work: &str| rows.iter().find(|row| row.work == work && row.figure == self.figure);
        let ours = of(self.work).and_then(|row| row.ours);
        let (against, value) = match self.compared {
            Alone => (String::new(), ours),
            ToPostfix => (", ratio to Postfix".to_owned(), of(self.work).and_then(|row| row.ratio)),
            ToWork(other) => {
                let other_rate = of(other).and_then(|row| row.ours);
                (format!(", ratio to {other}"), ours.zip(other_rate).map(|(ours, other)| ours / other))
            }
        };
        let (words, bound, reached) = match self.bound {
            AtLeast(bound) => ("at least", bound, value.is_some_and(|value| value >= bound)),
            AtMost(bound) => ("at most", bound, value.is_some_and(|value| value <= bound)),
        };
        let outcome = match (value, reached) {
            (None, _) => "not measured in this run".to_owned(),
            (Some(value), true) => format!("{}, reached", shown(value)),
            (Some(value), false) => format!("{}, missed", shown(value)),
        };
        format!("{}{against}, {words} {bound}: {outcome}", self.figure)
    }
}

#[cfg(test)]
mod tests {
    use super::super::works::WORKS;
    use super::*;

    #[test]
    fn goals_are_of_works_that_there_are() {
        for goal in GOALS {
            let other = if let ToWork(other) = goal.compared { other } else { goal.work };
            let place = |name: &str| WORKS.iter().position(|work| work.name == name).unwrap();
            // What it is compared with has been measured by then.
            assert!(place(other) <= place(goal.work), "{}: {}", goal.work, goal.figure);
        }
    }

    #[test]
    fn goals_are_reached_or_missed_or_not_measured() {
        let row = |work, ours, ratio| Row {
            work,
            figure: "messages per second",
            ours: Some(ours),
            theirs: Some(600.0),
            ratio,
        };
        let alone = [row("deliver", 2000.0, None)];
        let said = judge("deliver", &alone);
        assert_eq!(said[0], "messages per second, ratio to Postfix, at least 4: not measured in this run");
        let all = [row("floor", 4000.0, None), row("deliver", 2000.0, Some(3.33))];
        let said = judge("deliver", &all);
        assert_eq!(said[0], "messages per second, ratio to Postfix, at least 4: 3.33, missed");
        assert_eq!(said[1], "CPU ms per message, ratio to Postfix, at most 0.25: not measured in this run");
        assert_eq!(said[2], "messages per second, ratio to floor, at least 0.4: 0.500, reached");
    }
}
