//! What becomes of the files of messages that were taken up.

use std::fs;
use std::os::unix::net::UnixStream;

use config::{Config, Snapshot};
use mail::{Address, Envelope, Recipient};
use queue::{Incoming, Lent, Operator, Root};

use super::*;

struct Site {
    folder: tempfile::TempDir,
    incoming: Incoming,
    operator: Operator,
    shard: Shard,
}

fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::prepare(folder.path(), None).unwrap();
    let snapshot = Snapshot { main_cf: b"myhostname = mail.example.com\n".to_vec(), master_cf: Vec::new() };
    let config = Config::from_snapshot(folder.path(), &snapshot, &[]).unwrap().0;
    let router = Arc::new(Router::new(&config).unwrap());
    let sites = Arc::new(FlushSites::new(&config).unwrap());
    let shard = Shard::new(root.active().unwrap(), router, sites, Arc::default());
    let (incoming, operator) = (root.incoming().unwrap(), root.operator().unwrap());
    Site { folder, incoming, operator, shard }
}

impl Site {
    /// Commits a message and has it taken up.
    fn claimed(&mut self) -> QueueId {
        let id = QueueId::generate(SystemTime::now());
        let recipients = vec![Recipient::new(Address::new("user@example.com").unwrap())];
        let envelope = Envelope::new(Address::null(), recipients, Duration::ZERO);
        self.incoming.create(id, &envelope, false).unwrap().commit().unwrap();
        let done = self.shard.perform(Job::Claim { id, verify: false, most: 10 });
        assert!(matches!(done, Some(Done::Claimed(_))));
        id
    }

    fn folder_of(&self, id: QueueId) -> Option<Folder> {
        let has = |folder: &Folder| self.operator.ids(*folder).any(|found| found.unwrap() == id);
        Folder::ALL.into_iter().find(has)
    }
}

#[test]
fn what_has_come_is_moved_when_it_stays() {
    let mut site = site();
    let (quick, slow) = (site.claimed(), site.claimed());
    assert!(site.shard.until_settled().is_some());
    site.shard.settle_old();
    assert_eq!(site.folder_of(slow), Some(Folder::Incoming));
    assert!(site.shard.perform(Job::Remove { id: quick }).is_none());
    assert_eq!(site.folder_of(quick), None);
    site.shard.arrived.values_mut().for_each(|since| *since -= SETTLED_AFTER);
    site.shard.next_settling = Instant::now();
    site.shard.settle_old();
    assert_eq!((site.folder_of(slow), site.shard.until_settled()), (Some(Folder::Active), None));
    site.shard.perform(Job::Defer { id: slow, until: SystemTime::now() });
    assert_eq!(site.folder_of(slow), Some(Folder::Deferred));
}

#[test]
fn a_scan_tells_what_lies_there_from_what_was_put_back() {
    let mut site = site();
    let id = site.claimed();
    assert!(site.shard.perform(Job::Settle { id }).is_none());
    assert_eq!(site.folder_of(id), Some(Folder::Active));
    site.operator.requeue(id, &[Folder::Active]).unwrap();
    assert!(matches!(site.shard.perform(Job::Settle { id }), Some(Done::PutBack(put)) if put == id));
    assert_eq!(site.folder_of(id), Some(Folder::Incoming));
}

/// With more messages than are kept, and whatever the operator does meanwhile.
#[test]
fn a_message_that_is_not_kept_ends_where_it_lies() {
    let mut site = site();
    let ids: Vec<QueueId> = (0..MOST_KEPT + 4).map(|_| site.claimed()).collect();
    let [deferred, settled, removed, held] = ids[MOST_KEPT..] else { unreachable!() };
    site.shard.perform(Job::Defer { id: deferred, until: SystemTime::now() });
    assert_eq!(site.folder_of(deferred), Some(Folder::Deferred));
    site.shard.perform(Job::Settle { id: settled });
    assert_eq!(site.folder_of(settled), Some(Folder::Active));
    for id in [settled, removed] {
        site.shard.perform(Job::Remove { id });
        assert_eq!(site.folder_of(id), None);
    }
    site.operator.hold(held, &[Folder::Incoming]).unwrap();
    site.shard.perform(Job::Remove { id: held });
    assert_eq!(site.folder_of(held), Some(Folder::Hold));
    assert!(!ids[MOST_KEPT..].iter().any(|id| site.shard.arrived.contains_key(id)));
}

#[test]
fn what_is_done_and_cannot_be_removed_is_not_delivered_again() {
    let mut site = site();
    let (folder, id) = (site.folder.path().to_owned(), site.claimed());
    let slot = format!("incoming/{:X}", id.spread() % 16);
    let (file, aside) = (folder.join(slot).join(id.as_str()), folder.join("aside"));
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(site.shard.perform(Job::Remove { id }), Some(Done::Stuck(stuck)) if stuck == id));
    let mut come_again = || site.shard.perform(Job::Claim { id, verify: true, most: 10 });
    assert!(matches!(come_again(), Some(Done::Stuck(stuck)) if stuck == id));
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    assert!(matches!(come_again(), Some(Done::Gone(gone)) if gone == id));
    assert!(!file.exists() && site.shard.unremoved.is_empty());
}

#[test]
fn what_cannot_be_settled_is_tried_again_later_and_ends_where_it_lies() {
    let mut site = site();
    let id = site.claimed();
    let in_the_way = site.folder.path().join(format!("active/{:X}", id.spread() % 16)).join(id.as_str());
    fs::create_dir(&in_the_way).unwrap();
    site.shard.perform(Job::Settle { id });
    assert_eq!(site.folder_of(id), Some(Folder::Incoming));
    let is_due = |site: &Site| site.shard.arrived.values().any(|since| *since <= Instant::now());
    assert!(!is_due(&site) && site.shard.until_settled().is_some());
    fs::remove_dir(&in_the_way).unwrap();
    // As after an error that kept it from being read.
    let again = site.shard.perform(Job::Claim { id, verify: true, most: 10 });
    assert!(matches!(again, Some(Done::Claimed(_))));
    assert_eq!((site.folder_of(id), site.shard.place_of(id)), (Some(Folder::Active), Folder::Active));
    site.shard.perform(Job::Remove { id });
    assert_eq!(site.folder_of(id), None);
}

#[test]
fn what_is_put_on_hold_while_it_is_delivered_is_not_delivered_again() {
    let mut site = site();
    for is_kept in [true, false] {
        let id = site.claimed();
        if !is_kept {
            site.shard.messages.clear();
        }
        site.operator.hold(id, &[Folder::Incoming]).unwrap();
        assert!(site.shard.perform(Job::Remove { id }).is_none());
        assert_eq!(site.folder_of(id), Some(Folder::Hold));
        site.operator.requeue(id, &[Folder::Hold]).unwrap();
        let again = site.shard.perform(Job::Claim { id, verify: true, most: 10 });
        let Some(Done::Claimed(claimed)) = again else { unreachable!("it is there") };
        assert!(claimed.slice.recipients.is_empty());
        site.shard.perform(Job::Remove { id });
        assert_eq!(site.folder_of(id), None);
    }
}

fn lent(site: &mut Site, asker: &Arc<Asker>) -> (QueueId, Lent) {
    let id = QueueId::generate(SystemTime::now());
    let recipients =
        ["user", "other"].map(|name| Recipient::new(Address::new(format!("{name}@example.com")).unwrap()));
    let envelope = Envelope::new(Address::null(), recipients.to_vec(), Duration::ZERO);
    let mut writer = site.incoming.create(id, &envelope, false).unwrap();
    writer.write_to_memory();
    let lent = writer.lend().unwrap();
    let file = lent.file().try_clone().unwrap();
    let done = site.shard.perform(Job::Borrow { id, file, asker: Arc::clone(asker), most: 10 });
    assert!(matches!(done, Some(Done::Claimed(_))));
    (id, lent)
}

fn asker() -> (Arc<Asker>, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    (Arc::new(Asker::new(here).unwrap()), there)
}

fn done_for(index: u32, id: QueueId) -> Job {
    Job::Record { id, index, state: Some(RecipientState::Done), attempt: None }
}

#[test]
fn what_is_lent_and_delivered_never_is_in_the_queue() {
    let mut site = site();
    let (asker, _there) = asker();
    let (id, _lent) = lent(&mut site, &asker);
    assert!(site.shard.perform(done_for(0, id)).is_none());
    site.shard.write_all();
    assert!(site.shard.until_settled().is_some());
    assert!(site.shard.perform(Job::GiveBack { id }).is_none());
    assert!(site.shard.until_settled().is_none());
    assert!(site.folder_of(id).is_none() && site.shard.borrowed.is_empty() && site.shard.messages.is_empty());
}

#[test]
fn what_is_decided_about_a_message_that_is_lent_is_written_when_it_is_in_the_queue() {
    let mut site = site();
    let (asker, _there) = asker();
    for is_orphan in [false, true] {
        let (id, lent) = lent(&mut site, &asker);
        let until = SystemTime::now() + Duration::from_secs(1000);
        for job in [done_for(0, id), Job::Barrier { id }, Job::Defer { id, until }] {
            assert!(site.shard.perform(job).is_none());
        }
        assert_eq!(lent.store().unwrap(), 0);
        let job = if is_orphan { Job::Orphan { asker: Arc::clone(&asker) } } else { Job::Attach { id } };
        assert!(site.shard.perform(job).is_none());
        assert_eq!(site.folder_of(id), Some(Folder::Deferred));
        let mut told = Vec::new();
        site.shard.inbox.take(&mut told, Some(Duration::ZERO));
        assert!(matches!(told[..2], [Input::Done(Done::Attached(..)), Input::Done(Done::Passed(_))]));
        let again = site.shard.perform(Job::Claim { id, verify: true, most: 10 });
        let Some(Done::Claimed(claimed)) = again else { unreachable!("it is there") };
        assert_eq!(claimed.slice.recipients.iter().map(|known| known.index).collect::<Vec<_>>(), [1]);
        assert!(matches!(site.shard.perform(Job::Attach { id }), Some(Done::NotLent(_))));
    }
}

#[test]
fn what_could_not_be_stored_is_forgotten() {
    let mut site = site();
    let (asker, _there) = asker();
    let (withdrawn, _lent) = lent(&mut site, &asker);
    assert!(site.shard.perform(done_for(0, withdrawn)).is_none());
    assert!(matches!(site.shard.perform(Job::Withdraw { id: withdrawn }), Some(Done::Gone(_))));
    assert!(site.shard.perform(Job::Withdraw { id: withdrawn }).is_none());
    let (orphan, _lent) = lent(&mut site, &asker);
    assert!(site.shard.perform(Job::Orphan { asker: Arc::clone(&asker) }).is_none());
    let mut told = Vec::new();
    site.shard.inbox.take(&mut told, Some(Duration::ZERO));
    assert!(matches!(told[..], [Input::Done(Done::Gone(id))] if id == orphan));
    assert!(site.shard.borrowed.is_empty() && site.shard.messages.is_empty());
}
