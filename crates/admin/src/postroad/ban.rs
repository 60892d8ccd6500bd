//! `postroad ban`: who may not connect.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use config::{Config, Value, param};
use ipc::anvil::{Answer, Ban, Client, ClientNetwork, Request, read_bans};

use super::Failure;

/// What is to be done with the list of bans.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show who is banned, until when and why.
    List,
    /// Ban an address or a network.
    Add {
        /// As 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32.
        network: ClientNetwork,
        /// For how long, as 30m, 2h or 7d; without it, as long as smtpd_client_ban_time says.
        #[arg(long = "for", value_name = "TIME")]
        time: Option<String>,
        /// Why, for the log and the client.
        #[arg(default_value = "by the operator")]
        reason: Vec<String>,
    },
    /// Lift the ban of an address or a network.
    Remove {
        /// As the list shows it.
        network: ClientNetwork,
    },
}

pub(super) fn run(directory: &Path, action: Action) -> Result<Vec<String>, Failure> {
    let config = Config::load_readable(directory).map_err(|error| vec![error.to_string()])?;
    match action {
        Action::List => {
            let data_directory: PathBuf = config.get(param::DATA_DIRECTORY);
            let bans = read_bans(&data_directory)
                .map_err(|e| vec![format!("read {}: {e}", data_directory.display())])?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            Ok(bans.iter().filter(|ban| ban.until > now).map(line).collect())
        }
        Action::Add { network, time, reason } => {
            let seconds = time.map(|time| seconds(&time)).transpose()?;
            ask(&config, &Request::Ban(network, seconds, reason.join(" ")))?;
            Ok(vec![format!("{network} is banned")])
        }
        Action::Remove { network } => {
            ask(&config, &Request::Unban(network))?;
            Ok(vec![format!("{network} is no longer banned")])
        }
    }
}

fn line(ban: &Ban) -> String {
    let until = i64::try_from(ban.until).ok().and_then(|until| jiff::Timestamp::from_second(until).ok());
    let until = until.map_or_else(
        || "ever".to_owned(),
        |until| until.to_zoned(ipc::log::zone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    format!("{:<24} until {until}  {}", ban.network.to_string(), ban.reason)
}

fn seconds(time: &str) -> Result<u64, Failure> {
    let row = param::SMTPD_CLIENT_BAN_TIME.row();
    std::time::Duration::parse(time, &row)
        .map(|time| time.as_secs())
        .map_err(|e| vec![format!("{time}: {e}")])
}

fn ask(config: &Config, request: &Request) -> Result<(), Failure> {
    let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let socket = ipc::socket_path(&queue_directory, true, "anvil");
    match Client::new(socket).ask(request) {
        Ok(Answer::Refused(why)) => Err(vec![why]),
        Ok(_) => Ok(()),
        Err(error) => Err(vec![format!("{error}; is the mail system running, and anvil in master.cf?")]),
    }
}
