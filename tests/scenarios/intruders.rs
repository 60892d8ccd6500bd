//! What a user of the machine may try: with the programs that have more rights than he, and with the files that root's
//! programs touch for him.

mod mailboxes;
mod programs;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use scenarios::{Builder, Instance};

use crate::rights::{RECIPIENT, user};

/// What only root may read; no user may come to see it.
const SECRET: &str = "root-secret-word";

/// Root's mail system, in which `games` has a home where he may do what he likes.
fn site() -> Builder {
    Builder::new()
        .as_root()
        .main("forward_path = $root/home/${user}/.forward")
        .main("mailbox_delivery_lock = flock, dotlock")
        .main("deliver_lock_attempts = 2\ndeliver_lock_delay = 1s")
        .main("allow_mail_to_files = alias, forward, include")
}

fn prepared(builder: Builder) -> Instance {
    let site = builder.prepare();
    make_home(&site);
    secret(&site);
    site.start();
    site
}

/// His home.
fn make_home(site: &Instance) -> PathBuf {
    let home = site.path("home").join(RECIPIENT);
    fs::create_dir_all(&home).unwrap();
    give(&home);
    home
}

fn give(path: &Path) {
    let games = user(RECIPIENT);
    std::os::unix::fs::lchown(path, Some(games.uid.as_raw()), Some(games.gid.as_raw())).unwrap();
}

/// A file that is root's alone.
fn secret(site: &Instance) -> PathBuf {
    let path = site.path("secret");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(0), Some(0)).unwrap();
    path
}

fn assert_kept(site: &Instance) {
    assert_eq!(fs::read(site.path("secret")).unwrap(), format!("{SECRET}\n").as_bytes());
    assert!(!site.log().contains(SECRET), "{}", site.log());
    assert!(!site.log().contains("panicked"), "{}", site.log());
}
