//! What pickup may meet in `maildrop/`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use crate::{Dropped, Maildrop};

use super::queue;

fn kind(maildrop: &Maildrop, name: &str) -> String {
    match maildrop.take_up(OsStr::new(name)).unwrap() {
        Dropped::Finished { mut file, size, .. } => {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(size, text.len() as u64);
            text
        }
        Dropped::NotYet => "not yet".into(),
        Dropped::Abandoned => "abandoned".into(),
        Dropped::Suspicious(why) => why.into(),
    }
}

#[test]
fn only_a_finished_file_of_one_name_is_taken_up() {
    let queue = queue();
    let maildrop = queue.root.maildrop().unwrap();
    let path = |name: &str| queue.folder.path().join("maildrop").join(name);
    for (name, mode) in [("unfinished", 0o600), ("finished", 0o744), ("old", 0o600), ("linked", 0o744)] {
        fs::write(path(name), name).unwrap();
        fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    }
    let yesterday = SystemTime::now() - Duration::from_hours(25);
    File::options().append(true).open(path("old")).unwrap().set_modified(yesterday).unwrap();
    fs::hard_link(path("linked"), path("other")).unwrap();
    symlink("/etc/passwd", path("link")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();

    assert_eq!(kind(&maildrop, "finished"), "finished");
    assert_eq!(kind(&maildrop, "unfinished"), "not yet");
    assert_eq!(kind(&maildrop, "gone"), "not yet");
    assert_eq!(kind(&maildrop, "old"), "abandoned");
    assert_eq!(kind(&maildrop, "linked"), "a file with several names");
    assert_eq!(kind(&maildrop, "link"), "a symbolic link");
    assert_eq!(kind(&maildrop, "fifo"), "not a regular file");
    assert_eq!(kind(&maildrop, "folder"), "not a regular file");
    assert_eq!(maildrop.names(100).unwrap().len(), 8);
    assert_eq!(maildrop.names(3).unwrap().len(), 3);
}

#[test]
fn what_is_set_aside_is_found_in_corrupt() {
    let queue = queue();
    let maildrop = queue.root.maildrop().unwrap();
    let path = queue.folder.path();
    fs::write(path.join("maildrop/a"), "a").unwrap();
    fs::write(path.join("maildrop/b"), "b").unwrap();
    maildrop.set_aside(OsStr::new("a")).unwrap();
    maildrop.remove(OsStr::new("b")).unwrap();
    assert_eq!(maildrop.names(10).unwrap(), Vec::<OsString>::new());
    assert_eq!(fs::read(path.join("corrupt/a")).unwrap(), b"a");
    assert!(maildrop.remove(OsStr::new("b")).is_err());
}
