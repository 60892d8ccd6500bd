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

/// Tries these cases until they or the time is over: how many were tried. Those that are marked take turns with the
/// others, so that a few of them are tried however many others there are.
pub(crate) fn try_out<T>(cases: &[T], is_marked: impl Fn(&T) -> bool, mut attempt: impl FnMut(&T)) -> usize {
    let (began, time) = (Instant::now(), time());
    let (marked, others): (Vec<&T>, Vec<&T>) = cases.iter().partition(|case| is_marked(case));
    let mut tried = 0;
    for case in in_turns(spread(marked.len()).map(|at| marked[at]), spread(others.len()).map(|at| others[at]))
    {
        if tried >= FEWEST && began.elapsed() > time {
            break;
        }
        attempt(case);
        tried += 1;
    }
    tried
}

/// One of these, one of those, and so on, and then the rest.
fn in_turns<T>(
    mut some: impl Iterator<Item = T>,
    mut others: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    let mut is_turn_of_some = false;
    std::iter::from_fn(move || {
        is_turn_of_some = !is_turn_of_some;
        if is_turn_of_some {
            some.next().or_else(|| others.next())
        } else {
            others.next().or_else(|| some.next())
        }
    })
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

#[test]
fn what_is_marked_takes_turns_with_the_others() {
    assert_eq!(in_turns(0..2, 10..15).collect::<Vec<_>>(), [0, 10, 1, 11, 12, 13, 14]);
    assert_eq!(in_turns(0..3, 10..11).collect::<Vec<_>>(), [0, 10, 1, 2]);
}
