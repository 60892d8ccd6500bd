//! File systems that tests make in a file, for the folders of an instance.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::instance::{Instance, Output, run};

/// What the folders of an instance are put on.
const FOLDERS: [&str; 2] = ["queue", "mail"];

/// A kind of file system.
pub struct DiskKind {
    /// As `mount` calls it.
    pub name: &'static str,
    /// What makes one, and the package that has it.
    make: &'static [&'static str],
    package: &'static str,
    /// How it is mounted.
    options: &'static str,
    /// The image has holes: it takes what is written to it.
    bytes: u64,
}

impl DiskKind {
    /// ext4, with a journal.
    pub const EXT4: Self = Self {
        name: "ext4",
        make: &["mkfs.ext4", "-q", "-F"],
        package: "e2fsprogs",
        options: "loop",
        bytes: 128 << 20,
    };
    /// XFS, which makes none that is smaller.
    pub const XFS: Self = Self {
        name: "xfs",
        make: &["mkfs.xfs", "-q", "-f"],
        package: "xfsprogs",
        options: "loop,nouuid",
        bytes: 320 << 20,
    };

    /// Whether this machine can make and mount one; if not, it is printed that `what` is skipped, and why.
    ///
    /// # Panics
    /// When only the program is missing that makes one.
    #[must_use]
    pub fn is_there(&self, what: &str) -> bool {
        assert!(
            Command::new(self.make[0]).arg("-V").output().is_ok(),
            "{} is missing; run: sudo apt-get install --no-install-recommends {}",
            self.make[0],
            self.package
        );
        // A kernel that has it as a module lists it when it is loaded.
        let _ = Command::new("modprobe").args(["--quiet", self.name]).output();
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let is_known = known.lines().any(|line| line.trim() == self.name);
        if !is_known {
            println!("SKIPPED: {what} of {}: this kernel does not have it", self.name);
        }
        is_known
    }
}

/// A file system of an instance's own, for its queue and its mailboxes; taken away when dropped, before the instance.
pub struct Disk {
    root: PathBuf,
    kind: &'static DiskKind,
    /// The file that has it.
    image: PathBuf,
    boots: usize,
    /// What is mounted there, in that order.
    mounts: Vec<PathBuf>,
}

impl Disk {
    /// Makes it and puts the folders there, before anything is in them.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn make(site: &Instance, kind: &'static DiskKind) -> Self {
        let (root, image) = (site.root().to_owned(), site.path("disk.img"));
        let mut disk = Self { root, kind, image, boots: 0, mounts: Vec::new() };
        let folder = disk.path("disk");
        let file = fs::File::create(&disk.image).expect("create an image");
        file.set_len(kind.bytes).expect("grow the image");
        ok(kind.make[0], &[&kind.make[1..], &[text(&disk.image)]].concat());
        fs::create_dir(&folder).expect("make a folder to mount at");
        disk.mount();
        for name in FOLDERS {
            let (own, inside) = (site.path(name).metadata().expect("look at a folder"), folder.join(name));
            fs::create_dir(&inside).expect("make a folder on the disk");
            fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).expect("open it");
            chown(&inside, Some(own.uid()), Some(own.gid())).expect("give it to its owner");
        }
        disk.bind();
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn mount(&mut self) {
        let folder = self.path("disk");
        ok("mount", &["-t", self.kind.name, "-o", self.kind.options, text(&self.image), text(&folder)]);
        self.mounts.push(folder);
    }

    fn bind(&mut self) {
        for name in FOLDERS {
            let place = self.path(name);
            ok("mount", &["--bind", text(&self.path("disk").join(name)), text(&place)]);
            self.mounts.push(place);
        }
    }

    /// From here on nothing reaches the disk, not even what the journal holds in memory; every later call fails.
    ///
    /// # Panics
    /// When the file system does not know how to do that.
    pub fn cut_power(&self) {
        // ext4 has the request of XFS, with the same number.
        const SHUT_DOWN: &str = "import fcntl, os, struct, sys\n\
            XFS_IOC_GOINGDOWN, WITHOUT_FLUSHING_THE_LOG = 0x8004587D, 2\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), XFS_IOC_GOINGDOWN, struct.pack('I', WITHOUT_FLUSHING_THE_LOG))\n";
        ok("python3", &["-c", SHUT_DOWN, text(&self.path("disk"))]);
    }

    /// What a boot does, after [`Self::cut_power`]: the journal is replayed by the mount. It is that of a copy, since the file system
    /// that was told to end stays for as long as somebody has it, be it by mounts of his own (`ip netns exec`).
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn boot(&mut self) {
        self.unmount();
        self.boots += 1;
        let copy = self.path(&format!("disk-{}.img", self.boots));
        ok("cp", &["--sparse=always", text(&self.image), text(&copy)]);
        fs::remove_file(&self.image).expect("remove the image");
        self.image = copy;
        self.mount();
        self.bind();
    }

    fn unmount(&mut self) {
        while let Some(place) = self.mounts.pop() {
            is_ok("umount", &["-l", text(&place)]);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn command(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, b"")
}

fn ok(program: &str, arguments: &[&str]) {
    command(program, arguments).ok();
}

fn is_ok(program: &str, arguments: &[&str]) -> bool {
    command(program, arguments).status == 0
}
