//! Which of many cases are tried: all, or as many as time allows, evenly spread.

use std::time::{Duration, Instant};

/// How long one test goes on where nothing else is said, and how many cases it tries however slow they are.
const USUAL_TIME: Duration = Duration::from_secs(4);
const FEWEST: usize = 3;

/// How long a test goes on, by `POSTROAD_CRASH`: some seconds, or as long as it takes (`all`).
fn time() -> Duration {
    match std::env::var("POSTROAD_CRASH").ok().as_deref() {
        Some("all") => Duration::MAX,
        word => word.and_then(|word| word.parse().ok()).map_or(USUAL_TIME, Duration::from_secs),
    }
}

/// Whether everything is tried however long it takes.
pub(crate) fn is_complete() -> bool {
    time() == Duration::MAX
}

/// Tries these cases until they or the time is over: how many were tried.
pub(crate) fn try_out<T>(cases: &[T], mut attempt: impl FnMut(&T)) -> usize {
    let (began, time) = (Instant::now(), time());
    let mut tried = 0;
    for place in spread(cases.len()) {
        if tried >= FEWEST && began.elapsed() > time {
            break;
        }
        attempt(&cases[place]);
        tried += 1;
    }
    tried
}

/// The numbers below `count` in an order of which each beginning is evenly spread: by their bits, the lowest first.
pub(crate) fn spread(count: usize) -> impl Iterator<Item = usize> {
    let bits = usize::BITS - count.leading_zeros();
    let reversed = move |number: usize| number.reverse_bits() >> (usize::BITS - bits.max(1));
    (0..1_usize << bits).map(reversed).filter(move |number| *number < count)
}

#[test]
fn each_number_comes_once_and_the_first_ones_are_apart() {
    for count in [0, 1, 2, 7, 8, 100] {
        let mut numbers: Vec<usize> = spread(count).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    }
    assert_eq!(spread(100).take(4).collect::<Vec<_>>(), [0, 64, 32, 96]);
}
