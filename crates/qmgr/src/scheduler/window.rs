//! How many deliveries a destination may have at a time: it grows with what is delivered, and shrinks when the
//! destination fails. No I/O.
//!
//! The rules are those of Postfix: a *pseudo-cohort* is as many deliveries as run at a time. Good deliveries add up, and
//! one more may run at the end of a sequence of 1/feedback of them; a failure takes one away at the begin of such a
//! sequence. The number of cohorts that failed since the last good delivery decides when the destination is given up.

use std::fmt;

use crate::limits::Limits;

/// The state of a destination's concurrency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    size: u32,
    success: f64,
    failure: f64,
    failed_cohorts: f64,
    /// One delivery finds out whether a destination that was given up is back.
    probing: bool,
}

impl Window {
    /// Of a destination of which nothing is known.
    pub(crate) fn new(limits: &Limits) -> Self {
        let size = limits.initial.min(limits.most);
        Self { size, success: 0.0, failure: 0.0, failed_cohorts: 0.0, probing: false }
    }

    /// Of a destination that was given up a while ago.
    pub(crate) fn probe(limits: &Limits) -> Self {
        Self { size: 1, probing: true, ..Self::new(limits) }
    }

    /// Deliveries that may run.
    pub(crate) fn size(&self, limits: &Limits) -> usize {
        usize::try_from(self.size.min(limits.most)).unwrap_or(usize::MAX)
    }

    /// A delivery ended, and the destination had answered. `running`: how many run besides.
    pub(crate) fn succeed(&mut self, limits: &Limits, running: usize) {
        if self.probing {
            *self = Self::new(limits);
            return;
        }
        self.failed_cohorts = 0.0;
        // A window that is not used does not grow beyond what a burst may take.
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        if self.size >= limits.most || self.size >= running.saturating_add(limits.initial) {
            return;
        }
        let step = limits.positive.at(f64::from(self.size));
        self.success += step;
        // Half a step of grace: sums of fractions are never quite one.
        while step > 0.0 && self.success + step / 2.0 >= 1.0 {
            self.size = self.size.saturating_add(1).min(limits.most);
            self.success -= 1.0;
            self.failure = 0.0;
        }
    }

    /// A delivery ended because the destination failed; `true` where it should be given up for a while.
    pub(crate) fn fail(&mut self, limits: &Limits) -> bool {
        let size = f64::from(self.size.max(1));
        self.failed_cohorts += 1.0 / size;
        // Five fifths are a whole.
        if limits.failed_cohorts > 0.0 && self.failed_cohorts + 1e-6 >= limits.failed_cohorts {
            return true;
        }
        let step = limits.negative.at(size);
        self.failure -= step;
        while step > 0.0 && self.failure < -step / 2.0 {
            self.size = self.size.saturating_sub(1).max(1);
            self.success = 0.0;
            self.failure += 1.0;
        }
        false
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, success, failure, failed_cohorts, .. } = self;
        write!(
            f,
            "window {size}, success {success:.3}, failure {failure:.3}, failed cohorts {failed_cohorts:.3}"
        )
    }
}

#[cfg(test)]
mod tests {
    use config::{Feedback, Value, param};
    use proptest::prelude::*;

    use super::*;
    use crate::limits::usual;

    fn feedback(text: &str) -> Feedback {
        Feedback::parse(text, &param::DEFAULT_DESTINATION_CONCURRENCY_POSITIVE_FEEDBACK.row()).unwrap()
    }

    #[test]
    fn each_cohort_doubles_the_window_by_default() {
        let limits = usual();
        let mut window = Window::new(&limits);
        assert_eq!(window.size(&limits), 5);
        (0..5).for_each(|_| window.succeed(&limits, 5));
        assert_eq!(window.size(&limits), 10);
        (0..100).for_each(|_| window.succeed(&limits, 20));
        assert_eq!(window.size(&limits), 20);
    }

    #[test]
    fn a_step_of_one_by_concurrency_adds_one_a_cohort() {
        let limits = Limits { positive: feedback("1/concurrency"), ..usual() };
        let mut window = Window::new(&limits);
        (0..4).for_each(|_| window.succeed(&limits, 5));
        assert_eq!(window.size(&limits), 5);
        window.succeed(&limits, 5);
        assert_eq!(window.size(&limits), 6);
        (0..6).for_each(|_| window.succeed(&limits, 6));
        assert_eq!(window.size(&limits), 7);
    }

    #[test]
    fn an_idle_destination_does_not_grow() {
        let limits = usual();
        let mut window = Window::new(&limits);
        (0..100).for_each(|_| window.succeed(&limits, 0));
        assert_eq!(window.size(&limits), 5);
    }

    #[test]
    fn one_failed_cohort_is_enough_and_a_success_in_between_forgives() {
        let limits = Limits { negative: feedback("0"), ..usual() };
        let mut window = Window::new(&limits);
        assert!((0..4).all(|_| !window.fail(&limits)));
        window.succeed(&limits, 0);
        assert!((0..4).all(|_| !window.fail(&limits)));
        assert!(window.fail(&limits));
        let never = Limits { failed_cohorts: 0.0, ..usual() };
        assert!((0..1000).all(|_| !window.fail(&never)));
        assert_eq!(window.size(&never), 1);
    }

    #[test]
    fn a_failure_shrinks_at_the_begin_of_its_sequence() {
        let limits = Limits { negative: feedback("1/concurrency"), failed_cohorts: 100.0, ..usual() };
        let mut window = Window::new(&limits);
        window.fail(&limits);
        assert_eq!(window.size(&limits), 4);
        window.fail(&limits);
        assert_eq!(window.size(&limits), 4);
    }

    #[test]
    fn a_probe_that_fails_is_enough_and_one_that_succeeds_starts_afresh() {
        let limits = usual();
        let mut window = Window::probe(&limits);
        assert_eq!(window.size(&limits), 1);
        assert!(window.fail(&limits));
        let mut window = Window::probe(&limits);
        window.succeed(&limits, 0);
        assert_eq!(window, Window::new(&limits));
    }

    proptest! {
        #[test]
        fn whatever_happens_at_least_one_and_at_most_the_limit_run(
            events in prop::collection::vec(any::<bool>(), 0..500),
            positive in "(1|0|0\\.3|1/concurrency|1/sqrt_concurrency)",
            negative in "(1|0|0\\.3|1/concurrency|1/sqrt_concurrency)",
            most in 1_u32..40,
        ) {
            let limits = Limits {
                positive: feedback(&positive), negative: feedback(&negative), most, failed_cohorts: 3.0, ..usual()
            };
            let mut window = Window::new(&limits);
            for good in events {
                if good {
                    window.succeed(&limits, usize::MAX);
                } else if window.fail(&limits) {
                    window = Window::probe(&limits);
                }
                let size = window.size(&limits);
                prop_assert!(size >= 1 && size <= usize::try_from(most).unwrap());
            }
        }
    }
}
