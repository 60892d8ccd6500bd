//! How long a transport takes for a delivery: whether it is worth while to wait for one. No I/O, no clock.

use std::collections::HashMap;
use std::time::Duration;

use crate::scheduler::Name;

/// A transport that takes longer than this for a delivery, of late, is not waited for.
const PROMPT: Duration = Duration::from_millis(50);

/// A delivery counts for no longer than this: a single one that hangs is forgotten after some that do not.
const LONGEST: Duration = Duration::from_secs(1);

/// How many deliveries "of late" are, about.
const MEMORY: u32 = 8;

/// What the last deliveries of each transport took.
#[derive(Default)]
pub(crate) struct Promptness(HashMap<Name, Duration>);

impl Promptness {
    /// A delivery has ended.
    pub(crate) fn note(&mut self, transport: &Name, took: Duration) {
        let took = took.min(LONGEST);
        match self.0.get_mut(transport) {
            Some(recent) => *recent = (*recent * (MEMORY - 1) + took) / MEMORY,
            None => drop(self.0.insert(transport.clone(), took)),
        }
    }

    /// Whether deliveries take a moment only. One of which nothing is known is believed to be.
    pub(crate) fn is_prompt(&self, transport: &str) -> bool {
        self.0.get(transport).is_none_or(|recent| *recent <= PROMPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_judged_by_its_last_deliveries() {
        let (mut promptness, transport) = (Promptness::default(), Name::from("virtual"));
        assert!(promptness.is_prompt("virtual"));
        (0..100).for_each(|_| promptness.note(&transport, Duration::from_millis(5)));
        assert!(promptness.is_prompt("virtual"));
        promptness.note(&transport, Duration::from_secs(300));
        assert!(!promptness.is_prompt("virtual") && promptness.is_prompt("local"));
        (0..20).for_each(|_| promptness.note(&transport, Duration::from_millis(5)));
        assert!(promptness.is_prompt("virtual"));
        (0..20).for_each(|_| promptness.note(&transport, Duration::from_millis(80)));
        assert!(!promptness.is_prompt("virtual"));
    }
}
