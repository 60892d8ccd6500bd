//! Invariant: what was acknowledged is delivered though the power goes. The queue and the mailboxes are on an ext4 or XFS of
//! their own, which is told in the midst of work to keep nothing that has not reached its disk, as the tests of those file
//! systems do it; then its journal is replayed and the mail system started anew.
//!
//! `replay` in tests/crash asks the same of every moment and of harsher models; here the file systems are the real ones.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use scenarios::{Instance, is_root, run, wait_for};

use crate::crash::{Load, deliver_all};
use crate::site::usual;

/// What the folders of an instance are put on.
const FOLDERS: [&str; 2] = ["queue", "mail"];

/// A file system that is tried.
struct Kind {
    name: &'static str,
    /// What makes one, and the package that has it.
    make: &'static [&'static str],
    package: &'static str,
    /// The image has holes: it takes what is written to it.
    bytes: u64,
}

const EXT4: Kind =
    Kind { name: "ext4", make: &["mkfs.ext4", "-q", "-F"], package: "e2fsprogs", bytes: 128 << 20 };
/// XFS makes none that is smaller.
const XFS: Kind =
    Kind { name: "xfs", make: &["mkfs.xfs", "-q", "-f"], package: "xfsprogs", bytes: 320 << 20 };

/// A file system of the instance's own; taken away when dropped.
struct Disk<'a> {
    site: &'a Instance,
    kind: &'static Kind,
    /// What is mounted, in that order.
    mounts: Vec<PathBuf>,
}

impl<'a> Disk<'a> {
    /// Makes it and puts the folders there, before anything is in them.
    fn make(site: &'a Instance, kind: &'static Kind) -> Self {
        let file = fs::File::create(image(site)).expect("create an image");
        file.set_len(kind.bytes).expect("grow the image");
        let place = image(site);
        ok(kind.make[0], &[&kind.make[1..], &[text(&place)]].concat());
        let mut disk = Self { site, kind, mounts: Vec::new() };
        let folder = site.path("disk");
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

    fn mount(&mut self) {
        let folder = self.site.path("disk");
        ok("mount", &["-t", self.kind.name, "-o", "loop", text(&image(self.site)), text(&folder)]);
        self.mounts.push(folder);
    }

    fn bind(&mut self) {
        for name in FOLDERS {
            let place = self.site.path(name);
            ok("mount", &["--bind", text(&self.site.path("disk").join(name)), text(&place)]);
            self.mounts.push(place);
        }
    }

    /// From here on nothing reaches the disk, not even what the journal holds in memory; every later call fails.
    fn cut_power(&self) {
        // ext4 has the request of XFS, with the same number.
        const SHUT_DOWN: &str = "import fcntl, os, struct, sys\n\
            XFS_IOC_GOINGDOWN, WITHOUT_FLUSHING_THE_LOG = 0x8004587D, 2\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), XFS_IOC_GOINGDOWN, struct.pack('I', WITHOUT_FLUSHING_THE_LOG))\n";
        ok("python3", &["-c", SHUT_DOWN, text(&self.site.path("disk"))]);
    }

    fn unmount(&mut self) {
        while let Some(place) = self.mounts.pop() {
            // Killed programs let go of it a moment after they are gone.
            wait_for("the file system to be free", || is_ok("umount", &[text(&place)]).then_some(()));
        }
    }

    /// What a boot does: the journal is replayed by the mount.
    fn boot(&mut self) {
        self.mount();
        self.bind();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.site.kill_all();
        for place in self.mounts.iter().rev() {
            is_ok("umount", &["-l", text(place)]);
        }
    }
}

/// Whoever sends would go on for ever if the test failed.
struct EndOf<'a>(&'a Load<'a>);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn image(site: &Instance) -> PathBuf {
    site.path("disk.img")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn command(program: &str, arguments: &[&str]) -> scenarios::Output {
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

/// Whether this machine can make and mount one; if not, the reason is printed.
fn is_there(kind: &Kind) -> bool {
    assert!(
        Command::new(kind.make[0]).arg("-V").output().is_ok(),
        "{} is missing; run: sudo apt-get install --no-install-recommends {}",
        kind.make[0],
        kind.package
    );
    // A kernel that has it as a module lists it when it is loaded.
    let _ = Command::new("modprobe").args(["--quiet", kind.name]).output();
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is_known = known.lines().any(|line| line.trim() == kind.name);
    if !is_known {
        println!("SKIPPED: a power cut of {}: this kernel does not have it", kind.name);
    }
    is_known
}

fn cut_the_power_of(kind: &'static Kind) {
    if !is_root("a power cut") || !is_there(kind) {
        return;
    }
    let site = usual().prepare();
    let mut disk = Disk::make(&site, kind);
    site.start();
    let load = Load::endless(&site);
    thread::scope(|scope| {
        let _end = EndOf(&load);
        (0..8).for_each(|_| drop(scope.spawn(|| load.send_over_smtp())));
        scope.spawn(|| load.send_with_sendmail(usize::MAX));
        for cut in 1..=4 {
            let before = load.count();
            wait_for("the next acknowledged messages", || (load.count() >= before + 150).then_some(()));
            // Commits of the journal come by themselves every five seconds: the moments fall before and behind some.
            thread::sleep(Duration::from_millis(700 * cut));
            // The programs go on for a moment without their disk, and the kernel may tell one of them that what it just
            // threw away is synced. A machine without power tells nobody.
            load.set_unheard(true);
            disk.cut_power();
            site.kill_all();
            disk.unmount();
            disk.boot();
            site.start();
            load.set_unheard(false);
        }
    });
    let acknowledged = load.acknowledged();
    let twice = deliver_all(&site, &acknowledged);
    println!(
        "{}, four power cuts; {} acknowledged, {twice} delivered once more than needed",
        kind.name,
        acknowledged.len()
    );
}

#[test]
fn no_acknowledged_message_is_lost_when_the_power_goes() {
    cut_the_power_of(&EXT4);
}

#[test]
fn no_acknowledged_message_is_lost_when_the_power_of_an_xfs_goes() {
    cut_the_power_of(&XFS);
}
