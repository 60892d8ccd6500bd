//! How often each verb came: what `disconnect from` logs.

use std::fmt;

use crate::command::Verb;

/// For each verb, how often it came and how often it succeeded.
#[derive(Clone, Debug, Default)]
pub struct Counters([Count; Verb::COUNT]);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    good: u32,
    all: u32,
}

impl Counters {
    pub(super) fn count(&mut self, verb: Verb, good: bool) {
        let count = &mut self.0[verb as usize];
        count.good = count.good.saturating_add(u32::from(good));
        count.all = count.all.saturating_add(1);
    }
}

impl fmt::Display for Counters {
    /// ` ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4`, with the blank before each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sum = Count::default();
        for (verb, count) in Verb::all().zip(self.0).filter(|(_, count)| count.all > 0) {
            write_count(f, &verb.name().to_ascii_lowercase(), count)?;
            sum.good = sum.good.saturating_add(count.good);
            sum.all = sum.all.saturating_add(count.all);
        }
        write_count(f, "commands", sum)
    }
}

fn write_count(f: &mut fmt::Formatter<'_>, name: &str, count: Count) -> fmt::Result {
    match count.good == count.all {
        true => write!(f, " {name}={}", count.all),
        false => write!(f, " {name}={}/{}", count.good, count.all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_show_as_a_fraction() {
        let mut counters = Counters::default();
        counters.count(Verb::Ehlo, true);
        counters.count(Verb::Rcpt, true);
        counters.count(Verb::Rcpt, false);
        assert_eq!(counters.to_string(), " ehlo=1 rcpt=1/2 commands=2/3");
        assert_eq!(Counters::default().to_string(), " commands=0");
    }
}
