//! Queue ids: the name of a message in the log, in replies and in the queue's file names.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};

/// Digits without vowels, so that no id spells a word; base 52 and its first 51 are the alphabets of Postfix's long ids.
const DIGITS: &[u8; 52] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";

/// Separates the time from the number that makes the id unique; it is not a digit of base 51.
const SEPARATOR: u8 = b'z';

/// The longest id that is taken from a file name or an operator.
const MAX_LENGTH: usize = 24;

/// A queue id in the form of Postfix's long ids: seconds (six or more digits of base 52), microseconds (four digits),
/// `z`, and a number in base 51.
///
/// In Postfix that number is the file's inode, so that a restored queue must be renamed. Here it is made of the
/// process id and a counter: an id can be given before the file exists (smtpd logs it), and a queue can be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "&str")]
pub struct QueueId {
    length: u8,
    bytes: [u8; MAX_LENGTH],
}

/// The text is not a queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIdError;

impl QueueId {
    /// A new id for a message that arrives `now`; unique among all processes of this host that number less than 2^22
    /// and take less than 2^18 messages in one microsecond.
    #[must_use]
    pub fn generate(now: SystemTime) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        // Asked once: a system call for each message would be a tenth of what smtpd spends on it.
        static PROCESS: OnceLock<u32> = OnceLock::new();
        let process = *PROCESS.get_or_init(std::process::id);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed) & 0x3_ffff;
        let unique = (u64::from(process) << 18) | u64::from(count);
        let mut id = Self { length: 0, bytes: [0; MAX_LENGTH] };
        id.push_number(since.as_secs(), 52, 6);
        id.push_number(u64::from(since.subsec_micros()), 52, 4);
        id.push(SEPARATOR);
        id.push_number(unique, 51, 6);
        id
    }

    /// The id as text: letters and digits only, at most 24 of them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }

    /// The microseconds' digits: what differs most from one message to the next, for spreading files over folders.
    #[must_use]
    pub fn spread(&self) -> u8 {
        let text = self.as_str().as_bytes();
        let end = text.iter().rposition(|b| *b == SEPARATOR).unwrap_or(text.len());
        text[..end].iter().rev().take(2).fold(0, |sum: u8, b| sum.wrapping_mul(31).wrapping_add(*b))
    }

    fn push(&mut self, digit: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
            *place = digit;
            self.length += 1;
        }
    }

    /// Appends `number` in `base`, most significant digit first, with at least `width` digits.
    fn push_number(&mut self, mut number: u64, base: u64, width: usize) {
        let mut digits = [DIGITS[0]; 16];
        let mut used = 0;
        while number > 0 || used < width {
            digits[used] = usize::try_from(number % base).map_or(b'0', |digit| DIGITS[digit]);
            number /= base;
            used += 1;
        }
        for digit in digits[..used].iter().rev() {
            self.push(*digit);
        }
    }
}

impl FromStr for QueueId {
    type Err = QueueIdError;

    /// Takes any short run of ASCII letters and digits: an operator may name a file that Postfix made.
    fn from_str(text: &str) -> Result<Self, QueueIdError> {
        let right = (5..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !right {
            return Err(QueueIdError);
        }
        let mut id = Self { length: 0, bytes: [0; MAX_LENGTH] };
        text.bytes().for_each(|b| id.push(b));
        Ok(id)
    }
}

impl TryFrom<&str> for QueueId {
    type Error = QueueIdError;

    fn try_from(text: &str) -> Result<Self, QueueIdError> {
        text.parse()
    }
}

impl Serialize for QueueId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for QueueIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a queue id: expected 5 to 24 letters and digits")
    }
}

impl std::error::Error for QueueIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_form_of_a_long_id() {
        let id = QueueId::generate(UNIX_EPOCH + Duration::new(1_795_362_868, 123_456_000));
        let (time, unique) = id.as_str().rsplit_once('z').unwrap();
        assert_eq!(time.len(), 10);
        assert!(unique.len() >= 6 && !unique.contains('z'));
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn ids_of_one_microsecond_differ() {
        let now = SystemTime::now();
        assert_ne!(QueueId::generate(now), QueueId::generate(now));
    }

    #[test]
    fn ids_sort_by_time() {
        let early = QueueId::generate(UNIX_EPOCH + Duration::from_micros(1_795_362_868_000_001));
        let late = QueueId::generate(UNIX_EPOCH + Duration::from_micros(1_795_362_868_000_052));
        assert!(early < late);
    }

    #[test]
    fn what_could_leave_the_queue_folder_is_no_id() {
        for wrong in ["", "a", "../x1", "4X/abc", "abc def", "abcde\n", &"a".repeat(25)] {
            assert_eq!(wrong.parse::<QueueId>(), Err(QueueIdError), "{wrong:?}");
        }
    }
}
