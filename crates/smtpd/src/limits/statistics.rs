//! The highest rates of clients, in the log: in Postfix's words and under the name of its program for them, anvil, where
//! log tools look for them. Ours need not run for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::{Config, param};
use ipc::log;
use jiff::Timestamp;

use super::rates::{Peak, Rates};

pub(super) struct Statistics {
    /// None where master.cf has no anvil: then nobody wants statistics.
    speaker: Option<Arc<str>>,
    every: Duration,
    logged: Mutex<Option<Instant>>,
}

impl Statistics {
    pub(super) fn new(config: &Config) -> Self {
        let is_wanted = config.services().iter().any(|entry| entry.command == "anvil");
        let speaker = is_wanted.then(|| format!("{}/anvil", config.get(param::SYSLOG_NAME)).into());
        Self { speaker, every: config.get(param::ANVIL_STATUS_UPDATE_TIME), logged: Mutex::default() }
    }

    /// Logs them every `anvil_status_update_time`, as long as somebody connects.
    pub(super) fn log_if_due(&self, rates: &Rates) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        match *logged {
            Some(then) if then.elapsed() < self.every => return,
            Some(_) => self.log(rates),
            None => {}
        }
        *logged = Some(Instant::now());
    }

    /// Logs them as they are.
    pub(super) fn log(&self, rates: &Rates) {
        let Some(speaker) = &self.speaker else { return };
        let before = log::speaker();
        log::speak_as(Some(Arc::clone(speaker)));
        let time_unit = rates.time_unit().as_secs();
        rates.take_peaks().iter().for_each(|peak| log::info!("{}", line(peak, time_unit)));
        log::speak_as(before);
    }
}

/// `statistics: max connection rate 3/60s for (smtp:192.0.2.1) at Nov 22 19:00:00`.
fn line(peak: &Peak, time_unit: u64) -> String {
    let Peak { what, value, ident, at } = peak;
    let value = if what.ends_with("rate") { format!("{value}/{time_unit}s") } else { value.to_string() };
    let at = i64::try_from(*at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default();
    let at = at.to_zoned(log::zone());
    format!("statistics: max {what} {value} for ({ident}) at {}", at.strftime("%b %e %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_that_of_postfix() {
        let peak = |what: &str| Peak { what: what.into(), value: 3, ident: "smtp:192.0.2.1".into(), at: 0 };
        let rate = line(&peak("connection rate"), 60);
        assert!(rate.starts_with("statistics: max connection rate 3/60s for (smtp:192.0.2.1) at "), "{rate}");
        let count = line(&peak("connection count"), 60);
        assert!(count.starts_with("statistics: max connection count 3 for (smtp:192.0.2.1) at "), "{count}");
    }
}
