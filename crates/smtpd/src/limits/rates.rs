//! How many connections each client network holds, and how often it did what, within `anvil_rate_time_unit`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipc::anvil::ClientNetwork;

/// So many networks are kept before those are looked for that can be forgotten.
const SWEEP: usize = 1024;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Connection,
    Message,
    Recipient,
    NewTls,
    Auth,
}

impl Happening {
    pub(crate) const COUNT: usize = Self::Auth as usize + 1;

    /// In the statistics.
    pub(super) const fn statistic(self) -> &'static str {
        match self {
            Self::Connection => "connection rate",
            Self::Message => "message rate",
            Self::Recipient => "recipient rate",
            Self::NewTls => "newtls rate",
            Self::Auth => "auth rate",
        }
    }

    /// In the log, and in the reply.
    pub(super) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Connection => ("Connection", "too many connections"),
            Self::Message => ("Message delivery request", "too much mail"),
            Self::Recipient => ("Recipient address", "too many recipients"),
            Self::NewTls => ("New TLS session", "too many new TLS sessions"),
            Self::Auth => ("AUTH command", "too many AUTH commands"),
        }
    }
}

/// The counts of all networks.
#[derive(Debug)]
pub(super) struct Rates {
    time_unit: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    networks: HashMap<ClientNetwork, Counts>,
    sweep_at: usize,
    peaks: Vec<Peak>,
}

#[derive(Debug)]
struct Counts {
    connections: u32,
    began: Instant,
    rates: [u32; Happening::COUNT],
}

/// The highest value that a server has seen since it was last logged.
#[derive(Debug)]
pub(super) struct Peak {
    /// `connection rate`, `connection count`, `message rate` …
    pub(super) what: String,
    /// The value; for a rate, per `anvil_rate_time_unit`.
    pub(super) value: u64,
    /// `service:client`
    pub(super) ident: String,
    /// When it was, as seconds since the Unix epoch.
    pub(super) at: u64,
}

/// One connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    rates: Arc<Rates>,
    network: ClientNetwork,
    /// How many the network has, this one included.
    pub(super) number: u32,
    /// How many it has made within the time unit, this one included.
    pub(super) rate: u32,
}

impl Rates {
    pub(super) fn new(time_unit: Duration) -> Self {
        let state = State { networks: HashMap::new(), sweep_at: SWEEP, peaks: Vec::new() };
        Self { time_unit, state: Mutex::new(state) }
    }

    pub(super) const fn time_unit(&self) -> Duration {
        self.time_unit
    }

    /// Counts a connection from this network.
    pub(super) fn connect(rates: &Arc<Self>, network: ClientNetwork) -> Counted {
        let mut state = rates.lock();
        let counts = state.counts(network, rates.time_unit);
        counts.connections = counts.connections.saturating_add(1);
        let rate = increase(&mut counts.rates[Happening::Connection as usize]);
        let number = counts.connections;
        drop(state);
        Counted { rates: Arc::clone(rates), network, number, rate }
    }

    /// Counts something else; gives how often it was within the time unit.
    pub(super) fn add(&self, network: ClientNetwork, happening: Happening) -> u32 {
        increase(&mut self.lock().counts(network, self.time_unit).rates[happening as usize])
    }

    /// Remembers the highest value of a statistic.
    pub(super) fn peak(&self, what: &str, value: u32, ident: impl FnOnce() -> String) {
        let value = u64::from(value);
        let mut state = self.lock();
        let known = state.peaks.iter().position(|peak| peak.what == what);
        if known.is_some_and(|place| state.peaks[place].value >= value) {
            return;
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let peak = Peak { what: what.to_owned(), value, ident: ident(), at };
        match known {
            Some(place) => state.peaks[place] = peak,
            None => state.peaks.push(peak),
        }
    }

    /// The highest values since they were last taken.
    pub(super) fn take_peaks(&self) -> Vec<Peak> {
        std::mem::take(&mut self.lock().peaks)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The counts of a network, from zero if their time is over.
    fn counts(&mut self, network: ClientNetwork, time_unit: Duration) -> &mut Counts {
        let now = Instant::now();
        if self.networks.len() >= self.sweep_at {
            self.networks
                .retain(|_, counts| counts.connections > 0 || now.duration_since(counts.began) < time_unit);
            self.sweep_at = (self.networks.len() * 2).max(SWEEP);
        }
        let fresh = || Counts { connections: 0, began: now, rates: [0; Happening::COUNT] };
        let counts = self.networks.entry(network).or_insert_with(fresh);
        if now.duration_since(counts.began) >= time_unit {
            (counts.began, counts.rates) = (now, [0; Happening::COUNT]);
        }
        counts
    }
}

fn increase(count: &mut u32) -> u32 {
    *count = count.saturating_add(1);
    *count
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.rates.lock();
        if let Some(counts) = state.networks.get_mut(&self.network) {
            counts.connections = counts.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_while_they_last_and_rates_longer() {
        let rates = Arc::new(Rates::new(Duration::from_secs(3600)));
        let network = "192.0.2.0/24".parse().unwrap();
        let first = Rates::connect(&rates, network);
        assert_eq!((first.number, first.rate), (1, 1));
        let second = Rates::connect(&rates, network);
        assert_eq!((second.number, second.rate), (2, 2));
        drop(second);
        let third = Rates::connect(&rates, network);
        assert_eq!((third.number, third.rate), (2, 3));
        assert_eq!(rates.add(network, Happening::Message), 1);
        assert_eq!(rates.add(network, Happening::Message), 2);
        assert_eq!(rates.add("192.0.2.1".parse().unwrap(), Happening::Message), 1);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let rates = Arc::new(Rates::new(Duration::ZERO));
        for n in 0..10_000_u32 {
            let network = ClientNetwork::of(std::net::Ipv4Addr::from(n).into(), 32);
            assert_eq!(Rates::connect(&rates, network).rate, 1);
        }
        assert!(rates.lock().networks.len() <= SWEEP);
    }

    #[test]
    fn the_highest_value_is_remembered_once() {
        let rates = Rates::new(Duration::from_secs(1));
        for value in [3, 7, 5] {
            rates.peak("connection rate", value, || format!("smtp:{value}"));
        }
        let peaks = rates.take_peaks();
        assert_eq!((peaks.len(), peaks[0].value, peaks[0].ident.as_str()), (1, 7, "smtp:7"));
        assert!(rates.take_peaks().is_empty());
    }
}
