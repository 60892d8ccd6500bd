//! The destinations of an expansion that are done while others of the same expansion wait for a retry.
//!
//! Contract: kept in memory, bounded. Forgetting (a crash, a reload, a full memory) means that a destination may be
//! served twice, never that it is left out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use mail::QueueId;

use crate::failure::Delivered;

/// More than this is remembered for no instant: then all is forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// A message and the recipient whose expansion it is about.
type Expansion = (QueueId, String);

/// What was done, by expansion and by destination.
#[derive(Default)]
pub(super) struct Served {
    done: Mutex<HashMap<Expansion, HashMap<String, Delivered>>>,
}

impl Served {
    /// What became of a destination earlier.
    pub(super) fn recall(&self, expansion: &Expansion, destination: &str) -> Option<Delivered> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.get(expansion)?.get(destination).cloned()
    }

    /// Remembers what became of a destination.
    pub(super) fn remember(&self, expansion: &Expansion, destination: String, delivered: Delivered) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.values().map(HashMap::len).sum::<usize>() >= MAX_REMEMBERED {
            done.clear();
        }
        done.entry(expansion.clone()).or_default().insert(destination, delivered);
    }

    /// The expansion is done with.
    pub(super) fn forget(&self, expansion: &Expansion) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).remove(expansion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_recalled_until_it_is_forgotten() {
        let served = Served::default();
        let expansion = (QueueId::generate(std::time::SystemTime::now()), "a@b".to_owned());
        assert_eq!(served.recall(&expansion, "|x"), None);
        served.remember(&expansion, "|x".to_owned(), Ok("done".to_owned()));
        assert_eq!(served.recall(&expansion, "|x"), Some(Ok("done".to_owned())));
        assert_eq!(served.recall(&expansion, "|y"), None);
        served.forget(&expansion);
        assert_eq!(served.recall(&expansion, "|x"), None);
    }

    #[test]
    fn memory_is_bounded() {
        let served = Served::default();
        let expansion = (QueueId::generate(std::time::SystemTime::now()), "a@b".to_owned());
        for n in 0..MAX_REMEMBERED + 10 {
            served.remember(&expansion, n.to_string(), Ok(String::new()));
        }
        assert!(served.done.lock().unwrap().values().map(HashMap::len).sum::<usize>() <= 10);
    }
}
