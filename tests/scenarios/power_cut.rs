//! Invariant: what was acknowledged is delivered though the power goes. The queue and the mailboxes are on an ext4 or XFS of
//! their own, which is told in the midst of work to keep nothing that has not reached its disk, as the tests of those file
//! systems do it; then its journal is replayed and the mail system started anew.
//!
//! `replay` in tests/crash asks the same of every moment and of harsher models; here the file systems are the real ones.

use std::thread;
use std::time::Duration;

use scenarios::{Disk, DiskKind, Instance, is_root, wait_for};

use crate::crash::{EndOf, Load, deliver_all};
use crate::site::usual;

/// What runs can be found only as long as the disk is there.
struct KilledAtEnd<'a>(&'a Instance);

impl Drop for KilledAtEnd<'_> {
    fn drop(&mut self) {
        self.0.kill_all();
    }
}

fn cut_the_power_of(kind: &'static DiskKind) {
    if !is_root("a power cut") || !kind.is_there("a power cut") {
        return;
    }
    let site = usual().prepare();
    let mut disk = Disk::make(&site, kind);
    let _killed = KilledAtEnd(&site);
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
    cut_the_power_of(&DiskKind::EXT4);
}

#[test]
fn no_acknowledged_message_is_lost_when_the_power_of_an_xfs_goes() {
    cut_the_power_of(&DiskKind::XFS);
}
