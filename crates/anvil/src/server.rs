//! Requests and their answers.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use config::{Config, param};
use ipc::anvil::{Answer, Ban, ClientNetwork, Offence, Request};
use ipc::frame::{self, Receiver};
use ipc::log;
use service::{Connection, Stream};

use crate::bans::Bans;
use crate::offences::{Offences, Rules};
use crate::users::Users;

/// All that is counted.
pub(crate) struct Server(Mutex<State>);

struct State {
    rules: Rules,
    ban_time: Duration,
    offences: Offences,
    users: Users,
    bans: Bans,
    /// When somebody last said something.
    heard: Instant,
}

impl Server {
    pub(crate) fn new(config: &Config) -> Self {
        let data_directory: PathBuf = config.get(param::DATA_DIRECTORY);
        let (bans, result) = Bans::open(data_directory);
        if let Err(error) = result {
            log::warning!("read the list of bans: {error}; it begins empty");
        }
        Self(Mutex::new(State {
            rules: Rules::new(config),
            ban_time: config.get(param::SMTPD_CLIENT_BAN_TIME),
            offences: Offences::default(),
            users: Users::default(),
            bans,
            heard: Instant::now(),
        }))
    }

    /// Goes on with another configuration; what was counted stays.
    pub(crate) fn configure(&self, config: &Config) {
        let mut state = self.lock();
        state.rules = Rules::new(config);
        state.ban_time = config.get(param::SMTPD_CLIENT_BAN_TIME);
    }

    /// Whether nothing was said for so long, and all that was counted is over.
    pub(crate) fn is_needless(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        let (now, within) = (Instant::now(), state.rules.within);
        now.duration_since(state.heard) >= patience
            && state.offences.are_over(within, now)
            && state.users.are_over(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a program of the suite until it closes.
    pub(crate) fn serve(&self, connection: &Connection) {
        let Stream::Unix(socket) = connection.stream.as_ref() else {
            log::warning!("anvil is a service for programs of this host; use type unix for it in master.cf");
            return;
        };
        let mut receiver = Receiver::new();
        let result = (|| -> io::Result<()> {
            while let Some(request) = receiver.next_message::<Request>(socket)? {
                if let Some(answer) = self.answer(request) {
                    frame::send(socket, &answer, None)?;
                }
                receiver.release();
            }
            Ok(())
        })();
        match result {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                log::warning!("anvil client: {error}");
            }
            Err(error) => service::tell_own_trouble(&"a client of anvil", &error),
            Ok(()) => {}
        }
    }

    fn answer(&self, request: Request) -> Option<Answer> {
        let mut state = self.lock();
        state.heard = Instant::now();
        match request {
            Request::Offended(network, offence) => {
                state.offended(network, offence);
                None
            }
            Request::Spend { user, messages, recipients, limits } => {
                Some(state.users.spend(&user, messages, recipients, &limits, Instant::now()))
            }
            Request::Ban(network, seconds, reason) => {
                let seconds = seconds.unwrap_or(state.ban_time.as_secs());
                Some(match state.ban(network, seconds, reason) {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Refused(error.to_string()),
                })
            }
            Request::Unban(network) => Some(match state.bans.remove(network) {
                Ok(true) => {
                    log::info!("unban {network}: lifted by the operator");
                    Answer::Done
                }
                Ok(false) => Answer::Refused(format!("{network} is not banned")),
                Err(error) => Answer::Refused(error.to_string()),
            }),
        }
    }
}

impl State {
    fn offended(&mut self, network: ClientNetwork, offence: Offence) {
        let now = seconds_now();
        for ban in self.bans.expire(now) {
            log::info!("unban {}: its time is over", ban.network);
        }
        if self.bans.contains(network, now) {
            return;
        }
        let reason = self.offences.count(&self.rules, network, offence, Instant::now());
        if let Some(reason) = reason
            && let Err(error) = self.ban(network, self.ban_time.as_secs(), reason)
        {
            log::warning!("ban {network}: {error}");
        }
    }

    fn ban(&mut self, network: ClientNetwork, seconds: u64, reason: String) -> io::Result<()> {
        let now = seconds_now();
        let ban = Ban { network, until: now.saturating_add(seconds), reason };
        self.bans.add(ban.clone(), now)?;
        log::info!("ban {network} for {seconds} seconds: {}", ban.reason);
        Ok(())
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Snapshot;
    use ipc::anvil::UserLimits;

    use super::*;

    #[test]
    fn it_is_needed_as_long_as_something_counts_or_somebody_speaks() {
        let folder = tempfile::tempdir().unwrap();
        let main_cf = format!(
            "compatibility_level = 3.6\ndata_directory = {}\nsmtpd_client_ban_failed_logins = 2\n",
            folder.path().display()
        );
        let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) = Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        let server = Server::new(&config);
        assert!(server.is_needless(Duration::ZERO) && !server.is_needless(Duration::from_secs(60)));
        let client = "192.0.2.1".parse().unwrap();
        server.answer(Request::Offended(client, Offence::FailedLogin));
        assert!(!server.is_needless(Duration::ZERO));
        // The ban itself is on disk.
        server.answer(Request::Offended(client, Offence::FailedLogin));
        assert!(server.is_needless(Duration::ZERO));
        let limits = UserLimits { messages_per_day: 9, ..UserLimits::default() };
        server.answer(Request::Spend { user: "ann".into(), messages: 1, recipients: 1, limits });
        assert!(!server.is_needless(Duration::ZERO));
    }
}
