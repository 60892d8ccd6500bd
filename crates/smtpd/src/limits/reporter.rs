//! What anvil is told without anybody waiting for it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipc::anvil::{Client as Anvil, ClientNetwork, Offence, Request};
use ipc::log;

/// So much may wait to be told; what is more is not told: an attack must not cost memory.
const MAX_WAITING: usize = 1024;

/// How often it is logged that anvil cannot be reached.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The way to anvil; the thread behind it, and anvil itself, are started with the first word.
pub(super) struct Reporter {
    anvil: Arc<Anvil>,
    sender: Mutex<Option<SyncSender<Request>>>,
}

impl Reporter {
    pub(super) fn new(anvil: Arc<Anvil>) -> Self {
        Self { anvil, sender: Mutex::default() }
    }

    /// A client did what it should not do often.
    pub(super) fn offended(&self, network: ClientNetwork, offence: Offence) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            let (told, requests) = sync_channel(MAX_WAITING);
            let anvil = Arc::clone(&self.anvil);
            let thread = std::thread::Builder::new().name("anvil".into());
            match thread.spawn(move || tell(&anvil, &requests)) {
                Ok(_) => *sender = Some(told),
                Err(error) => return log::warning!("start the thread that talks to anvil: {error}"),
            }
        }
        // What finds no room is not told.
        let _ = sender.as_ref().map(|sender| sender.try_send(Request::Offended(network, offence)));
    }
}

fn tell(anvil: &Anvil, requests: &Receiver<Request>) {
    let mut complained: Option<Instant> = None;
    for request in requests {
        if let Err(error) = anvil.tell(&request)
            && complained.is_none_or(|then| then.elapsed() > COMPLAINT)
        {
            log::warning!("anvil service: {error}; clients are not banned meanwhile");
            complained = Some(Instant::now());
        }
    }
}
