//! What anvil is told without anybody waiting for it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipc::anvil::{Client as Anvil, ClientNetwork, Offence, Request};
use ipc::log;

use super::rates::Rates;

/// So much may wait to be told; what is more is not told: an attack must not cost memory.
const MAX_WAITING: usize = 1024;

/// How often it is logged that anvil cannot be reached.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The way to anvil; the thread behind it is made with the first word.
pub(super) struct Reporter {
    anvil: Arc<Anvil>,
    every: Duration,
    state: Mutex<State>,
}

struct State {
    sender: Option<SyncSender<Request>>,
    /// When the statistics were last told.
    told: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(anvil: Arc<Anvil>, every: Duration) -> Self {
        let state = State { sender: None, told: None };
        Self { anvil, every, state: Mutex::new(state) }
    }

    /// A client did what it should not do often.
    pub(super) fn offended(&self, network: ClientNetwork, offence: Offence) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tell(&self.anvil, Request::Offended(network, offence));
    }

    /// Tells the statistics every `anvil_status_update_time`, as long as somebody connects.
    pub(super) fn peaks_if_due(&self, rates: &Rates) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.told {
            Some(told) if told.elapsed() < self.every => return,
            Some(_) => state.tell(&self.anvil, peaks(rates)),
            // It is started when somebody speaks to it, which is too late when the mail system stops.
            None => state.tell(&self.anvil, Request::Peaks(Vec::new(), rates.time_unit().as_secs())),
        }
        state.told = Some(Instant::now());
    }

    /// Tells the statistics for the last time.
    pub(super) fn finish(&self, rates: &Rates) {
        let told = self.state.lock().unwrap_or_else(PoisonError::into_inner).told;
        if told.is_some() {
            // Where there is no anvil, nobody wants statistics. Where there is, it ends soon, too: it is waited for.
            let _ = self.anvil.ask(&peaks(rates));
        }
    }
}

fn peaks(rates: &Rates) -> Request {
    Request::Peaks(rates.take_peaks(), rates.time_unit().as_secs())
}

impl State {
    fn tell(&mut self, anvil: &Arc<Anvil>, request: Request) {
        if self.sender.is_none() {
            let (sender, requests) = sync_channel::<Request>(MAX_WAITING);
            let anvil = Arc::clone(anvil);
            let thread = std::thread::Builder::new().name("anvil".into()).spawn(move || {
                let mut complained: Option<Instant> = None;
                for request in requests {
                    let told = match &request {
                        Request::Offended(..) => anvil.tell(&request),
                        // Where there is no anvil, nobody wants statistics.
                        _ => {
                            let _ = anvil.ask(&request);
                            continue;
                        }
                    };
                    if let Err(error) = told
                        && complained.is_none_or(|then| then.elapsed() > COMPLAINT)
                    {
                        log::warning!("anvil service: {error}; clients are not banned meanwhile");
                        complained = Some(Instant::now());
                    }
                }
            });
            match thread {
                Ok(_) => self.sender = Some(sender),
                Err(error) => return log::warning!("start the thread that talks to anvil: {error}"),
            }
        }
        // What finds no room is not told.
        let _ = self.sender.as_ref().map(|sender| sender.try_send(request));
    }
}
