//! Sessions that may be resumed, in memory: for each server and policy its own, so that none is resumed under another policy.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;

/// The most servers that are remembered, and tickets of each: a ticket is used once.
const MAX_SERVERS: usize = 1000;
const MAX_TICKETS: usize = 4;

/// The sessions with all servers.
pub(super) struct Sessions {
    lifetime: Duration,
    servers: Mutex<HashMap<String, Server>>,
}

#[derive(Default)]
struct Server {
    tls12: Option<(Instant, Tls12ClientSessionValue)>,
    tls13: VecDeque<(Instant, Tls13ClientSessionValue)>,
    group: Option<NamedGroup>,
    touched: Option<Instant>,
}

impl Sessions {
    pub(super) fn new(lifetime: Duration) -> Arc<Self> {
        Arc::new(Self { lifetime, servers: Mutex::default() })
    }

    /// The part of them under this key.
    pub(super) fn of(self: &Arc<Self>, key: String) -> Arc<dyn ClientSessionStore> {
        Arc::new(Part { key, sessions: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_alive(&self, since: Instant) -> bool {
        since.elapsed() < self.lifetime
    }

    fn change(&self, key: &str, change: impl FnOnce(&mut Server)) {
        let mut servers = self.lock();
        if !servers.contains_key(key) && servers.len() >= MAX_SERVERS {
            servers.retain(|_, server| server.touched.is_some_and(|touched| self.is_alive(touched)));
            let oldest = servers.iter().min_by_key(|(_, server)| server.touched).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| servers.len() >= MAX_SERVERS) {
                servers.remove(&oldest);
            }
        }
        let server = servers.entry(key.to_owned()).or_default();
        server.touched = Some(Instant::now());
        change(server);
    }
}

/// What rustls sees: one server, whatever name it is asked for.
struct Part {
    key: String,
    sessions: Arc<Sessions>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("key", &self.key).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Part {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.sessions.change(&self.key, |server| server.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.lock().get(&self.key)?.group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.sessions.change(&self.key, |server| server.tls12 = Some((Instant::now(), value)));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let servers = self.sessions.lock();
        let (since, value) = servers.get(&self.key)?.tls12.as_ref()?;
        self.sessions.is_alive(*since).then(|| value.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        if let Some(server) = self.sessions.lock().get_mut(&self.key) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.change(&self.key, |server| {
            server.tls13.push_back((Instant::now(), value));
            if server.tls13.len() > MAX_TICKETS {
                server.tls13.pop_front();
            }
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut servers = self.sessions.lock();
        let (since, value) = servers.get_mut(&self.key)?.tls13.pop_back()?;
        self.sessions.is_alive(since).then_some(value)
    }
}
