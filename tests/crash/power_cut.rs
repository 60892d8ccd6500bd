//! What a power cut may leave: of all that was done since it was last synced, a file system keeps some.
//!
//! | | [`Model::Ordered`]: a journal, data before the names that lead to it (ext4's default) | [`Model::Any`]: whatever was not synced itself |
//! |---|---|---|
//! | names, modes, times, sizes | kept in the order in which they were done, up to some point; a sync of a node keeps all up to the node's last change, and nothing more | any of them kept, any lost; of a rename nothing, all, or both names |
//! | the length that writes give a file | never before what was done earlier; maybe long after it, where the blocks are to be found yet | as far as blocks are kept, or all of it without any data |
//! | data that was not synced | each block of 4 KiB as of any write to it, or zeros; nothing beyond the file's length | the same |
//! | fsync of a file | its data, its mode | the same, and the name that it was made with, as ext4, XFS and Btrfs all do; not what it was renamed to |
//! | fdatasync | its data, its length | the same |
//! | sync_file_range | its data and length, once any later change is kept | nothing |
//! | fsync of a folder | the names in it, and whatever was kept in order before the last of their changes; no data of files, and nothing at all where none of its names changed | the names in it |
//! | fdatasync of a folder | nothing: ext4 takes no change of a name for data | the same |

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::{Disk, Node, Operation};

/// What a file system loses and keeps as a whole.
const BLOCK: u64 = 4096;

/// How a file system keeps what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Model {
    Ordered,
    Any,
}

/// Numbers that are the same in each run (xorshift).
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// The states that a cut after these operations may leave: all of them where there are at most `most`, otherwise so
/// many that chance picks, the two extremes among them. The same state may come more than once.
pub(crate) fn states(base: &Disk, done: &[Operation], model: Model, most: u64, seed: u64) -> Vec<Disk> {
    let open = Open::of(base, done, model);
    let digits = open.digits(done);
    let count = digits.iter().try_fold(1_u64, |count, digit| count.checked_mul(digit.choices));
    let mut chance = Chance::new(seed);
    let picks: Vec<Vec<u64>> = match count {
        Some(count) if count <= most => (0..count).map(|number| spell(number, &digits)).collect(),
        _ => {
            let lowest = digits.iter().map(|_| 0).collect();
            let highest = digits.iter().map(|digit| digit.choices - 1).collect();
            let some = (2..most).map(|_| digits.iter().map(|digit| chance.below(digit.choices)).collect());
            [lowest, highest].into_iter().chain(some).collect()
        }
    };
    picks.iter().map(|pick| build(base, done, &open, &digits, pick)).collect()
}

/// A number, written with as many values for each place as there are choices.
fn spell(mut number: u64, digits: &[Digit]) -> Vec<u64> {
    let places = digits.iter().map(|digit| {
        let value = number % digit.choices;
        number /= digit.choices;
        value
    });
    places.collect()
}

/// Something that may have come out in several ways.
#[derive(Debug, PartialEq, Eq)]
struct Digit {
    what: Doubt,
    /// How many ways.
    choices: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Doubt {
    /// How many of the open changes of names and nodes the journal had.
    Journal,
    /// Whether this operation is kept; a third way is that a rename left both names.
    Change(usize),
    /// How many of the open writes to this block of a file were made.
    Block(Node, u64),
    /// Whether the file has its full length whatever was written of it.
    Length(Node),
    /// How many of the open growths of a file were kept, at most: the journal may have had none of them.
    Growth(Node),
}

/// A write that made a file longer, up to the end of one of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Growth {
    at: usize,
    node: Node,
    length: u64,
}

/// What a journal keeps in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// This operation.
    Done(usize),
    /// The length that it gave a file.
    Grown(Growth),
}

/// Which operations a cut may undo.
#[derive(Debug, Default)]
struct Open {
    /// Changes of names and nodes, in order.
    changes: Vec<Change>,
    /// Lengths that may be kept later than their place in that order says.
    growths: Vec<Growth>,
    /// Renames whose new name is safe, and whose old one may still be there.
    half: BTreeSet<usize>,
    writes: BTreeSet<usize>,
    ordered: bool,
}

impl Open {
    fn of(base: &Disk, done: &[Operation], model: Model) -> Self {
        let mut open = Self { ordered: model == Model::Ordered, ..Self::default() };
        let mut disk = base.clone();
        for (at, operation) in done.iter().enumerate() {
            match operation {
                Operation::Write { node, offset, bytes } => {
                    open.writes.insert(at);
                    let before = disk.nodes[*node].data.len() as u64;
                    open.grow(at, *node, before..offset + bytes.len() as u64);
                }
                Operation::Sync { node, data_only: true } if disk.nodes[*node].is_folder => {}
                // Nobody looks at that; what counts is whether a journal has it.
                Operation::Time { node, .. } if disk.nodes[*node].is_folder && !open.ordered => {}
                Operation::Sync { node, data_only } => open.sync(done, *node, *data_only),
                Operation::WriteOut { node } => open.write_out(done, *node),
                Operation::SyncAll => {
                    open = Self { ordered: open.ordered, ..Self::default() };
                }
                _ => open.changes.push(Change::Done(at)),
            }
            disk.apply(operation);
        }
        open
    }

    fn grow(&mut self, at: usize, node: Node, lengths: std::ops::Range<u64>) {
        if !self.ordered || lengths.is_empty() {
            return;
        }
        let ends = (lengths.start / BLOCK + 1..lengths.end.div_ceil(BLOCK)).map(|block| block * BLOCK);
        for length in ends.chain([lengths.end]) {
            let growth = Growth { at, node, length };
            self.changes.push(Change::Grown(growth));
            self.growths.push(growth);
        }
    }

    /// What is in order anew, or safe, has no length of its own any more.
    fn forget_growths(&mut self, node: Node) {
        self.growths.retain(|growth| growth.node != node);
        self.changes.retain(|change| !matches!(change, Change::Grown(growth) if growth.node == node));
    }

    fn sync(&mut self, done: &[Operation], node: Node, data_only: bool) {
        self.writes.retain(|at| !is_write(&done[*at], node));
        if self.ordered {
            let last = self.changes.iter().rposition(|change| match change {
                Change::Done(at) => touches(done, *at, node, data_only),
                Change::Grown(growth) => growth.node == node,
            });
            self.changes.drain(..last.map_or(0, |last| last + 1));
            self.changes.retain(|change| !matches!(change, Change::Done(at) if is_write(&done[*at], node)));
            return self.forget_growths(node);
        }
        let half = &mut self.half;
        self.changes.retain(|change| {
            let Change::Done(at) = change else { return true };
            match &done[*at] {
                Operation::Add { name, node: of } => {
                    !(name.0 == node || *of == node && is_making(done, *at, node))
                }
                Operation::Remove { name, .. } => name.0 != node,
                // The old name is gone for good, and both were one change.
                Operation::Move { from, .. } if from.0 == node => false,
                Operation::Move { to, .. } if to.0 == node => {
                    half.insert(*at);
                    true
                }
                Operation::Size { node: of, .. } => *of != node,
                Operation::Mode { node: of, .. } | Operation::Time { node: of, .. } => {
                    *of != node || data_only
                }
                _ => true,
            }
        });
    }

    /// What was written to a node takes its place among the changes that the journal keeps in order.
    fn write_out(&mut self, done: &[Operation], node: Node) {
        if self.ordered {
            self.forget_growths(node);
            let (its, others) = self.writes.iter().partition(|at| is_write(&done[**at], node));
            self.writes = others;
            let its: BTreeSet<usize> = its;
            self.changes.extend(its.into_iter().map(Change::Done));
        }
    }

    fn digits(&self, done: &[Operation]) -> Vec<Digit> {
        let mut digits = Vec::new();
        if self.ordered {
            digits.push(Digit { what: Doubt::Journal, choices: self.changes.len() as u64 + 1 });
        } else {
            digits.extend(self.changes.iter().filter_map(|change| {
                let Change::Done(at) = change else { return None };
                let is_rename = matches!(done[*at], Operation::Move { .. }) && !self.half.contains(at);
                Some(Digit { what: Doubt::Change(*at), choices: if is_rename { 3 } else { 2 } })
            }));
        }
        let mut growths: BTreeMap<Node, u64> = BTreeMap::new();
        self.growths.iter().for_each(|growth| *growths.entry(growth.node).or_default() += 1);
        digits.extend(
            growths.into_iter().map(|(node, count)| Digit { what: Doubt::Growth(node), choices: count + 1 }),
        );
        let mut blocks: BTreeMap<(Node, u64), u64> = BTreeMap::new();
        for at in &self.writes {
            let Operation::Write { node, offset, bytes } = &done[*at] else { continue };
            for block in blocks_of(*offset, bytes.len() as u64) {
                *blocks.entry((*node, block)).or_default() += 1;
            }
        }
        let nodes: BTreeSet<Node> = blocks.keys().map(|(node, _)| *node).collect();
        digits.extend(
            blocks.into_iter().map(|((node, block), writes)| Digit {
                what: Doubt::Block(node, block),
                choices: writes + 1,
            }),
        );
        if !self.ordered {
            digits.extend(nodes.into_iter().map(|node| Digit { what: Doubt::Length(node), choices: 2 }));
        }
        digits
    }
}

/// Whether this is where a node gets its first name.
fn is_making(done: &[Operation], at: usize, node: Node) -> bool {
    !done[..at].iter().any(|earlier| matches!(earlier, Operation::Add { node: of, .. } if *of == node))
}

fn is_write(operation: &Operation, node: Node) -> bool {
    matches!(operation, Operation::Write { node: of, .. } if *of == node)
}

/// Whether a change is surely written down with this node. Data that was written out is not: the system may have done
/// that at any time before.
fn touches(done: &[Operation], at: usize, node: Node, data_only: bool) -> bool {
    match &done[at] {
        // A further name of a file is no part of what its data is read by.
        Operation::Add { name, node: of } => {
            name.0 == node || *of == node && (!data_only || is_making(done, at, node))
        }
        // It is noted with a file how many names it has, and synced with one that has none, too.
        Operation::Remove { name, node: of } => name.0 == node || *of == node && !data_only,
        Operation::Move { from, to, node: of } => from.0 == node || to.0 == node || *of == node && !data_only,
        Operation::Mode { node: of, .. } | Operation::Time { node: of, .. } => *of == node && !data_only,
        Operation::Size { node: of, .. } => *of == node,
        Operation::Write { .. }
        | Operation::Sync { .. }
        | Operation::WriteOut { .. }
        | Operation::SyncAll => false,
    }
}

fn blocks_of(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / BLOCK..(offset + length).div_ceil(BLOCK)
}

/// The disk after what is safe and what was picked of the rest.
fn build(base: &Disk, done: &[Operation], open: &Open, digits: &[Digit], pick: &[u64]) -> Disk {
    let chosen = |what: &Doubt| digits.iter().position(|digit| digit.what == *what).map(|place| pick[place]);
    let journal = chosen(&Doubt::Journal).map(|kept| usize::try_from(kept).unwrap_or_default());
    let lost = journal.map_or(&[][..], |kept| &open.changes[kept..]);
    let is_lost = |at: usize| lost.contains(&Change::Done(at));
    let mut lengths = Lengths::default();
    let mut disk = base.clone();
    let mut made: BTreeMap<(Node, u64), u64> = BTreeMap::new();
    for (at, operation) in done.iter().enumerate() {
        match operation {
            Operation::Write { node, offset, bytes } if open.writes.contains(&at) => {
                lengths.grow(&disk, open, at, lost, |node| chosen(&Doubt::Growth(node)));
                for block in blocks_of(*offset, bytes.len() as u64) {
                    let earlier = made.entry((*node, block)).or_default();
                    *earlier += 1;
                    if chosen(&Doubt::Block(*node, block)).is_some_and(|kept| *earlier <= kept) {
                        let start = offset.max(&(block * BLOCK)) - offset;
                        let end = ((block + 1) * BLOCK).min(offset + bytes.len() as u64) - offset;
                        let range = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
                        disk.write(*node, offset + start, &bytes[range]);
                    }
                }
                if chosen(&Doubt::Length(*node)) == Some(1) {
                    let end = usize::try_from(offset + bytes.len() as u64).unwrap_or(0);
                    let data = &mut disk.nodes[*node].data;
                    data.resize(data.len().max(end), 0);
                }
            }
            _ if is_lost(at) => {}
            Operation::Size { node, size } if lengths.kept.contains_key(node) => lengths.set(*node, *size),
            Operation::Move { to, node, .. } => match chosen(&Doubt::Change(at)) {
                // With a safe new name the question is only whether the old one is gone.
                Some(0) if !open.half.contains(&at) => {}
                Some(0 | 2) => disk.apply(&Operation::Add { name: to.clone(), node: *node }),
                _ => disk.apply(operation),
            },
            _ if chosen(&Doubt::Change(at)) == Some(0) => {}
            _ => disk.apply(operation),
        }
    }
    for (node, length) in lengths.kept {
        disk.apply(&Operation::Size { node, size: length });
    }
    disk
}

/// The lengths of files whose open writes made them longer.
#[derive(Default)]
struct Lengths {
    kept: BTreeMap<Node, u64>,
    seen: BTreeMap<Node, u64>,
}

impl Lengths {
    /// An open write makes its file longer, as far as the journal and chance have it.
    fn grow(
        &mut self,
        disk: &Disk,
        open: &Open,
        at: usize,
        lost: &[Change],
        most: impl Fn(Node) -> Option<u64>,
    ) {
        for growth in open.growths.iter().filter(|growth| growth.at == at) {
            let kept = self.kept.entry(growth.node).or_insert(disk.nodes[growth.node].data.len() as u64);
            let seen = self.seen.entry(growth.node).or_default();
            *seen += 1;
            if most(growth.node).is_some_and(|most| *seen <= most) && !lost.contains(&Change::Grown(*growth))
            {
                *kept = growth.length.max(*kept);
            }
        }
    }

    fn set(&mut self, node: Node, length: u64) {
        self.kept.insert(node, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ROOT;

    const FILE: Node = 1;
    const FOLDER: Node = 2;
    const OTHER: Node = 3;

    /// A disk with a folder, and two files that have no names yet.
    fn base() -> Disk {
        let mut disk = Disk::new();
        assert_eq!(disk.new_node(false, 0o600, (0, 0)), FILE);
        assert_eq!(disk.new_node(true, 0o700, (0, 0)), FOLDER);
        assert_eq!(disk.new_node(false, 0o600, (0, 0)), OTHER);
        disk.names.insert((ROOT, "d".into()), FOLDER);
        disk
    }

    fn name(text: &str) -> crate::disk::Name {
        (ROOT, text.to_owned())
    }

    fn make() -> Operation {
        Operation::Add { name: name("a"), node: FILE }
    }

    fn fill(offset: u64, letter: u8, length: usize) -> Operation {
        Operation::Write { node: FILE, offset, bytes: vec![letter; length] }
    }

    fn sync(node: Node, data_only: bool) -> Operation {
        Operation::Sync { node, data_only }
    }

    fn rename() -> Operation {
        Operation::Move { from: name("a"), to: (FOLDER, "b".into()), node: FILE }
    }

    /// What each disk has: the file's names, its mode, and its length and a letter for each of its blocks.
    fn left(done: &[Operation], model: Model) -> Vec<String> {
        let look = |disk: &Disk| {
            let tree = disk.tree();
            let names: Vec<&str> =
                tree.iter().filter(|(_, node)| node.is_some()).map(|(name, _)| &**name).collect();
            let inode = &disk.nodes[FILE];
            let blocks: String =
                inode.data.chunks(4096).map(|block| char::from(block[0].max(b'0'))).collect();
            format!("{} {:o} {}{blocks}", names.join(","), inode.mode, inode.data.len())
        };
        let found: BTreeSet<String> = states(&base(), done, model, 1000, 1).iter().map(look).collect();
        found.into_iter().collect()
    }

    #[test]
    fn nothing_is_safe_before_a_sync() {
        let done = [make(), fill(0, b'x', 5000), Operation::Mode { node: FILE, mode: 0o700 }];
        // With the journal: no name, a name, a name and its mode; with none, each or both of two blocks.
        let ordered =
            [" 600 0", "a 600 0", "a 600 4096x", "a 600 5000xx", "a 600 50000x", "a 700 0", "a 700 4096x"];
        let found = left(&done, Model::Ordered);
        assert!(ordered.iter().all(|state| found.contains(&(*state).to_owned())), "{found:?}");
        assert!(!found.iter().any(|state| state.starts_with(" 700")), "a mode overtook a name: {found:?}");
        let found = left(&done, Model::Any);
        assert!(
            found.contains(&"a 700 500000".to_owned()),
            "all of the length and nothing of the data: {found:?}"
        );
        assert!(found.iter().any(|state| state.starts_with(" 700")), "{found:?}");
    }

    #[test]
    fn fsync_keeps_name_mode_and_data_and_fdatasync_no_mode() {
        let done =
            [make(), fill(0, b'x', 10), Operation::Mode { node: FILE, mode: 0o700 }, sync(FILE, false)];
        for model in [Model::Ordered, Model::Any] {
            assert_eq!(left(&done, model), ["a 700 10x"]);
        }
        let done = [&done[..3], &[sync(FILE, true)]].concat();
        for model in [Model::Ordered, Model::Any] {
            assert_eq!(left(&done, model), ["a 600 10x", "a 700 10x"]);
        }
    }

    #[test]
    fn a_rename_is_lost_or_done_or_leaves_both_names() {
        let done = [make(), sync(FILE, false), rename()];
        assert_eq!(left(&done, Model::Ordered), ["a 600 0", "d/b 600 0"]);
        assert_eq!(left(&done, Model::Any), ["a 600 0", "a,d/b 600 0", "d/b 600 0"]);
        let done = [&done[..], &[sync(FOLDER, false)]].concat();
        assert_eq!(left(&done, Model::Ordered), ["d/b 600 0"]);
        assert_eq!(left(&done, Model::Any), ["a,d/b 600 0", "d/b 600 0"]);
        let done = [&done[..3], &[sync(ROOT, false)]].concat();
        assert_eq!(left(&done, Model::Any), ["d/b 600 0"]);
    }

    #[test]
    fn a_file_that_is_written_over_has_old_blocks_and_changed_ones() {
        let done = [make(), fill(0, b'x', 8192), sync(FILE, false), fill(0, b'y', 8192)];
        for model in [Model::Ordered, Model::Any] {
            let wanted = ["a 600 8192xx", "a 600 8192xy", "a 600 8192yx", "a 600 8192yy"];
            assert_eq!(left(&done, model), wanted);
        }
        let done = [&done[..], &[sync(FILE, true)]].concat();
        assert_eq!(left(&done, Model::Any), ["a 600 8192yy"]);
    }

    #[test]
    fn a_file_never_grows_before_what_was_done_earlier() {
        let done = [make(), fill(0, b'x', 10), sync(FILE, false), rename(), fill(10, b'y', 4090)];
        let found = left(&done, Model::Ordered);
        let wanted = ["a 600 10x", "d/b 600 10x", "d/b 600 4096x", "d/b 600 4100x0", "d/b 600 4100xy"];
        assert_eq!(found, wanted);
        // Where no order is kept, it may.
        assert!(left(&done, Model::Any).contains(&"a 600 4100xy".to_owned()));
    }

    #[test]
    fn a_removal_comes_back_until_its_folder_is_synced() {
        let remove = Operation::Remove { name: name("a"), node: FILE };
        let done = [make(), sync(FILE, false), remove];
        for model in [Model::Ordered, Model::Any] {
            assert_eq!(left(&done, model), [" 600 0", "a 600 0"]);
        }
        let done = [&done[..], &[sync(ROOT, false)]].concat();
        assert_eq!(left(&done, Model::Ordered), [" 600 0"]);
        assert_eq!(left(&[&done[..3], &[Operation::SyncAll]].concat(), Model::Any), [" 600 0"]);
    }

    #[test]
    fn data_that_was_written_out_is_there_when_a_later_name_is() {
        let done = [make(), fill(0, b'x', 8192), Operation::WriteOut { node: FILE }, rename()];
        assert_eq!(left(&done, Model::Ordered), [" 600 0", "a 600 0", "a 600 8192xx", "d/b 600 8192xx"]);
        assert!(left(&done, Model::Any).contains(&"d/b 600 0".to_owned()));
    }

    /// Another file comes, and goes.
    fn make_other() -> Operation {
        Operation::Add { name: name("q"), node: OTHER }
    }

    fn remove_other() -> Operation {
        Operation::Remove { name: name("q"), node: OTHER }
    }

    #[test]
    fn a_sync_of_a_folder_keeps_what_came_before_its_last_change_but_no_data() {
        let done = [
            make_other(),
            make(),
            fill(0, b'x', 10),
            Operation::Mode { node: FILE, mode: 0o700 },
            rename(),
            remove_other(),
            sync(ROOT, false),
        ];
        // The folder is not the one that the name is in at the end.
        assert_eq!(left(&done, Model::Ordered), ["d/b 700 0", "d/b 700 100", "d/b 700 10x"]);
        let found = left(&done, Model::Any);
        assert!(found.contains(&"d/b 600 0".to_owned()), "the mode is none of its names: {found:?}");
        // What comes later than that change may be lost.
        let later = Operation::Mode { node: FILE, mode: 0o755 };
        let done = [&done[..6], &[later, sync(ROOT, false)]].concat();
        let found = left(&done, Model::Ordered);
        assert!(["d/b 700 10x", "d/b 755 10x"].iter().all(|state| found.contains(&(*state).to_owned())));
    }

    #[test]
    fn a_sync_of_a_folder_that_was_not_changed_keeps_nothing() {
        let before = [make(), sync(FILE, false), Operation::Mode { node: FILE, mode: 0o700 }];
        let done = [&before[..], &[sync(FOLDER, false)]].concat();
        for model in [Model::Ordered, Model::Any] {
            assert_eq!(left(&done, model), ["a 600 0", "a 700 0"]);
        }
        // What was changed in it was synced already.
        let done = [&before[..1], &[sync(ROOT, false)], &before[2..], &[sync(ROOT, false)]].concat();
        assert_eq!(left(&done, Model::Ordered), ["a 600 0", "a 700 0"]);
        // Of the data alone there is nothing in a folder.
        let remove = Operation::Remove { name: name("a"), node: FILE };
        let done = [make(), sync(FILE, false), remove, sync(ROOT, true)];
        for model in [Model::Ordered, Model::Any] {
            assert_eq!(left(&done, model), [" 600 0", "a 600 0"]);
        }
    }

    #[test]
    fn a_folder_that_is_touched_before_its_sync_brings_all_that_came_before() {
        let done = [make(), sync(FILE, false), Operation::Mode { node: FILE, mode: 0o700 }];
        let touch = Operation::Time { node: FOLDER, time: std::time::UNIX_EPOCH };
        let done = [&done[..], &[touch, sync(FOLDER, false)]].concat();
        assert_eq!(left(&done, Model::Ordered), ["a 700 0"]);
        assert_eq!(left(&done, Model::Any), ["a 600 0", "a 700 0"]);
    }

    #[test]
    fn what_was_written_out_and_named_lasts_with_a_later_removal_that_does() {
        let delivery = [
            make_other(),
            make(),
            fill(0, b'x', 8192),
            Operation::WriteOut { node: FILE },
            rename(),
            remove_other(),
        ];
        // Of the file that has gone, or of the folder that it has gone from.
        let synced = [&delivery[..], &[sync(OTHER, false)]].concat();
        assert_eq!(left(&synced, Model::Ordered), ["d/b 600 8192xx"]);
        let synced = [&delivery[..], &[sync(ROOT, false)]].concat();
        assert_eq!(left(&synced, Model::Ordered), ["d/b 600 8192xx"]);
        // With no order it does not, nor before the removal, nor where nothing was written out.
        assert!(left(&synced, Model::Any).contains(&"d/b 600 0".to_owned()));
        let moved = Operation::Move { from: name("q"), to: (FOLDER, "q".into()), node: OTHER };
        let remove = Operation::Remove { name: (FOLDER, "q".into()), node: OTHER };
        let from_elsewhere = [&delivery[..4], &[moved, rename(), remove, sync(ROOT, false)]].concat();
        assert!(left(&from_elsewhere, Model::Ordered).len() > 1);
        let early = [&delivery[..4], &[sync(ROOT, false)], &delivery[4..]].concat();
        assert!(left(&early, Model::Ordered).contains(&"a,q 600 0".to_owned()));
        let not_out = [&delivery[..3], &delivery[4..], &[sync(ROOT, false)]].concat();
        assert!(left(&not_out, Model::Ordered).contains(&"d/b 600 0".to_owned()));
    }

    #[test]
    fn a_sync_of_a_file_keeps_no_more_than_what_came_before_its_last_change() {
        let done = [
            make(),
            fill(0, b'x', 10),
            make_other(),
            Operation::WriteOut { node: FILE },
            Operation::Mode { node: OTHER, mode: 0o700 },
            sync(FILE, true),
        ];
        assert_eq!(left(&done, Model::Ordered), ["a 600 10x", "a,q 600 10x"]);
        // A further name, of which fdatasync knows nothing.
        let link = Operation::Add { name: (FOLDER, "c".into()), node: FILE };
        let done = [make(), sync(FILE, false), link, sync(FILE, true)];
        for model in [Model::Ordered, Model::Any] {
            assert_eq!(left(&done, model), ["a 600 0", "a,d/c 600 0"]);
        }
        let done = [&done[..3], &[sync(FILE, false)]].concat();
        assert_eq!(left(&done, Model::Ordered), ["a,d/c 600 0"]);
    }

    #[test]
    fn where_there_are_too_many_states_the_extremes_are_among_those_picked() {
        let done: Vec<Operation> =
            [make()].into_iter().chain((0..40).map(|n| fill(n * 4096, b'x', 4096))).collect();
        let picked = states(&base(), &done, Model::Any, 20, 7);
        assert_eq!(picked.len(), 20);
        let sizes: Vec<usize> = picked.iter().map(|disk| disk.nodes[FILE].data.len()).collect();
        assert!(sizes.contains(&0) && sizes.contains(&(40 * 4096)), "{sizes:?}");
        let again = states(&base(), &done, Model::Any, 20, 7);
        assert!(picked.iter().zip(&again).all(|(one, other)| one.print() == other.print()));
    }
}
