//! Ends what a test program leaves behind when it is killed: mail systems, their peers, their scratch folders.
//!
//! A shell waits for the end of a pipe that only the test program has open, and so for the end of that, however it comes.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Reads `watch FOLDER` and `leave FOLDER`. At the end of that it ends all programs that lie or are in one of the folders
/// to watch, again and again while somebody starts them anew, and removes the folder with what is mounted there.
const SCRIPT: &str = r#"
watched= left=
while read -r word folder; do
    case $word in
        watch) watched="$watched $folder" ;;
        leave) left="$left $folder " ;;
    esac
done
for folder in $watched; do
    case $left in *" $folder "*) continue ;; esac
    [ -d "$folder" ] || continue
    for pass in 1 2 3 4 5 6 7 8 9 10; do
        found=
        for process in /proc/[0-9]*; do
            case $(readlink "$process/exe" "$process/cwd") in
                *"$folder"*) kill -KILL "${process#/proc/}" && found=yes ;;
            esac
        done
        [ "$found" ] || break
    done
    while read -r _ place _; do
        case $place in "$folder"/*) umount -l "$place" ;; esac
    done < /proc/mounts
    rm -rf --one-file-system "$folder"
done
"#;

/// Has all that is left in this folder end and go when this process ends.
pub(crate) fn watch(folder: &Path) {
    tell("watch", folder);
}

/// Has it stay.
pub(crate) fn leave(folder: &Path) {
    tell("leave", folder);
}

fn tell(word: &str, folder: &Path) {
    static WATCHER: OnceLock<Mutex<Child>> = OnceLock::new();
    let watcher = WATCHER.get_or_init(|| Mutex::new(start()));
    let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = watcher.stdin.as_mut().expect("the watcher's pipe");
    writeln!(pipe, "{word} {}", folder.display()).expect("tell the watcher");
}

/// In a process group of its own: what interrupts the tests from a terminal is nothing to it.
fn start() -> Child {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT]).current_dir("/").process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("start a shell")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_for;

    #[test]
    fn what_is_left_in_a_folder_ends_and_goes_with_it() {
        let [watched, left] = [(); 2].map(|()| tempfile::tempdir().unwrap().keep());
        let sleep = |folder: &Path| Command::new("sleep").arg("600").current_dir(folder).spawn().unwrap();
        let (mut ends, mut stays) = (sleep(&watched), sleep(&left));
        let mut watcher = start();
        let mut pipe = watcher.stdin.take().unwrap();
        for folder in [&watched, &left] {
            writeln!(pipe, "watch {}", folder.display()).unwrap();
        }
        writeln!(pipe, "leave {}", left.display()).unwrap();
        assert!(ends.try_wait().unwrap().is_none());
        drop(pipe);
        wait_for("the end of what is watched", || ends.try_wait().unwrap());
        wait_for("the watcher's end", || watcher.try_wait().unwrap());
        assert!(!watched.exists() && left.exists());
        assert!(stays.try_wait().unwrap().is_none());
        stays.kill().unwrap();
        stays.wait().unwrap();
        std::fs::remove_dir(left).unwrap();
    }
}
