//! The messages in `deferred/`: when each is tried next, which of them wait for a destination that was given up, and
//! which have recipients in a domain that may be asked for. No I/O, no clock.
//!
//! A message takes some 130 bytes, so that a million of them fit: what most messages do not have costs them nothing, and
//! trees are used throughout, because a hash table has room for twice as many just when it has grown, and holds up the
//! loop while it grows. An entry says when to look, not that the message is still there: claiming one that an operator
//! removed finds nothing, and that is all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use mail::QueueId;

use crate::intake::Reason;
use crate::scheduler::Site;

/// When a message is due that an operator or a client has asked for.
const ASKED: u32 = 0;

/// When a message is due whose destination is back.
const HASTENED: u32 = 1;

/// The most destinations that are noted of one message.
const MOST_SITES: usize = 16;

/// Domains that are remembered as asked for while the queue is looked through.
const MOST_ASKED: usize = 1000;

#[derive(Default)]
pub(crate) struct Deferred {
    entries: BTreeMap<QueueId, Entry>,
    /// By the second of the next attempt.
    due: BTreeSet<(u32, QueueId)>,
    sites: Lists<Site>,
    domains: Lists<String>,
    /// Messages found by a scan, whose domains nobody has looked at.
    unread: BTreeSet<QueueId>,
    /// Whether there may be messages that the scan has not found yet.
    is_scanning: bool,
    /// All of those are asked for.
    all_asked: bool,
    /// Domains that were asked for while not all messages have been found and looked into.
    asked: HashSet<String>,
}

/// What is known of a message.
struct Entry {
    due: u32,
    sites: Numbers,
    domains: Numbers,
}

/// The lists that a message stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    None,
    One(u32),
    /// Several, which is rare: [`Lists::several`] has them.
    Several,
}

/// Lists of messages by key. Keys are kept once; messages have their numbers.
struct Lists<K> {
    numbers: HashMap<K, u32>,
    lists: Vec<Option<(K, BTreeSet<QueueId>)>>,
    free: Vec<u32>,
    /// The numbers of messages that stand in several lists.
    several: BTreeMap<QueueId, Box<[u32]>>,
}

impl Deferred {
    /// What an earlier process put aside; a scan will find it.
    pub(crate) fn to_be_found() -> Self {
        Self { is_scanning: true, ..Self::default() }
    }

    /// Notes a message that waits until `next_attempt`, and for these destinations.
    pub(crate) fn add(&mut self, id: QueueId, next_attempt: SystemTime, sites: &[Site]) {
        let entry = self.take(id);
        let due = seconds(next_attempt);
        let sites = self.sites.enter(id, sites.iter().take(MOST_SITES));
        let domains = entry.map_or(Numbers::None, |entry| entry.domains);
        self.due.insert((due, id));
        self.entries.insert(id, Entry { due, sites, domains });
    }

    /// Notes a message that a scan has found. Whether its domains are to be looked at now: some were asked for.
    pub(crate) fn find(&mut self, id: QueueId, next_attempt: SystemTime, reads_domains: bool) -> bool {
        if self.entries.contains_key(&id) {
            return false;
        }
        self.add(id, next_attempt, &[]);
        if self.all_asked {
            self.hasten(id, ASKED);
        }
        if reads_domains {
            self.unread.insert(id);
        }
        reads_domains && !self.asked.is_empty()
    }

    /// The scan is over.
    pub(crate) fn end_scan(&mut self) {
        (self.is_scanning, self.all_asked) = (false, false);
        self.forget_asked();
    }

    /// Takes a message out because it is taken up. Its domains are forgotten with it.
    pub(crate) fn remove(&mut self, id: QueueId) {
        if let Some(entry) = self.take(id) {
            self.domains.leave(id, entry.domains);
        }
        self.unread.remove(&id);
    }

    fn take(&mut self, id: QueueId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.due.remove(&(entry.due, id));
        self.sites.leave(id, entry.sites);
        Some(entry)
    }

    /// Takes the next message that is due, and says why: [`Reason::Asked`] or [`Reason::Due`].
    pub(crate) fn take_due(&mut self, now: SystemTime) -> Option<(QueueId, Reason)> {
        let (due, id) = *self.due.first()?;
        if due > seconds(now) {
            return None;
        }
        self.remove(id);
        Some((id, if due == ASKED { Reason::Asked } else { Reason::Due }))
    }

    /// Asks for everything.
    pub(crate) fn flush(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.due = ASKED);
        // In the order in which it would have come.
        self.due = std::mem::take(&mut self.due).into_iter().map(|(_, id)| (ASKED, id)).collect();
        self.all_asked = self.is_scanning;
    }

    fn hasten(&mut self, id: QueueId, due: u32) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.due > due
        {
            self.due.remove(&(entry.due, id));
            entry.due = due;
            self.due.insert((due, id));
        }
    }

    /// Makes the oldest messages due that wait for a destination: as many, less those that are due already.
    pub(crate) fn hasten_for(&mut self, site: &Site, most: usize) {
        let chosen: Vec<QueueId> = self.sites.of(site).take(most).collect();
        chosen.into_iter().for_each(|id| self.hasten(id, HASTENED));
    }

    /// How many messages wait for a destination.
    pub(crate) fn waiting_for(&self, site: &Site) -> usize {
        self.sites.count(site)
    }

    /// Notes the domains in which a message has recipients that wait, and asks for it where one of them was asked for.
    pub(crate) fn set_domains(&mut self, id: QueueId, domains: &[String]) {
        self.unread.remove(&id);
        if let Some(entry) = self.entries.get_mut(&id) {
            self.domains.leave(id, entry.domains);
            entry.domains = self.domains.enter(id, domains.iter());
            if domains.iter().any(|domain| self.asked.contains(domain)) {
                self.hasten(id, ASKED);
            }
        }
        self.forget_asked();
    }

    /// Asks for the mail for a domain. The messages whose domains must be looked at for that, unless that is under way.
    pub(crate) fn flush_domain(&mut self, domain: String) -> Vec<QueueId> {
        let chosen: Vec<QueueId> = self.domains.of(&domain).collect();
        chosen.into_iter().for_each(|id| self.hasten(id, ASKED));
        self.forget_asked();
        let is_first = self.asked.is_empty();
        if (self.is_scanning || !self.unread.is_empty()) && self.asked.len() < MOST_ASKED {
            self.asked.insert(domain);
        }
        if is_first { self.unread.iter().copied().collect() } else { Vec::new() }
    }

    /// Forgets which domains were looked at: the list of those that matter has changed. The messages that must be looked at
    /// again now.
    pub(crate) fn forget_domains(&mut self, reads_domains: bool) -> Vec<QueueId> {
        self.domains = Lists::default();
        self.entries.values_mut().for_each(|entry| entry.domains = Numbers::None);
        self.unread = if reads_domains { self.entries.keys().copied().collect() } else { BTreeSet::new() };
        self.forget_asked();
        if self.asked.is_empty() { Vec::new() } else { self.unread.iter().copied().collect() }
    }

    /// Once all messages have been found and looked into, their domains are known.
    fn forget_asked(&mut self) {
        if !self.is_scanning && self.unread.is_empty() {
            self.asked.clear();
        }
    }

    /// How long until something is due.
    pub(crate) fn next_in(&self, now: SystemTime) -> Option<Duration> {
        let (due, _) = self.due.first()?;
        Some(Duration::from_secs(u64::from(due.saturating_sub(seconds(now)))))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<K> Default for Lists<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), lists: Vec::new(), free: Vec::new(), several: BTreeMap::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash> Lists<K> {
    fn enter<'a>(&mut self, id: QueueId, keys: impl Iterator<Item = &'a K>) -> Numbers
    where
        K: 'a,
    {
        let mut numbers: Vec<u32> = keys.map(|key| self.number_of(key)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in &numbers {
            if let Some((_, list)) = self.list(*number) {
                list.insert(id);
            }
        }
        match numbers[..] {
            [] => Numbers::None,
            [number] => Numbers::One(number),
            _ => {
                self.several.insert(id, numbers.into());
                Numbers::Several
            }
        }
    }

    fn leave(&mut self, id: QueueId, numbers: Numbers) {
        match numbers {
            Numbers::None => {}
            Numbers::One(number) => self.leave_list(id, number),
            Numbers::Several => {
                let several = self.several.remove(&id).unwrap_or_default();
                several.iter().for_each(|number| self.leave_list(id, *number));
            }
        }
    }

    fn leave_list(&mut self, id: QueueId, number: u32) {
        let Some((key, list)) = self.list(number) else { return };
        list.remove(&id);
        if list.is_empty() {
            let key = key.clone();
            self.numbers.remove(&key);
            if let Some(slot) = usize::try_from(number).ok().and_then(|n| self.lists.get_mut(n)) {
                *slot = None;
            }
            self.free.push(number);
        }
    }

    fn number_of(&mut self, key: &K) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let new = Some((key.clone(), BTreeSet::new()));
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = usize::try_from(number).ok().and_then(|n| self.lists.get_mut(n)) {
                    *slot = new;
                }
                number
            }
            None => {
                self.lists.push(new);
                u32::try_from(self.lists.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(key.clone(), number);
        number
    }

    fn list(&mut self, number: u32) -> Option<&mut (K, BTreeSet<QueueId>)> {
        self.lists.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    fn of(&self, key: &K) -> impl Iterator<Item = QueueId> {
        let number = self.numbers.get(key).and_then(|number| usize::try_from(*number).ok());
        let list = number.and_then(|number| self.lists.get(number)?.as_ref());
        list.into_iter().flat_map(|(_, list)| list.iter().copied())
    }

    fn count(&self, key: &K) -> usize {
        let number = self.numbers.get(key).and_then(|number| usize::try_from(*number).ok());
        number.and_then(|number| self.lists.get(number)?.as_ref()).map_or(0, |(_, list)| list.len())
    }
}

/// Whole seconds since the epoch, rounded up, so that nothing is due early, and never [`ASKED`]. Good until the year 2106.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() + u64::from(since.subsec_nanos() > 0)).unwrap_or(u32::MAX).max(HASTENED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    fn site(destination: &str) -> Site {
        Site { transport: "smtp".into(), destination: destination.into() }
    }

    fn ids<const N: usize>() -> [QueueId; N] {
        std::array::from_fn(|_| QueueId::generate(now()))
    }

    fn all_due(deferred: &mut Deferred) -> Vec<QueueId> {
        std::iter::from_fn(|| deferred.take_due(now())).map(|(id, _)| id).collect()
    }

    #[test]
    fn messages_come_when_they_are_due_or_flushed() {
        let [early, late] = ids();
        let mut deferred = Deferred::default();
        deferred.add(late, now() + Duration::from_secs(100), &[]);
        deferred.add(early, now() + Duration::from_secs(10), &[]);
        assert_eq!(deferred.take_due(now()), None);
        assert_eq!(deferred.next_in(now()), Some(Duration::from_secs(10)));
        assert_eq!(deferred.take_due(now() + Duration::from_secs(10)), Some((early, Reason::Due)));
        deferred.flush();
        assert_eq!(deferred.take_due(now()), Some((late, Reason::Asked)));
        assert_eq!(deferred.len(), 0);
    }

    #[test]
    fn a_message_that_is_put_off_again_has_one_time() {
        let [id] = ids();
        let mut deferred = Deferred::default();
        deferred.add(id, now(), &[]);
        deferred.add(id, now() + Duration::from_secs(10), &[site("a")]);
        assert_eq!((all_due(&mut deferred), deferred.len()), (vec![], 1));
    }

    #[test]
    fn the_oldest_that_wait_for_a_site_come_first() {
        let [first, second, third, other] = ids();
        let mut deferred = Deferred::default();
        let later = now() + Duration::from_secs(1000);
        for id in [third, first, second] {
            deferred.add(id, later, &[site("a"), site("b")]);
        }
        deferred.add(other, later, &[site("b")]);
        assert_eq!(deferred.waiting_for(&site("a")), 3);
        deferred.hasten_for(&site("a"), 2);
        assert_eq!(all_due(&mut deferred), [first, second]);
        deferred.hasten_for(&site("a"), 2);
        assert_eq!(all_due(&mut deferred), [third]);
        assert_eq!((deferred.waiting_for(&site("a")), deferred.waiting_for(&site("b"))), (0, 1));
        assert!(deferred.sites.numbers.len() == 1 && deferred.sites.lists.len() == 2);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<(QueueId, Entry)>() <= 48 && size_of::<(u32, QueueId)>() <= 32);
    }

    #[test]
    fn a_domain_is_flushed_by_itself() {
        let [first, second] = ids();
        let mut deferred = Deferred::default();
        let later = now() + Duration::from_secs(1000);
        assert!(!deferred.find(first, later, true));
        assert!(!deferred.find(second, later, true));
        assert_eq!(deferred.unread.len(), 2);
        deferred.set_domains(first, &["a.example".into(), "b.example".into()]);
        deferred.set_domains(second, &["b.example".into()]);
        assert_eq!(deferred.unread.len(), 0);
        assert!(deferred.flush_domain("a.example".into()).is_empty());
        assert_eq!(all_due(&mut deferred), [first]);
        assert!(deferred.flush_domain("b.example".into()).is_empty());
        assert_eq!(all_due(&mut deferred), [second]);
        assert!(deferred.domains.numbers.is_empty() && deferred.domains.several.is_empty());
        assert!(deferred.asked.is_empty());
    }

    #[test]
    fn what_is_asked_for_before_it_is_found_comes_when_it_is_found() {
        let [early, late, other] = ids();
        let later = now() + Duration::from_secs(1000);
        let mut deferred = Deferred::to_be_found();
        deferred.find(early, later, true);
        assert_eq!(deferred.flush_domain("a.example".into()), [early]);
        assert!(deferred.flush_domain("a.example".into()).is_empty());
        deferred.set_domains(early, &["a.example".into()]);
        assert!(deferred.find(late, later, true) && deferred.find(other, later, true));
        deferred.end_scan();
        deferred.set_domains(late, &["a.example".into()]);
        assert_eq!(deferred.asked.len(), 1);
        deferred.set_domains(other, &["b.example".into()]);
        assert_eq!(all_due(&mut deferred), [early, late]);
        assert!(deferred.asked.is_empty());

        let [before, behind] = ids();
        let mut deferred = Deferred::to_be_found();
        deferred.flush();
        deferred.find(before, later, false);
        deferred.end_scan();
        deferred.find(behind, later, false);
        assert_eq!(all_due(&mut deferred), [before]);
    }

    #[test]
    fn what_is_asked_for_is_looked_for_again_by_other_rules() {
        let [read, unread] = ids();
        let later = now() + Duration::from_secs(1000);
        let mut deferred = Deferred::default();
        deferred.find(read, later, true);
        deferred.find(unread, later, true);
        deferred.set_domains(read, &[]);
        assert!(deferred.forget_domains(true).is_empty());
        deferred.set_domains(read, &[]);
        assert_eq!(deferred.flush_domain("a.example".into()), [unread]);
        assert_eq!(deferred.forget_domains(true), [read, unread]);
        deferred.set_domains(unread, &[]);
        deferred.set_domains(read, &["a.example".into()]);
        assert_eq!(all_due(&mut deferred), [read]);
        assert!(deferred.asked.is_empty());
    }
}
