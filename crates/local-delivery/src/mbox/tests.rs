use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use mail::Address;

use super::*;
use crate::letter::Source;

fn locking() -> Locking {
    let words = ["fcntl".to_owned(), "dotlock".to_owned()];
    Locking::from_words(&words, 1, Duration::from_millis(20), Duration::from_secs(500)).unwrap()
}

fn rules(locking: &Locking) -> Rules<'_> {
    Rules {
        locking,
        owner: Some(nix::unistd::geteuid().as_raw()),
        regular_only: true,
        refuse_executable: false,
        named_by_user: false,
        chown: None,
        limit: 0,
    }
}

fn deliver_text(path: &Path, text: &[u8], rules: &Rules<'_>) -> Result<(), Failure> {
    let sender = Address::new("s@example.org").unwrap();
    let delivered = Address::new("d@x").unwrap();
    let preamble = Preamble { sender: &sender, original: None, delivered: Some(&delivered) };
    deliver(path, &Letter::open(&text).unwrap(), &preamble, rules)
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn messages_follow_each_other_with_from_lines_quoted() {
    let (scratch, locking) = (Scratch::new(), locking());
    let path = scratch.path("box");
    for _ in 0..2 {
        deliver_text(&path, b"From me\n\nFrom you\nFromage\n>From x\n", &rules(&locking)).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    let from = lines.next().unwrap();
    assert!(
        from.starts_with("From s@example.org  ") && from.len() == "From s@example.org  ".len() + 24,
        "{from}"
    );
    let rest: Vec<&str> = lines.by_ref().take(8).collect();
    let wanted =
        ["Return-Path: <s@example.org>", "Delivered-To: d@x", ">From me", "", ">From you", "Fromage"];
    assert_eq!(rest, [wanted.as_slice(), &[">From x", ""]].concat());
    assert!(lines.next().unwrap().starts_with("From s@example.org  "));
    assert!(!scratch.path("box.lock").exists());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn quoting_is_the_same_however_the_content_is_cut() {
    let text = b"From a\nx\nFrom b\nFro\nFrom\nFrom \n\nxFrom c\nFrom From d\nFr";
    let mut whole = Vec::new();
    let mut quoting = Quoting::default();
    quoting.push(&mut whole, text);
    quoting.finish(&mut whole);
    assert_eq!(whole, b">From a\nx\n>From b\nFro\nFrom\n>From \n\nxFrom c\n>From From d\nFr");
    for size in 1..text.len() {
        let (mut out, mut quoting) = (Vec::new(), Quoting::default());
        text.chunks(size).for_each(|chunk| quoting.push(&mut out, chunk));
        quoting.finish(&mut out);
        assert_eq!(String::from_utf8(out), String::from_utf8(whole.clone()), "cut into {size}");
    }
}

#[test]
fn a_message_without_a_last_newline_gets_one() {
    let (scratch, locking) = (Scratch::new(), locking());
    deliver_text(&scratch.path("box"), b"a\n\nb", &rules(&locking)).unwrap();
    assert!(std::fs::read(scratch.path("box")).unwrap().ends_with(b"\n\nb\n\n"));
}

/// Content that breaks off after its first chunk.
struct Broken;

impl Source for Broken {
    fn size(&self) -> u64 {
        1_000_000
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset > 200_000 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        buffer.fill(b'x');
        Ok(buffer.len())
    }
}

/// Content that tells how long the mailbox is when it is made to last.
struct Watching {
    mailbox: PathBuf,
    seen: Cell<Option<u64>>,
}

impl Source for Watching {
    fn size(&self) -> u64 {
        7
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        b"A: b\n\nc".as_slice().read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.seen.set(Some(self.mailbox.metadata()?.len()));
        Ok(())
    }
}

#[test]
fn a_message_lasts_in_the_queue_before_the_first_byte_of_it_is_appended() {
    let (scratch, locking) = (Scratch::new(), locking());
    let source = Watching { mailbox: scratch.path("box"), seen: Cell::default() };
    std::fs::write(&source.mailbox, "From a\n\nold\n\n").unwrap();
    let sender = Address::null();
    let preamble = Preamble { sender: &sender, original: None, delivered: None };
    deliver(&source.mailbox, &Letter::open(&source).unwrap(), &preamble, &rules(&locking)).unwrap();
    assert_eq!(source.seen.get(), Some(13));
    assert!(source.mailbox.metadata().unwrap().len() > 13);
}

#[test]
fn a_failed_write_is_taken_back() {
    let (scratch, locking) = (Scratch::new(), locking());
    let path = scratch.path("box");
    std::fs::write(&path, "From a\n\nold\n\n").unwrap();
    let sender = Address::null();
    let preamble = Preamble { sender: &sender, original: None, delivered: None };
    let failure = deliver(&path, &Letter::open(&Broken).unwrap(), &preamble, &rules(&locking)).unwrap_err();
    assert_eq!(failure.dsn, Dsn::new(4, 3, 1));
    assert_eq!(std::fs::read(&path).unwrap(), b"From a\n\nold\n\n");
}

#[test]
fn links_directories_and_strangers_files_are_refused() {
    let (scratch, locking) = (Scratch::new(), locking());
    let (target, link) = (scratch.path("target"), scratch.path("link"));
    std::fs::write(&target, "old").unwrap();
    // The scratch folder is nobody else's, so even root's own link is followed only where root alone could make it;
    // make it a stranger's folder where we can.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(scratch.0.path(), Some(65_534), Some(65_534)).unwrap();
    }
    symlink(&target, &link).unwrap();
    assert!(deliver_text(&link, b"x\n", &rules(&locking)).unwrap_err().is_temporary());
    std::fs::hard_link(&target, scratch.path("second")).unwrap();
    let failure = deliver_text(&target, b"x\n", &rules(&locking)).unwrap_err();
    assert!(failure.text.contains("2 hard links"), "{failure:?}");
    std::fs::create_dir(scratch.path("folder")).unwrap();
    assert!(deliver_text(&scratch.path("folder"), b"x\n", &rules(&locking)).is_err());
    std::fs::write(scratch.path("theirs"), "old").unwrap();
    let strict = Rules { owner: Some(12_345), ..rules(&locking) };
    let failure = deliver_text(&scratch.path("theirs"), b"x\n", &strict).unwrap_err();
    assert!(failure.is_temporary() && failure.text.contains("not owned by recipient"));
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    assert_eq!(std::fs::read(scratch.path("theirs")).unwrap(), b"old");
}

#[test]
fn a_file_of_an_alias_may_be_a_device_but_not_a_program() {
    let (scratch, locking) = (Scratch::new(), locking());
    let alias = Rules { regular_only: false, refuse_executable: true, owner: None, ..rules(&locking) };
    deliver_text(Path::new("/dev/null"), b"x\n", &alias).unwrap();
    let program = scratch.path("program");
    std::fs::write(&program, "").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(deliver_text(&program, b"x\n", &alias).unwrap_err().text, "file is executable");
}

#[test]
fn a_full_mailbox_bounces_and_a_locked_one_waits() {
    let (scratch, locking) = (Scratch::new(), locking());
    let path = scratch.path("box");
    let limited = Rules { limit: 100, ..rules(&locking) };
    assert_eq!(deliver_text(&path, &[b'x'; 100], &limited).unwrap_err().dsn, Dsn::new(5, 2, 2));
    let held = File::open(&path).unwrap();
    held.metadata().unwrap();
    std::fs::write(scratch.path("box.lock"), "").unwrap();
    let failure = deliver_text(&path, b"x\n", &rules(&locking)).unwrap_err();
    assert!(failure.is_temporary() && failure.text.contains("lock file"), "{failure:?}");
}

#[test]
fn a_fifo_without_a_reader_does_not_hold_up() {
    let (scratch, locking) = (Scratch::new(), locking());
    let fifo = scratch.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let alias = Rules { regular_only: false, owner: None, ..rules(&locking) };
    assert!(deliver_text(&fifo, b"x\n", &alias).unwrap_err().is_temporary());
}

/// A mailbox with two messages, the text of the second, and where that begins.
fn two_messages(path: &Path, rules: &Rules<'_>) -> (Vec<u8>, Vec<u8>, usize) {
    deliver_text(path, b"Subject: first\n\nFirst.\n", rules).unwrap();
    let before = std::fs::read(path).unwrap().len();
    let lines = (0..300).map(|n| format!("{n} From here on\n\nFrom there {n}\n")).collect::<String>();
    let text = format!("Subject: second\n\n{lines}").into_bytes();
    deliver_text(path, &text, rules).unwrap();
    (std::fs::read(path).unwrap(), text, before)
}

/// The mailbox without the dates of its first lines.
fn undated(mailbox: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(mailbox);
    let lines = text.lines().map(|line| match line.strip_prefix("From ") {
        Some(rest) => rest[..rest.len() - 24].to_owned(),
        None => line.to_owned(),
    });
    lines.collect()
}

#[test]
fn what_a_crash_left_of_a_message_goes_when_it_is_delivered_again() {
    let (scratch, locking) = (Scratch::new(), locking());
    let path = scratch.path("box");
    let (whole, text, before) = two_messages(&path, &rules(&locking));
    let mut torn: Vec<Vec<u8>> = [1, 3, 5, 30, 100, 4000, whole.len() - before - 1]
        .iter()
        .map(|length| whole[..before + length].to_vec())
        .collect();
    for (from, to) in [(0, 4096), (4096, 8192), (8192, whole.len()), (0, whole.len())] {
        let mut holed = whole.clone();
        holed[from.max(before)..to].fill(0);
        torn.push(holed);
    }
    for torn in torn {
        std::fs::write(&path, &torn).unwrap();
        deliver_text(&path, &text, &rules(&locking)).unwrap();
        let mailbox = std::fs::read(&path).unwrap();
        assert!(undated(&mailbox) == undated(&whole), "{}", String::from_utf8_lossy(&torn));
    }
}

#[test]
fn nothing_but_a_part_of_the_same_message_is_cut_off() {
    let (scratch, locking) = (Scratch::new(), locking());
    let path = scratch.path("box");
    let (whole, text, before) = two_messages(&path, &rules(&locking));
    let other = b"Subject: third\n\nThird.\n";
    let mut altered = whole[..whole.len() - 10].to_vec();
    altered[before + 200] = b'#';
    let tails = [whole.clone(), altered, [&whole[..], b"\0\0\0"].concat(), [&whole[..], b"From "].concat()];
    for (tail, text) in tails.iter().zip([&text, &text, &text, &other.to_vec()]) {
        std::fs::write(&path, tail).unwrap();
        deliver_text(&path, text, &rules(&locking)).unwrap();
        let kept = tail.strip_suffix(b"\0\0\0").or(tail.strip_suffix(b"From ")).unwrap_or(tail);
        assert!(std::fs::read(&path).unwrap().starts_with(kept));
    }
}
