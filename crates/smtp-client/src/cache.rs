//! Sessions that are kept for the next message: `smtp_connection_cache_…`.
//!
//! A session is kept in this process, with its encryption. It is found again by the destination it was made for, before
//! anything is looked up, and by the address of its server. Whoever asks must ask for the same: the same next hop, the
//! same policy of TLS, the same login.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use net::tls::client::Policy;

use crate::conversation::Conversation;
use crate::settings::CacheSettings;

/// The most sessions that are kept; the oldest makes room.
const MAX_IDLE: usize = 200;

/// The most destinations whose last delivery is remembered.
const MAX_RECENT: usize = 1000;

/// What a session can be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The next hop as it is written.
    pub(crate) destination: String,
    /// What a session must have in common with it to serve, whatever next hop it was made for.
    pub(crate) identity: Identity,
}

/// Whom the server knows this host as, and what was asked of its TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What its login was looked up by; empty where there is none.
    pub(crate) login: String,
    /// The name of the next hop, where the certificate may have to have that; empty otherwise.
    pub(crate) nexthop: String,
    pub(crate) policy: Policy,
}

/// Where a session is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sought<'a> {
    /// At one of the best servers of this destination.
    Best(&'a Key),
    /// At this server: `host[address]:port`.
    Server(&'a Key, &'a str),
}

/// The sessions.
pub(crate) struct Cache {
    settings: CacheSettings,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    idle: VecDeque<Idle>,
    /// Destinations that mail went to, the latest last: mail comes in bursts, and only who comes again is waited for.
    recent: VecDeque<(String, Instant)>,
    /// A thread ends sessions whose time is over.
    reaped: bool,
    /// When it looks next by itself. All sessions are kept for the same time, so that it need not hear of each.
    looks_at: Option<Instant>,
}

struct Idle {
    key: Key,
    conversation: Conversation,
    until: Instant,
}

impl Cache {
    pub(crate) fn new(settings: CacheSettings) -> Self {
        Self { settings, shared: Arc::default() }
    }

    /// A session that may be used again.
    pub(crate) fn take(&self, sought: Sought<'_>) -> Option<Conversation> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        // The one that was used last has the best chance to be alive.
        let found = state.idle.iter().rposition(|idle| {
            idle.until > now
                && match sought {
                    Sought::Best(key) => idle.key == *key && idle.conversation.is_best,
                    Sought::Server(key, server) => {
                        idle.key.identity == key.identity && idle.conversation.server.with_port() == server
                    }
                }
        });
        found.and_then(|found| state.idle.remove(found)).map(|idle| idle.conversation)
    }

    /// Notes that mail goes to a destination; says whether sessions with it are worth keeping.
    pub(crate) fn note(&self, destination: &str, always: bool) -> bool {
        let settings = &self.settings;
        if settings.time_limit.is_zero() || !(always || settings.on_demand) {
            return false;
        }
        let mut state = self.shared.lock();
        let now = Instant::now();
        while state.recent.front().is_some_and(|(_, at)| now.duration_since(*at) > settings.time_limit) {
            state.recent.pop_front();
        }
        let known = state.recent.iter().position(|(name, _)| name == destination);
        if let Some(known) = known {
            state.recent.remove(known);
        } else if state.recent.len() >= MAX_RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back((destination.to_owned(), now));
        always || known.is_some()
    }

    /// Whether a session is not too old for another delivery.
    fn is_fit(&self, conversation: &Conversation) -> bool {
        let limit = self.settings.reuse_count_limit;
        !conversation.spoiled
            && conversation.session.is_open()
            && conversation.began.elapsed() < self.settings.reuse_time_limit
            && (limit == 0 || conversation.uses <= limit)
    }

    /// Keeps a session, or gives it back where it is not fit to be kept.
    pub(crate) fn keep(&self, key: Key, conversation: Conversation) -> Result<(), Box<Conversation>> {
        if !self.is_fit(&conversation) {
            return Err(Box::new(conversation));
        }
        let mut state = self.shared.lock();
        if !state.reaped {
            let shared = Arc::clone(&self.shared);
            let reaper = std::thread::Builder::new().name("idle".into()).stack_size(256 * 1024);
            if reaper.spawn(move || shared.reap()).is_err() {
                return Err(Box::new(conversation));
            }
            state.reaped = true;
        }
        let oldest = if state.idle.len() >= MAX_IDLE { state.idle.pop_front() } else { None };
        let until = Instant::now() + self.settings.time_limit;
        state.idle.push_back(Idle { key, conversation, until });
        if state.looks_at.is_none_or(|time| time > until) {
            state.looks_at = Some(until);
            self.shared.changed.notify_one();
        }
        drop(state);
        if let Some(oldest) = oldest {
            oldest.conversation.quit(false);
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life: ends sessions whose time is over.
    fn reap(&self) {
        const NEVER: Duration = Duration::from_secs(3600);
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            while state.idle.front().is_some_and(|idle| idle.until <= now) {
                if let Some(idle) = state.idle.pop_front() {
                    drop(state);
                    idle.conversation.quit(false);
                    state = self.lock();
                }
            }
            state.looks_at = state.idle.front().map(|idle| idle.until);
            let next = state.looks_at.map_or(NEVER, |time| time.saturating_duration_since(now));
            let waited = self.changed.wait_timeout(state, next);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
