//! Files of the suite's own, and the frames between its programs.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;

use ipc::frame::{self, Frame, Receiver};
use queue::{Content, Stored};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pieces::{cut, take_byte};

/// The beginning of a queue file: head, and where its checksum stands (postroad-queue(5)).
const CHECKED: usize = 60;
const HEAD: usize = 128;

/// A queue file: whatever is in it is read within bounds, with the checksums that it has and with right ones.
pub fn queue_file(data: &[u8]) {
    read_queue_file(data);
    let mut sealed = data.to_vec();
    if let Some((recipients, content)) =
        sealed.get(12..32).map(|head| (number(&head[..4]), number(&head[12..])))
    {
        let start = HEAD.saturating_add(recipients);
        if let Some(envelope) = sealed.get(start..content) {
            let sum = crc32fast::hash(&[envelope, &sealed[..CHECKED]].concat());
            sealed[CHECKED..CHECKED + 4].copy_from_slice(&sum.to_le_bytes());
            read_queue_file(&sealed);
        }
    }
}

fn number(little_endian: &[u8]) -> usize {
    let number = little_endian.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn read_queue_file(data: &[u8]) {
    let Ok(file) = sys::descriptors::memory_file("queue", data) else { return };
    let size = u64::try_from(data.len()).unwrap_or(0);
    let Ok(stored) = Stored::from_file(file, "fuzz".as_ref()) else { return };
    let offsets = stored.offsets();
    assert!(offsets.is_sorted() && offsets[3] <= size, "{offsets:?} do not lie in the file's {size} bytes");
    let count = usize::try_from(stored.recipient_count()).unwrap_or(usize::MAX);
    // As qmgr reads them: some at a time, and all at once. Both see the same.
    if let Ok(all) = stored.recipients_from(0, usize::MAX) {
        assert!(all.len() <= count && count <= data.len());
        let mut few = Vec::new();
        while let Ok(more) = stored.recipients_from(few.last().map_or(0, |(index, _)| index + 1), 2) {
            if more.is_empty() {
                break;
            }
            few.extend(more.into_iter().map(|one| (one.index, one.recipient.address)));
            assert!(few.len() <= all.len(), "recipients without end");
        }
        let all: Vec<_> = all.into_iter().map(|one| (one.index, one.recipient.address)).collect();
        assert_eq!(all, few, "other recipients when they are read in parts");
    }
    let _ = stored.expanded_count();
    let _ = stored.verify_content();
    let records = stored.journal().take_while(Result::is_ok).count();
    assert!(records <= data.len());
    let _ = stored.last_attempts();
    let mut content = Vec::new();
    assert_eq!(stored.content().copy_to(&mut content).ok(), u64::try_from(content.len()).ok());
    assert!(content.len() <= data.len());
    if let Ok(handed) = Content::from_file(stored.share()) {
        assert_eq!(handed.size(), stored.content_size(), "an agent sees another content");
        assert!(handed.header(1000).is_ok());
    }
}

/// Frames between programs: read within bounds, the same however they are cut; a value is the same after it was sent on.
pub fn frames(mut data: &[u8]) {
    let seed = take_byte(&mut data);
    // A frame that announces much makes room for it: here it would only cost time.
    let bodies = received(data, seed);
    assert_eq!(bodies, received(data, 0), "other frames when they are cut");
    for body in bodies.iter().map(Vec::as_slice).chain([data]) {
        sent_on::<ipc::agent::Request>(body);
        sent_on::<ipc::agent::Reply>(body);
        sent_on::<ipc::bounce::Request>(body);
        sent_on::<ipc::bounce::Reply>(body);
        sent_on::<ipc::cleanup::Begin>(body);
        sent_on::<ipc::cleanup::Late>(body);
        sent_on::<ipc::cleanup::End>(body);
        sent_on::<ipc::cleanup::Refusal>(body);
        sent_on::<ipc::control::ToMaster>(body);
        sent_on::<ipc::master::Request>(body);
        sent_on::<ipc::master::Answer>(body);
        sent_on::<ipc::queue_manager::Word>(body);
        sent_on::<ipc::verify::Request>(body);
        sent_on::<ipc::verify::Answer>(body);
        sent_on::<ipc::anvil::Request>(body);
        sent_on::<ipc::anvil::Answer>(body);
        let _ = frame::decode::<ipc::control::ToChild>(body);
        let _ = frame::decode::<ipc::control::Birth>(body);
    }
}

fn received(data: &[u8], seed: u8) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let Ok((mut here, there)) = UnixStream::pair() else { return bodies };
    let mut receiver = Receiver::new();
    let mut pieces = cut(data, seed).take(100).collect::<Vec<_>>().into_iter();
    let mut open = true;
    // A socket holds far more than an input, so that writing never waits; reading is only asked for what is there.
    loop {
        while receiver.has_frame() || !open {
            match receiver.next_frame(&there) {
                Ok(Some(Frame::Message(body) | Frame::Content(body))) => bodies.push(body.to_vec()),
                Ok(None) | Err(_) => return bodies,
            }
        }
        match pieces.next() {
            Some(piece) if here.write_all(piece).is_ok() => {
                if there.set_nonblocking(true).is_err() {
                    return bodies;
                }
                match receiver.next_frame(&there) {
                    Ok(Some(Frame::Message(body) | Frame::Content(body))) => bodies.push(body.to_vec()),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Ok(None) | Err(_) => return bodies,
                }
            }
            _ => {
                open = false;
                drop(here.shutdown(std::net::Shutdown::Write));
            }
        }
    }
}

fn sent_on<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(value) = frame::decode::<T>(body) else { return };
    let mut sent = Vec::new();
    if frame::push_message(&mut sent, &value).is_ok() {
        assert_eq!(
            frame::decode::<T>(&sent[5..]).ok().as_ref(),
            Some(&value),
            "another value after it was sent on"
        );
    }
}

/// A queue file of Postfix's: it ends, whatever its pointers say.
pub fn postfix_queue_file(data: &[u8]) {
    let Ok(file) = sys::descriptors::memory_file("postfix", data) else { return };
    let file: File = file;
    let (_, size) = admin::postroad::records_in(&file);
    // A pointer may lead back, but not for ever.
    assert!(size <= data.len().saturating_mul(100_001));
}

/// anvil's list of bans, and the small records of others: what was read is the same after it was written.
pub fn bans(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let bans = ipc::anvil::parse_bans(&text);
    let written = ipc::anvil::format_bans(bans.iter());
    let again = ipc::anvil::parse_bans(&written);
    assert_eq!(bans.len(), again.len(), "a ban was lost");
    let same =
        bans.iter().zip(&again).all(|(one, other)| one.network == other.network && one.until == other.until);
    assert!(same, "another ban after it was written");
    assert_eq!(ipc::anvil::format_bans(again.iter()), written);
    if let Some(entry) = verify::fuzzing::entry(&text) {
        assert_eq!(verify::fuzzing::entry(&entry).as_ref(), Some(&entry));
    }
    if let Some(entry) = smtpd::fuzzing::passed_entry(&text) {
        assert_eq!(smtpd::fuzzing::passed_entry(&entry).as_ref(), Some(&entry));
    }
}

/// The table of passwords: what was read is the same after it was written.
pub fn passwords(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(table) = passwords::Table::parse(&text) else { return };
    let written = table.to_text();
    let Some(written) = written.as_str() else {
        unreachable!("a table that is no text");
    };
    let again = passwords::Table::parse(written);
    assert!(again.is_ok(), "a table cannot be read after it was written: {written:?}");
    let names = |table: &passwords::Table| table.users().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(again.ok().as_ref().map(names), Some(names(&table)), "other users after it was written");
}
