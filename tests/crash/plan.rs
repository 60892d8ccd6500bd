//! Which of many cases are tried: all, or as many as time allows, evenly spread.

use std::time::{Duration, Instant};

/// How long one test goes on where it is not to try everything, and how many cases it tries however slow they are.
const USUAL_TIME: Duration = Duration::from_secs(4);
const FEWEST: usize = 6;

/// Whether every case is to be tried, which takes some minutes: `cargo xtask crash` says so.
pub(crate) fn is_exhaustive() -> bool {
    std::env::var_os("POSTROAD_CRASH").is_some_and(|word| word == "all")
}

/// Tries these cases until they or the time is over: how many were tried.
pub(crate) fn try_out<T>(cases: &[T], mut attempt: impl FnMut(&T)) -> usize {
    let began = Instant::now();
    let mut tried = 0;
    for place in spread(cases.len()) {
        if !is_exhaustive() && tried >= FEWEST && began.elapsed() > USUAL_TIME {
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
