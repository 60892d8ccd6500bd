//! A disk as a tree of nodes, and what is done to it: pure, so that any history can be played on it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown,
};
use std::path::Path;
use std::time::SystemTime;

/// The number of a file or folder; it outlives the names.
pub(crate) type Node = usize;

/// The folder that everything is in.
pub(crate) const ROOT: Node = 0;

/// A name in a folder.
pub(crate) type Name = (Node, String);

/// One change, or what makes earlier ones last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A name is given to a node: the first one makes it.
    Add {
        name: Name,
        node: Node,
    },
    Remove {
        name: Name,
        node: Node,
    },
    Move {
        from: Name,
        to: Name,
        node: Node,
    },
    Mode {
        node: Node,
        mode: u32,
    },
    Time {
        node: Node,
        time: SystemTime,
    },
    Size {
        node: Node,
        size: u64,
    },
    Write {
        node: Node,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Everything of a node, or only what is needed to read its data.
    Sync {
        node: Node,
        data_only: bool,
    },
    /// The data is on the disk as soon as any later change is.
    WriteOut {
        node: Node,
    },
    SyncAll,
}

/// A file or folder without its names.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Inode {
    pub(crate) is_folder: bool,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) data: Vec<u8>,
}

/// The state of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) nodes: Vec<Inode>,
    pub(crate) times: BTreeMap<Node, SystemTime>,
    pub(crate) names: BTreeMap<Name, Node>,
}

impl Disk {
    /// An empty root folder.
    pub(crate) fn new() -> Self {
        let root = Inode { is_folder: true, mode: 0o755, owner: (0, 0), data: Vec::new() };
        Self { nodes: vec![root], times: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// What is below these folders of `root`. Sockets and pipes are made anew at each start and left out.
    pub(crate) fn read(root: &Path, folders: &[&str]) -> io::Result<Self> {
        let mut disk = Self::new();
        for folder in folders {
            disk.read_one(ROOT, folder, &root.join(folder))?;
        }
        Ok(disk)
    }

    fn read_one(&mut self, within: Node, name: &str, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        let kind = found.file_type();
        if kind.is_socket() || kind.is_fifo() {
            return Ok(());
        }
        let data = if found.is_dir() { Vec::new() } else { fs::read(path)? };
        let node = self.new_node(found.is_dir(), found.mode() & 0o7777, (found.uid(), found.gid()));
        self.nodes[node].data = data;
        self.times.insert(node, found.modified()?);
        self.names.insert((within, name.to_owned()), node);
        if found.is_dir() {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                self.read_one(node, &entry.file_name().to_string_lossy(), &entry.path())?;
            }
        }
        Ok(())
    }

    /// A node that has no name yet.
    pub(crate) fn new_node(&mut self, is_folder: bool, mode: u32, owner: (u32, u32)) -> Node {
        self.nodes.push(Inode { is_folder, mode, owner, data: Vec::new() });
        self.nodes.len() - 1
    }

    /// The folder of a relative path, and the last name in it.
    pub(crate) fn locate(&self, path: &Path) -> Option<Name> {
        let name = path.file_name()?.to_str()?.to_owned();
        let parent = path.parent().map_or(Some(ROOT), |parent| self.find(parent))?;
        Some((parent, name))
    }

    /// The node at a relative path.
    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        path.iter().try_fold(ROOT, |node, part| self.names.get(&(node, part.to_str()?.to_owned())).copied())
    }

    /// Does it. What syncs changes nothing.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Add { name, node } => drop(self.names.insert(name.clone(), *node)),
            Operation::Remove { name, .. } => drop(self.names.remove(name)),
            Operation::Move { from, to, node } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *node);
            }
            Operation::Mode { node, mode } => self.nodes[*node].mode = *mode,
            Operation::Time { node, time } => drop(self.times.insert(*node, *time)),
            Operation::Size { node, size } => self.nodes[*node].data.resize(index(*size), 0),
            Operation::Write { node, offset, bytes } => self.write(*node, *offset, bytes),
            Operation::Sync { .. } | Operation::WriteOut { .. } | Operation::SyncAll => {}
        }
    }

    pub(crate) fn write(&mut self, node: Node, offset: u64, bytes: &[u8]) {
        let (data, start) = (&mut self.nodes[node].data, index(offset));
        let end = start + bytes.len();
        if data.len() < end {
            data.resize(end, 0);
        }
        data[start..end].copy_from_slice(bytes);
    }

    /// The files that can be reached, by path; folders are there with `None`.
    pub(crate) fn tree(&self) -> BTreeMap<String, Option<Node>> {
        let mut tree = BTreeMap::new();
        self.collect(ROOT, "", &mut tree);
        tree
    }

    fn collect(&self, folder: Node, path: &str, tree: &mut BTreeMap<String, Option<Node>>) {
        let first = (folder, String::new());
        for ((_, name), node) in self.names.range(first..).take_while(|((within, _), _)| *within == folder) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            if self.nodes[*node].is_folder {
                tree.insert(path.clone(), None);
                self.collect(*node, &path, tree);
            } else {
                tree.insert(path, Some(*node));
            }
        }
    }

    /// Two disks with the same print look the same but for times.
    pub(crate) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in self.tree() {
            path.hash(&mut hasher);
            node.map(|node| (node, &self.nodes[node])).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Makes what is below these folders of `root` look like this disk.
    pub(crate) fn materialise(&self, root: &Path, folders: &[&str]) -> io::Result<()> {
        for folder in folders {
            empty(&root.join(folder))?;
        }
        let mut made: BTreeMap<Node, String> = BTreeMap::new();
        for (path, node) in self.tree() {
            let at = root.join(&path);
            let Some(node) = node else {
                self.make_folder(&at, &path)?;
                continue;
            };
            if let Some(first) = made.get(&node) {
                fs::hard_link(root.join(first), at)?;
                continue;
            }
            let inode = &self.nodes[node];
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(inode.mode).open(&at)?;
            file.write_all_at(&inode.data, 0)?;
            finish(&file, &at, inode)?;
            if let Some(time) = self.times.get(&node) {
                file.set_modified(*time)?;
            }
            made.insert(node, path);
        }
        Ok(())
    }

    fn make_folder(&self, at: &Path, path: &str) -> io::Result<()> {
        if at.is_dir() {
            return Ok(());
        }
        DirBuilder::new().mode(0o700).create(at)?;
        let inode = self.find(Path::new(path)).map(|node| &self.nodes[node]);
        inode.map_or(Ok(()), |inode| finish(&File::open(at)?, at, inode))
    }
}

/// Owner first: a change of it may clear bits of the mode.
fn finish(file: &File, path: &Path, inode: &Inode) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) != inode.owner {
        chown(path, Some(inode.owner.0), Some(inode.owner.1))?;
    }
    file.set_permissions(fs::Permissions::from_mode(inode.mode))
}

/// Removes all files below a folder, and all folders that came with mail.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if !kind.is_dir() {
            fs::remove_file(entry)?;
        } else {
            empty(&entry)?;
            if folder.file_name().is_some_and(|name| name == "mail") {
                fs::remove_dir_all(entry)?;
            }
        }
    }
    Ok(())
}

/// No file of a test is larger than memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
