//! Which messages were taken over: a line `STEP QUEUE ID ARRIVAL` for each step of each.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

const NAME: &str = "import-queue";

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is durable in the queue, where nobody delivers it yet.
    Stored,
    /// It was given to those who deliver.
    Released,
}

impl Step {
    const fn word(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Released => "released",
        }
    }
}

pub(super) struct Ledger {
    file: File,
    steps: HashMap<String, Step>,
}

impl Ledger {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        let file = File::options().read(true).append(true).create(true).open(&path)?;
        // Two imports at once would each take every message.
        file.try_lock()
            .map_err(|_| io::Error::other(format!("{} is in use by another import", path.display())))?;
        let text = fs::read_to_string(&path)?;
        let mut steps = HashMap::new();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("stored", key)) => drop(steps.insert(key.to_owned(), Step::Stored)),
                Some(("released", key)) => drop(steps.insert(key.to_owned(), Step::Released)),
                // A line that a crash has cut off was not counted on by anybody.
                _ => {}
            }
        }
        let mut file = file;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { file, steps })
    }

    /// What a message is called: Postfix's short ids come back in time.
    pub(super) fn key(queue: &Path, id: &str, arrival: Duration) -> String {
        format!("{} {id} {}.{:06}", queue.display(), arrival.as_secs(), arrival.subsec_micros())
    }

    pub(super) fn step(&self, key: &str) -> Option<Step> {
        self.steps.get(key).copied()
    }

    /// Durable when it returns.
    pub(super) fn note(&mut self, key: &str, step: Step) -> io::Result<()> {
        self.file.write_all(format!("{} {key}\n", step.word()).as_bytes())?;
        self.file.sync_all()?;
        self.steps.insert(key.to_owned(), step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_remembered_also_behind_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let key = Ledger::key(Path::new("/q"), "4X", Duration::new(1, 2_000));
        assert_eq!(key, "/q 4X 1.000002");
        let mut ledger = Ledger::open(folder.path()).unwrap();
        ledger.note(&key, Step::Stored).unwrap();
        assert!(Ledger::open(folder.path()).is_err(), "one at a time");
        drop(ledger);
        File::options().append(true).open(folder.path().join(NAME)).unwrap().write_all(b"rele").unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.step(&key), Some(Step::Stored));
        ledger.note(&key, Step::Released).unwrap();
        drop(ledger);
        assert_eq!(Ledger::open(folder.path()).unwrap().step(&key), Some(Step::Released));
    }
}
