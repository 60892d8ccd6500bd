//! What is remembered of a client: until when each test counts that it has passed.

/// Seconds since the Unix epoch; 0 for a test that was never passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) greeting: u64,
    pub(super) block_lists: u64,
}

impl Passed {
    /// As it is kept: `GREETING;BLOCKLISTS`.
    pub(super) fn to_value(self) -> String {
        format!("{};{}", self.greeting, self.block_lists)
    }

    /// What was kept; `None` for what is no entry.
    pub(super) fn from_value(value: &str) -> Option<Self> {
        let (greeting, block_lists) = value.split_once(';')?;
        Some(Self { greeting: greeting.parse().ok()?, block_lists: block_lists.parse().ok()? })
    }

    /// When the last of the tests stops to count.
    pub(super) fn last(self) -> u64 {
        self.greeting.max(self.block_lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let passed = Passed { greeting: 17, block_lists: 99 };
        assert_eq!(Passed::from_value(&passed.to_value()), Some(passed));
        assert_eq!(passed.last(), 99);
        for wrong in ["", "1", "1;x", ";1"] {
            assert_eq!(Passed::from_value(wrong), None, "{wrong}");
        }
    }
}
