//! How input is cut: a parser must not care.

/// Takes a number off the beginning: what a target decides by it is part of the input, so that a fuzzer can change it.
pub fn take_byte(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *first
}

/// Parts at a byte that no text has in a place of interest: a target may want several texts.
#[must_use]
pub fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0xff) {
        Some(place) => (&data[..place], &data[place + 1..]),
        None => (data, &[]),
    }
}

/// Cuts `data` into pieces whose lengths follow from `seed`, mostly short ones; 0 leaves it whole.
pub fn cut(data: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = if seed == 0 { rest.len() } else { next_length(&mut state) };
        let (piece, later) = rest.split_at(length.min(rest.len()));
        rest = later;
        Some(piece)
    })
}

fn next_length(state: &mut u32) -> usize {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let random = usize::try_from(*state >> 16).unwrap_or(1);
    // One byte in half of the cases: most mistakes are about the last byte of something.
    if random & 1 == 0 { 1 } else { 1 + (random >> 1) % 40 }
}
