//! Deterministic changes of seeds, for a run of the targets where no fuzzer is at hand.

/// A generator of numbers (`SplitMix64`): the same seed gives the same changes on every machine.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Begins at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from((mixed ^ (mixed >> 31)) % limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }
}

/// What means something to one grammar or another.
const WORDS: [&[u8]; 40] = [
    b"\r\n",
    b"\n",
    b"\r",
    b".",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\n.\r\n",
    b" ",
    b"\t",
    b":",
    b"\"",
    b"\\",
    b"(",
    b")",
    b"<",
    b">",
    b"@",
    b",",
    b";",
    b"=",
    b"{",
    b"}",
    b"${",
    b"$",
    b"?",
    b"[",
    b"]",
    b"*",
    b"/",
    b"#",
    b"+",
    b"--",
    b"\0",
    b"\xff",
    b"\xc3\xbc",
    b"BDAT 5 LAST\r\n",
    b"250 ",
    b"250-",
    b"18446744073709551615",
    b"-1",
];

/// The longest input: what is behind it teaches nothing that a shorter one does not.
const MAX_LENGTH: usize = 8192;

/// A change of `seed`; `other` is a seed of the same target, of which a part may come in.
#[must_use]
pub fn changed(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let place = numbers.below(data.len() + 1);
        let end = place + numbers.below((data.len() - place).min(32) + 1);
        match numbers.below(8) {
            0 => drop(data.drain(place..end)),
            1 => data.insert(place, numbers.byte()),
            2 | 3 => drop(data.splice(place..place, WORDS[numbers.below(WORDS.len())].iter().copied())),
            4 => {
                let copy = data[place..end].to_vec();
                let times = 1 + numbers.below(20);
                drop(data.splice(place..place, copy.repeat(times)));
            }
            5 => {
                let from = numbers.below(other.len() + 1);
                let to = from + numbers.below((other.len() - from).min(64) + 1);
                drop(data.splice(place..end, other[from..to].iter().copied()));
            }
            6 => data.truncate(place),
            _ => {
                if let Some(byte) = data.get_mut(place) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
        }
    }
    data.truncate(MAX_LENGTH);
    data
}
