//! Queries, results, and the thread that sends probes.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use config::{Config, param};
use ipc::frame;
use ipc::log;
use ipc::verify::{Answer, Request, Standing};
use lookup::Cache;
use mail::Address;
use service::{Connection, Stream};

use crate::entry::{Entry, PROBE_TIME, Times};
use crate::probe::{self, Sender};

/// So many probes may wait to be submitted; what is more is sent when the address is asked for again.
const MAX_WAITING: usize = 1000;

/// How often a cache that cannot be written is complained about.
const COMPLAINT: Duration = Duration::from_secs(60);

/// What is known, and the way to find out more.
pub(crate) struct Server {
    state: Mutex<State>,
    probes: SyncSender<(Address, Sender)>,
}

struct State {
    cache: Arc<Cache>,
    table: String,
    settings: Settings,
    /// Probes whose results have not come, and when they were sent.
    pending: HashMap<String, u64>,
    cleaned: Instant,
    complained: Option<Instant>,
}

struct Settings {
    times: Times,
    remembers_failures: bool,
    pending_limit: usize,
    cleanup_interval: Duration,
    sender: Sender,
}

impl Settings {
    fn new(config: &Config) -> Result<Self, String> {
        let limit: u64 = config.get(param::ADDRESS_VERIFY_PENDING_REQUEST_LIMIT);
        Ok(Self {
            times: Times::new(config),
            remembers_failures: config.get(param::ADDRESS_VERIFY_NEGATIVE_CACHE),
            pending_limit: usize::try_from(limit).unwrap_or(usize::MAX),
            cleanup_interval: config.get(param::ADDRESS_VERIFY_CACHE_CLEANUP_INTERVAL),
            sender: Sender::new(config)?,
        })
    }
}

impl Server {
    /// # Errors
    /// A table, or a sender, that can never work; no thread.
    pub(crate) fn new(config: &Config, cleanup: ipc::cleanup::Client) -> Result<Self, String> {
        let table: String = config.get(param::ADDRESS_VERIFY_MAP);
        let cache = Cache::named("address_verify_map", &table).map_err(|error| error.to_string())?;
        let (probes, waiting) = sync_channel(MAX_WAITING);
        std::thread::Builder::new()
            .name("probes".into())
            .spawn(move || submit(&cleanup, &waiting))
            .map_err(|error| format!("start a thread: {error}"))?;
        let state = State {
            cache: Arc::new(cache),
            table,
            settings: Settings::new(config)?,
            pending: HashMap::new(),
            cleaned: Instant::now(),
            complained: None,
        };
        Ok(Self { state: Mutex::new(state), probes })
    }

    /// Goes on with another configuration; what is known stays.
    pub(crate) fn configure(&self, config: &Config) {
        let mut state = self.lock();
        match Settings::new(config) {
            Ok(settings) => state.settings = settings,
            Err(text) => log::warning!("{text}; what was set before stays"),
        }
        let table: String = config.get(param::ADDRESS_VERIFY_MAP);
        if table != state.table
            && let Ok(cache) = Cache::named("address_verify_map", &table)
        {
            (state.cache, state.table) = (Arc::new(cache), table);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: Request) -> Answer {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut state = self.lock();
        state.clean_up_if_due(now);
        match request {
            Request::Query(address) => {
                let entry = state
                    .query(&address, now, |sender| self.probes.try_send((address.clone(), sender)).is_ok());
                Answer::Known { standing: entry.standing, text: entry.text }
            }
            Request::Update { address, standing, text } => {
                state.update(&address, standing, text, now);
                Answer::Noted
            }
        }
    }
}

impl State {
    /// What is known of an address; has a probe sent where that is due.
    fn query(&mut self, address: &Address, now: u64, send: impl FnOnce(Sender) -> bool) -> Entry {
        let key = key_of(address);
        let kept = self.kept(&key);
        let counts = |entry: &Entry| {
            entry.updated > 0 && (entry.awaits_probe(now) || !entry.is_expired(&self.settings.times, now))
        };
        let awaited = kept.as_ref().is_some_and(|entry| entry.awaits_probe(now))
            || self.pending.get(&key).is_some_and(|sent| now.saturating_sub(*sent) <= PROBE_TIME);
        let entry = kept.filter(counts).unwrap_or_else(Entry::unknown);
        if awaited || !entry.wants_probe(&self.settings.times, now) {
            return entry;
        }
        let limit = self.settings.pending_limit;
        if limit > 0 && self.pending.len() >= limit {
            self.pending.retain(|_, sent| now.saturating_sub(*sent) <= PROBE_TIME);
            if self.pending.len() >= limit {
                log::warning!(
                    "<{address}>: not probed: {limit} address probes are under way (address_verify_pending_request_limit)"
                );
                return entry;
            }
        }
        if send(self.settings.sender.clone()) {
            self.pending.insert(key.clone(), now);
            // A failure that is not to be remembered leaves no entry without a result, either.
            if entry.updated != 0 || self.settings.remembers_failures {
                self.keep(&key, &Entry { probed: now, ..entry.clone() });
            }
        }
        entry
    }

    /// The result of a probe.
    fn update(&mut self, address: &Address, standing: Standing, text: String, now: u64) {
        let key = key_of(address);
        self.pending.remove(&key);
        let times = self.settings.times;
        if self.kept(&key).is_none_or(|kept| kept.yields_to(standing, &times, now)) {
            self.keep(&key, &Entry { standing, probed: 0, updated: now, text });
        }
    }

    fn kept(&mut self, key: &str) -> Option<Entry> {
        let value = self.cache.get(key).unwrap_or_else(|error| {
            self.complain(&error);
            None
        });
        value.and_then(|value| Entry::from_value(&value))
    }

    fn keep(&mut self, key: &str, entry: &Entry) {
        if let Err(error) = self.cache.put(key, &entry.to_value()) {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|then| then.elapsed() > COMPLAINT) {
            log::warning!("address_verify_map: {error}; results are kept in memory meanwhile");
            self.complained = Some(Instant::now());
        }
    }

    fn clean_up_if_due(&mut self, now: u64) {
        let interval = self.settings.cleanup_interval;
        if interval.is_zero() || self.cleaned.elapsed() < interval {
            return;
        }
        self.cleaned = Instant::now();
        let times = self.settings.times;
        let result = self.cache.retain(|_, value| {
            Entry::from_value(value)
                .is_some_and(|entry| entry.awaits_probe(now) || !entry.is_expired(&times, now))
        });
        match result {
            Ok((left, dropped)) => {
                log::info!("cache {} full cleanup: retained={left} dropped={dropped} entries", self.table);
            }
            Err(error) => self.complain(&error),
        }
    }
}

/// Domains are the same in any letters; local parts are not told apart by them, either, as in Postfix.
fn key_of(address: &Address) -> String {
    lookup::fold(address.as_str()).into_owned()
}

/// Submits probes, one after the other: each is on disk before the next, which is pace enough.
fn submit(cleanup: &ipc::cleanup::Client, waiting: &Receiver<(Address, Sender)>) {
    for (address, sender) in waiting {
        if let Err(error) = probe::send(cleanup, &sender, &address) {
            log::warning!("<{address}>: send an address probe: {error}");
        }
    }
}

/// Serves a program of the suite until it closes.
pub(crate) fn serve(server: &Server, connection: &Connection) {
    let Stream::Unix(socket) = connection.stream.as_ref() else {
        log::warning!("verify is a service for programs of this host; use type unix for it in master.cf");
        return;
    };
    let mut receiver = frame::Receiver::new();
    let result = (|| -> io::Result<()> {
        while let Some(request) = receiver.next_message::<Request>(socket)? {
            frame::send(socket, &server.answer(request), None)?;
            receiver.release();
        }
        Ok(())
    })();
    match result {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            log::warning!("client of verify: {error}");
        }
        Err(error) => service::tell_own_trouble(&"a client of verify", &error),
        Ok(()) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(main_cf: &str) -> State {
        let main_cf = format!("compatibility_level = 3.6\naddress_verify_map =\n{main_cf}");
        let snapshot = config::Snapshot { main_cf: main_cf.into_bytes(), master_cf: Vec::new() };
        let config = Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]).unwrap().0;
        State {
            cache: Arc::new(Cache::named("address_verify_map", "").unwrap()),
            table: String::new(),
            settings: Settings::new(&config).unwrap(),
            pending: HashMap::new(),
            cleaned: Instant::now(),
            complained: None,
        }
    }

    /// The standing, and whether a probe was sent.
    fn ask(state: &mut State, address: &str, now: u64) -> (Standing, bool) {
        let mut sent = false;
        let entry = state.query(&Address::new(address).unwrap(), now, |_| {
            sent = true;
            true
        });
        (entry.standing, sent)
    }

    fn tell(state: &mut State, address: &str, standing: Standing, now: u64) {
        state.update(&Address::new(address).unwrap(), standing, "why".into(), now);
    }

    #[test]
    fn one_probe_answers_all_who_ask() {
        let (mut state, now) = (state(""), 1_000_000);
        assert_eq!(ask(&mut state, "a@b", now), (Standing::Pending, true));
        assert_eq!(ask(&mut state, "A@B", now + 1), (Standing::Pending, false));
        tell(&mut state, "a@b", Standing::Undeliverable, now + 2);
        assert_eq!(ask(&mut state, "a@b", now + 3), (Standing::Undeliverable, false));
        // After three hours it still counts, but is looked at again.
        assert_eq!(ask(&mut state, "a@b", now + 11_000), (Standing::Undeliverable, true));
        assert_eq!(ask(&mut state, "a@b", now + 11_001), (Standing::Undeliverable, false));
        tell(&mut state, "a@b", Standing::Deliverable, now + 11_002);
        assert_eq!(ask(&mut state, "a@b", now + 11_003), (Standing::Deliverable, false));
        // After a month nothing is known.
        assert_eq!(ask(&mut state, "a@b", now + 3_000_000), (Standing::Pending, true));
    }

    #[test]
    fn failures_are_not_remembered_where_that_is_not_wanted() {
        let (mut state, now) = (state("address_verify_negative_cache = no\n"), 1_000_000);
        assert_eq!(ask(&mut state, "a@b", now), (Standing::Pending, true));
        assert_eq!(ask(&mut state, "a@b", now + 1), (Standing::Pending, false));
        assert!(state.kept("a@b").is_none());
        // Those who wait for the probe hear of it; who asks later has another one sent.
        tell(&mut state, "a@b", Standing::Undeliverable, now + 2);
        assert_eq!(ask(&mut state, "a@b", now + 5), (Standing::Undeliverable, false));
        assert_eq!(ask(&mut state, "a@b", now + 100), (Standing::Pending, true));
    }

    #[test]
    fn probes_have_a_limit() {
        let (mut state, now) = (state("address_verify_pending_request_limit = 2\n"), 1_000_000);
        assert!(ask(&mut state, "a@b", now).1 && ask(&mut state, "b@b", now).1);
        assert!(!ask(&mut state, "c@b", now).1);
        tell(&mut state, "a@b", Standing::Deliverable, now);
        assert!(ask(&mut state, "c@b", now).1);
    }
}
