//! What a delivery did to the disk, from what was seen of its calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::calls::{Effect, TAKEN};
use crate::disk::{Disk, Name, Node, Operation};
use crate::tracer::Seen;

/// Something that happened, in its order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Disk(Operation),
    /// Somebody was told that the mail system has taken the message, or done what an operator wanted.
    Promised,
    /// Another mail system has taken the message.
    HandedOver,
}

/// A disk, and what was done to it.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) base: Disk,
    pub(crate) steps: Vec<Step>,
}

impl Recording {
    /// Reads what was seen as operations on a disk that was like this, with `root` for its root folder.
    ///
    /// # Panics
    /// When a call worked on something that the disk does not have: then not every change was seen.
    pub(crate) fn of(base: &Disk, root: &Path, seen: &[Seen]) -> Self {
        let mut recorder = Recorder {
            root,
            now: base.clone(),
            new: base.clone(),
            removed: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            steps: Vec::new(),
        };
        seen.iter().for_each(|seen| recorder.take(seen));
        // The base knows the nodes that are made later, so that a node's number means the same in all states.
        Self { base: recorder.new, steps: recorder.steps }
    }

    /// The operations of the first so many steps.
    pub(crate) fn operations(&self, steps: usize) -> Vec<Operation> {
        let operations = self.steps[..steps].iter().filter_map(|step| match step {
            Step::Disk(operation) => Some(operation.clone()),
            _ => None,
        });
        operations.collect()
    }
}

struct Recorder<'a> {
    root: &'a Path,
    /// The disk as it is at this step.
    now: Disk,
    /// The disk as it was, with the nodes that came later and have no name in it.
    new: Disk,
    /// What had these names before it lost them.
    removed: BTreeMap<PathBuf, Node>,
    /// Files that were made without a name. A number may come again when its file is gone: the last one counts.
    unnamed: BTreeMap<PathBuf, Node>,
    steps: Vec<Step>,
}

impl Recorder<'_> {
    fn take(&mut self, seen: &Seen) {
        let path = |path: &PathBuf| path.strip_prefix(self.root).ok().map(Path::to_owned);
        match &seen.effect {
            Effect::Opened { path: at, made, emptied } => {
                let Some(at) = path(at) else { return };
                if *made {
                    self.make(&at, false);
                } else if *emptied {
                    let node = self.node(&at);
                    self.push(Operation::Size { node, size: 0 });
                }
            }
            Effect::MadeUnnamed { path: at, mode } => {
                if let Some(at) = path(at) {
                    let node = self.new_node(false, *mode);
                    self.unnamed.insert(at, node);
                }
            }
            Effect::FolderMade { path: at } => {
                if let Some(at) = path(at) {
                    self.make(&at, true);
                }
            }
            Effect::Written { path: at, offset, bytes } => {
                let Some(at) = path(at) else { return };
                let node = self.node(&at);
                self.push(Operation::Write { node, offset: *offset, bytes: bytes.clone() });
            }
            Effect::Resized { path: at, size } => {
                let Some(at) = path(at) else { return };
                let node = self.node(&at);
                self.push(Operation::Size { node, size: *size });
            }
            Effect::Synced { path: at, data_only, removed } => {
                let Some(at) = path(at) else { return };
                let node = if *removed { self.removed.get(&at).copied() } else { Some(self.node(&at)) };
                // One that never had a name is none of the disk.
                let Some(node) = node else { return };
                self.push(Operation::Sync { node, data_only: *data_only });
            }
            Effect::WrittenOut { path: at } => {
                let Some(at) = path(at) else { return };
                let node = self.node(&at);
                self.push(Operation::WriteOut { node });
            }
            Effect::AllSynced => self.push(Operation::SyncAll),
            Effect::Renamed { from, to } => {
                let (Some(from), Some(to)) = (path(from), path(to)) else { return };
                let (node, from, to) = (self.node(&from), self.name(&from), self.name(&to));
                self.push(Operation::Move { from, to, node });
            }
            Effect::Linked { from, to } => {
                let (Some(from), Some(to)) = (path(from), path(to)) else { return };
                let (node, name) = (self.node(&from), self.name(&to));
                self.push(Operation::Add { name, node });
            }
            Effect::Unlinked { path: at } | Effect::FolderRemoved { path: at } => {
                let Some(at) = path(at) else { return };
                let (name, node) = (self.name(&at), self.node(&at));
                self.push(Operation::Remove { name, node });
                self.removed.insert(at, node);
            }
            Effect::ModeSet { path: at, mode } => {
                let Some(at) = path(at) else { return };
                let node = self.node(&at);
                self.push(Operation::Mode { node, mode: *mode });
            }
            Effect::TimeSet { path: at, time } => {
                let Some(at) = path(at) else { return };
                let node = self.node(&at);
                self.push(Operation::Time { node, time: *time });
            }
            Effect::Said(text) if seen.program == "smtpd" && contains(text, TAKEN) => {
                self.steps.push(Step::Promised);
            }
            Effect::Ends(0) if matches!(seen.program.as_str(), "sendmail" | "postsuper") => {
                self.steps.push(Step::Promised);
            }
            Effect::Heard(text) if contains(text, crate::ways::HANDED_OVER) => {
                self.steps.push(Step::HandedOver);
            }
            Effect::Given | Effect::Said(_) | Effect::Heard(_) | Effect::Ends(_) => {}
        }
    }

    fn make(&mut self, path: &Path, is_folder: bool) {
        let name = self.name(path);
        // What daemons use for mail; a later change of it is seen.
        let node = self.new_node(is_folder, if is_folder { 0o700 } else { 0o600 });
        self.push(Operation::Add { name, node });
    }

    fn new_node(&mut self, is_folder: bool, mode: u32) -> Node {
        use std::os::unix::fs::MetadataExt;
        // The owner is whoever owns the folder.
        let owner =
            std::fs::metadata(self.root.join("queue/incoming")).map_or((0, 0), |f| (f.uid(), f.gid()));
        let node = self.now.new_node(is_folder, mode, owner);
        self.new.new_node(is_folder, mode, owner);
        node
    }

    fn push(&mut self, operation: Operation) {
        self.now.apply(&operation);
        self.steps.push(Step::Disk(operation));
    }

    fn node(&self, path: &Path) -> Node {
        let found = self.unnamed.get(path).copied().or_else(|| self.now.find(path));
        found.unwrap_or_else(|| panic!("{} is on no disk; what made it?", path.display()))
    }

    fn name(&self, path: &Path) -> Name {
        self.now.locate(path).unwrap_or_else(|| panic!("{} is in no folder", path.display()))
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}
