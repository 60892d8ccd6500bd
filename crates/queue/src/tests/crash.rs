//! What a crash may leave, and what becomes of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{Folder, QueueError, RecipientState, Stored};

fn age(queue: &Queue, by: Duration) {
    let file = File::options().write(true).open(queue.only_file()).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_file_that_is_not_ready_is_ignored_then_removed() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    let whole = fs::read(queue.only_file()).unwrap();
    let blank_head = [&[0; 128], &whole[128..]].concat();
    for bytes in [&whole[..], &blank_head, b"", &whole[..100]] {
        fs::write(queue.only_file(), bytes).unwrap();
        fs::set_permissions(queue.only_file(), Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(queue.active.claim(id), Err(QueueError::NotReady(_))));
        assert_eq!(queue.active.recover(HOUR).unwrap().removed, 0);
        assert_eq!(queue.only_folder(), "incoming");
    }
    age(&queue, HOUR * 2);
    assert_eq!(queue.active.recover(HOUR).unwrap().removed, 1);
    assert!(queue.files().is_empty());
}

#[test]
fn what_a_power_cut_tore_is_set_aside() {
    let tears: [fn(&mut Vec<u8>); 3] = [|b| b[..128].fill(0), |b| b.truncate(5_000), |b| b[4_500] = 0];
    for tear in tears {
        let queue = queue();
        let id = queue.commit(&full(), &[b'x'; 9_000]);
        let mut bytes = fs::read(queue.only_file()).unwrap();
        tear(&mut bytes);
        fs::write(queue.only_file(), bytes).unwrap();
        let error = queue.active.claim_verified(id).unwrap_err();
        assert!(matches!(error, QueueError::Damaged { .. }), "{error}");
        assert_eq!(queue.only_folder(), "corrupt");
    }
}

#[test]
fn an_empty_file_of_a_torn_commit_is_removed() {
    let queue = queue();
    queue.commit(&full(), b"\n");
    fs::write(queue.only_file(), b"").unwrap();
    age(&queue, HOUR);
    assert_eq!(queue.active.recover(HOUR).unwrap().removed, 1);
}

#[test]
fn a_message_in_delivery_is_delivered_again_after_a_crash() {
    for resumed in [0, 1] {
        let queue = queue();
        let id = queue.commit(&full(), b"\n");
        let mut message = if resumed == 0 { queue.active.claim(id).unwrap() } else { queue.settled(id) };
        message.mark(0, RecipientState::Done).unwrap();
        drop(message);
        assert_eq!(queue.active.recover(HOUR).unwrap().resumed, resumed);
        assert_eq!(queue.only_folder(), "incoming");
        let message = queue.active.claim_verified(id).unwrap();
        let states = message.recipients_from(0, 9).unwrap().iter().map(|r| r.state).collect::<Vec<_>>();
        assert_eq!(states, [RecipientState::Done, RecipientState::Pending]);
    }
}

#[test]
fn a_message_with_two_names_is_left_one_of_them() {
    let pairs = [
        ("incoming", "active", "incoming"),
        ("incoming", "deferred", "incoming"),
        ("incoming", "hold", "hold"),
        ("active", "deferred", "incoming"),
        ("active", "hold", "hold"),
        ("deferred", "hold", "hold"),
    ];
    for (one, other, left) in pairs {
        let queue = queue();
        queue.commit(&full(), b"\n");
        let made = queue.only_file();
        let name = |folder: &str| match folder {
            "hold" => queue.folder.path().join(folder).join(made.file_name().unwrap()),
            _ => made.display().to_string().replace("incoming", folder).into(),
        };
        let aside = queue.folder.path().join("aside");
        fs::rename(&made, &aside).unwrap();
        fs::hard_link(&aside, name(one)).unwrap();
        fs::rename(&aside, name(other)).unwrap();
        assert_eq!(queue.files().len(), 2);
        queue.active.recover(HOUR).unwrap();
        assert_eq!(queue.only_folder(), left, "{one} and {other}");
    }
}

#[test]
fn a_torn_journal_record_is_ignored_and_replaced() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    let mut message = queue.settled(id);
    message.append_attempt(&attempt(0, "whole")).unwrap();
    drop(message);
    let whole = fs::read(queue.only_file()).unwrap();
    let mut record = Vec::new();
    crate::format::attempt::encode(&attempt(1, "torn, and longer than what replaces it"), &mut record);
    for cut in 1..record.len() {
        fs::write(queue.only_file(), [&whole[..], &record[..cut]].concat()).unwrap();
        let mut message = queue.active.reclaim(id).unwrap();
        assert_eq!(message.journal().count(), 1, "cut at {cut}");
        message.append_attempt(&attempt(1, "new")).unwrap();
        drop(message);
        let texts =
            queue.active.reclaim(id).unwrap().journal().map(|a| a.unwrap().outcome.text).collect::<Vec<_>>();
        assert_eq!(texts, ["whole", "new"], "cut at {cut}");
    }
}

fn done(stored: &Stored) -> Vec<u32> {
    let found = stored.recipients_from(0, 9).unwrap().into_iter();
    found.filter(|found| found.state == RecipientState::Done).map(|found| found.index).collect()
}

#[test]
fn a_torn_mark_counts_for_nothing_and_is_replaced() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    let mut message = queue.settled(id);
    message.mark(0, RecipientState::Done).unwrap();
    let before = fs::read(queue.only_file()).unwrap();
    message.mark(1, RecipientState::Done).unwrap();
    drop(message);
    let after = fs::read(queue.only_file()).unwrap();
    for cut in before.len()..after.len() {
        // The length is kept or not; what was not written reads as zeros.
        for filled in [cut, after.len()] {
            let mut torn = after[..cut].to_vec();
            torn.resize(filled, 0);
            fs::write(queue.only_file(), &torn).unwrap();
            let mut message = queue.active.reclaim(id).unwrap();
            assert_eq!(done(&message), [0], "cut at {cut}, filled to {filled}");
            message.mark(1, RecipientState::Done).unwrap();
            drop(message);
            assert_eq!(fs::read(queue.only_file()).unwrap(), after, "cut at {cut}, filled to {filled}");
        }
    }
}

/// The data of a mark may reach the disk before the file's length does: a power cut then leaves it behind the end, and
/// when the file grows there, a second one may show it. What it says was taken back by the first.
#[test]
fn a_mark_that_a_power_cut_took_back_does_not_come_back() {
    let queue = queue();
    let id = queue.commit(&full(), &[b'x'; 100]);
    let whole = fs::read(queue.only_file()).unwrap();
    let mut message = queue.settled(id);
    message.mark(0, RecipientState::Done).unwrap();
    drop(message);
    let taken_back = fs::read(queue.only_file()).unwrap();

    for first in ["mark", "attempt"] {
        fs::write(queue.only_file(), &whole).unwrap();
        let next = queue.root.active().unwrap();
        let mut message = next.reclaim(id).unwrap();
        assert!(!message.is_clean());
        match first {
            "mark" => message.mark(1, RecipientState::Done).unwrap(),
            _ => message.append_attempt(&attempt(1, &"x".repeat(100))).unwrap(),
        }
        assert!(message.is_clean());
        drop(message);
        let grown = fs::read(queue.only_file()).unwrap();
        // Wherever the new bytes end that reached the disk: either none of what the first append waits for, with no more
        // length, or all of it.
        let synced = whole.len() + crate::format::mark::LIFE_SIZE;
        let mut disks = vec![taken_back[..synced].to_vec()];
        disks.extend((synced..=grown.len()).map(|length| {
            let old = [&taken_back[..], &grown[taken_back.len().min(grown.len())..]].concat();
            [&grown[..synced], &old[synced..length.max(synced)]].concat()
        }));
        for disk in disks {
            fs::write(queue.only_file(), &disk).unwrap();
            let left = done(&queue.root.active().unwrap().reclaim(id).unwrap());
            assert!(!left.contains(&0), "{first}, {} bytes: {left:?}", disk.len());
        }
    }
}

/// One process knows what it has done, and waits for nothing.
#[test]
fn a_life_is_begun_once_in_a_file() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    let length = || fs::metadata(queue.only_file()).unwrap().len();
    let first = length();
    let mut message = queue.active.claim(id).unwrap();
    message.mark(0, RecipientState::Done).unwrap();
    message.defer(SystemTime::now()).unwrap();
    let mark = crate::format::mark::MARK_SIZE as u64;
    let life = crate::format::mark::LIFE_SIZE as u64;
    assert_eq!(length(), first + life + mark);
    let mut message = queue.active.claim_verified(id).unwrap();
    message.mark(1, RecipientState::Done).unwrap();
    assert_eq!(length(), first + life + mark + mark);
    message.defer(SystemTime::now()).unwrap();
    let mut message = queue.root.active().unwrap().claim_verified(id).unwrap();
    message.mark(1, RecipientState::Bounced).unwrap();
    assert_eq!(length(), first + life + mark + mark + life + mark);
    assert_eq!(done(&message), [0]);
}

#[test]
fn a_long_journal_is_read_to_its_end() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    let mut message = queue.active.claim(id).unwrap();
    for n in 0..2_000 {
        message.append_attempt(&attempt(n % 2, &format!("{n} {}", "é".repeat(100)))).unwrap();
    }
    assert_eq!(message.journal().count(), 2_000);
    assert!(message.last_attempts().unwrap()[&1].outcome.text.starts_with("1999 "));
    message.append_attempt(&attempt(0, &"é".repeat(50_000))).unwrap();
    assert_eq!(message.last_attempts().unwrap()[&0].outcome.text, "é".repeat(2_048));
}

#[test]
fn bytes_behind_the_journal_do_no_harm() {
    let queue = queue();
    let id = queue.commit(&full(), b"\n");
    OpenOptions::new().append(true).open(queue.only_file()).unwrap().write_all(&[0xff; 100]).unwrap();
    let mut message = queue.active.claim(id).unwrap();
    assert_eq!(message.journal().count(), 0);
    message.append_attempt(&attempt(0, "x")).unwrap();
    assert_eq!(message.journal().count(), 1);
}

#[test]
fn the_operator_may_take_a_message_away_from_qmgr() {
    let queue = queue();
    let operator = queue.root.operator().unwrap();
    for settled in [false, true] {
        let take_up = |id| if settled { queue.settled(id) } else { queue.active.claim(id).unwrap() };
        let id = queue.commit(&full(), b"\n");
        let mut message = take_up(id);
        operator.hold(id, &[Folder::Incoming, Folder::Active]).unwrap();
        message.mark(0, RecipientState::Done).unwrap();
        assert!(matches!(message.defer(SystemTime::now()), Err(QueueError::NotFound(_))));
        let held = queue.root.read_only().unwrap().open(Folder::Hold, id).unwrap();
        assert_eq!(held.recipients_from(0, 1).unwrap()[0].state, RecipientState::Done);
        operator.delete(id, &Folder::ALL).unwrap();

        let id = queue.commit(&full(), b"\n");
        let message = take_up(id);
        operator.delete(id, &Folder::ALL).unwrap();
        message.remove().unwrap();
        assert!(queue.files().is_empty());
    }
}
