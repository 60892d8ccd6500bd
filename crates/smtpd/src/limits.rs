//! What a client, and a user, may do how often: rates of client networks, bans, limits of authenticated users.
//!
//! Rates are counted in this process, which serves all sessions of its service: Postfix's rates hold for one service, too,
//! and a table in memory costs no question to another process. Bans and users are of the whole instance: anvil decides
//! about them. Nothing here waits for anvil but the limits of users, and those only where there are some.

mod bans;
mod quota;
mod rates;
mod reporter;
mod statistics;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use config::{Config, Param, param};
use ipc::anvil::{Client as Anvil, ClientNetwork, Offence};
use ipc::log;
use lookup::domain::Parents;
use lookup::{MatchList, OpenError};
use mail::Dsn;
use smtp_proto::Reply;

use crate::client::Client;
use bans::Bans;
pub(crate) use quota::Quota;
use rates::Rates;
pub(crate) use rates::{Counted, Happening};
use reporter::Reporter;
use statistics::Statistics;

/// All limits of a service.
pub(crate) struct Limits {
    /// The service's name in master.cf.
    service: String,
    hostname: String,
    rates: Arc<Rates>,
    count_limit: u32,
    /// In the order of [`Happening`].
    rate_limits: [u32; Happening::COUNT],
    exceptions: MatchList,
    prefixes: Prefixes,
    bans: Bans,
    ban_exceptions: MatchList,
    /// What anvil counts.
    punished: [(Offence, bool); 3],
    pub(crate) quota: Quota,
    reporter: Reporter,
    statistics: Statistics,
}

/// How long a network prefix is.
#[derive(Clone, Copy)]
struct Prefixes {
    v4: u8,
    v6: u8,
}

impl Limits {
    /// The limits of this configuration.
    ///
    /// # Errors
    /// A list or table that can never work.
    pub(crate) fn new(config: &Config, service: &str) -> Result<Self, OpenError> {
        let hosts = |name, parameter: Param<Vec<String>>| {
            MatchList::hosts(name, &config.get(parameter), Parents::from_config(config, name))
        };
        let number = |parameter: Param<u64>| u32::try_from(config.get(parameter)).unwrap_or(u32::MAX);
        let prefix = |parameter: Param<u64>| u8::try_from(config.get(parameter)).unwrap_or(128);
        let punishes = |parameter: Param<u64>| config.get(parameter) > 0;
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let anvil = Arc::new(Anvil::new(ipc::socket_path(&queue_directory, true, "anvil")));
        Ok(Self {
            service: service.to_owned(),
            hostname: config.get(param::MYHOSTNAME),
            rates: Arc::new(Rates::new(config.get(param::ANVIL_RATE_TIME_UNIT))),
            count_limit: number(param::SMTPD_CLIENT_CONNECTION_COUNT_LIMIT),
            rate_limits: [
                number(param::SMTPD_CLIENT_CONNECTION_RATE_LIMIT),
                number(param::SMTPD_CLIENT_MESSAGE_RATE_LIMIT),
                number(param::SMTPD_CLIENT_RECIPIENT_RATE_LIMIT),
                number(param::SMTPD_CLIENT_NEW_TLS_SESSION_RATE_LIMIT),
                number(param::SMTPD_CLIENT_AUTH_RATE_LIMIT),
            ],
            exceptions: hosts(
                "smtpd_client_event_limit_exceptions",
                param::SMTPD_CLIENT_EVENT_LIMIT_EXCEPTIONS,
            )?,
            prefixes: Prefixes {
                v4: prefix(param::SMTPD_CLIENT_IPV4_PREFIX_LENGTH),
                v6: prefix(param::SMTPD_CLIENT_IPV6_PREFIX_LENGTH),
            },
            bans: Bans::new(config.get(param::DATA_DIRECTORY)),
            ban_exceptions: hosts("smtpd_client_ban_exceptions", param::SMTPD_CLIENT_BAN_EXCEPTIONS)?,
            punished: [
                (Offence::FailedLogin, punishes(param::SMTPD_CLIENT_BAN_FAILED_LOGINS)),
                (Offence::UnknownRecipient, punishes(param::SMTPD_CLIENT_BAN_UNKNOWN_RECIPIENTS)),
                (Offence::ProtocolError, punishes(param::SMTPD_CLIENT_BAN_PROTOCOL_ERRORS)),
            ],
            quota: Quota::new(config, Arc::clone(&anvil))?,
            reporter: Reporter::new(anvil),
            statistics: Statistics::new(config),
        })
    }

    /// Why a client is not even listened to: it is banned.
    pub(crate) fn banned(&self, ip: IpAddr) -> Option<Reply> {
        let ip = ip.to_canonical();
        let ban = self.bans.of(ip)?;
        let text = format!("{} Error: {ip} is refused for a time: {}", self.hostname, ban.reason);
        Some(Reply::new(421, Dsn::new(4, 7, 0), text))
    }

    /// Counts a connection, until what is given is dropped.
    pub(crate) fn count(&self, client: &Client) -> Option<Counted> {
        let network = self.network(client)?;
        let limited = self.count_limit > 0 || self.rate_limits[0] > 0;
        let counted = Rates::connect(&self.rates, network);
        if limited {
            self.rates.peak("connection count", counted.number, || self.ident(client));
            self.rates.peak("connection rate", counted.rate, || self.ident(client));
            self.statistics.log_if_due(&self.rates);
        }
        Some(counted)
    }

    /// Why a client is sent away that has just connected.
    pub(crate) fn too_many_connections(&self, client: &Client, counted: &Counted) -> Option<Reply> {
        let (count, rate) = (counted.number, counted.rate);
        let too_many = self.count_limit > 0 && count > self.count_limit;
        let too_often = self.rate_limits[0] > 0 && rate > self.rate_limits[0];
        if !(too_many || too_often) || self.is_exempt(client) {
            return None;
        }
        let service = &self.service;
        if too_many {
            log::warning!(
                "Connection concurrency limit exceeded: {count} from {client} for service {service}"
            );
        } else {
            log::warning!("Connection rate limit exceeded: {rate} from {client} for service {service}");
        }
        let text = format!("{} Error: too many connections from {}", self.hostname, client.address);
        Some(Reply::new(421, Dsn::new(4, 7, 0), text))
    }

    /// Counts what a client does; the refusal, if that is too often. A client that speaks for others (`trusted`) is not
    /// counted.
    pub(crate) fn happened(&self, client: &Client, happening: Happening, trusted: bool) -> Option<Reply> {
        let limit = self.rate_limits[happening as usize];
        if limit == 0 || trusted {
            return None;
        }
        let rate = self.rates.add(self.network(client)?, happening);
        self.rates.peak(happening.statistic(), rate, || self.ident(client));
        if rate <= limit || self.is_exempt(client) {
            return None;
        }
        let (what, text) = happening.words();
        log::warning!("{what} rate limit exceeded: {rate} from {client} for service {}", self.service);
        let text = format!("Error: {text} from {}", client.address);
        Some(match happening {
            Happening::Connection | Happening::NewTls => {
                Reply::new(421, Dsn::new(4, 7, 0), format!("{} {text}", self.hostname))
            }
            _ => Reply::new(450, Dsn::new(4, 7, 1), text),
        })
    }

    /// A client did something that it should not do often. Never waits.
    pub(crate) fn offended(&self, client: &Client, offence: Offence) {
        let punished = self.punished.iter().any(|(kind, punished)| *kind == offence && *punished);
        let (true, Some(network)) = (punished, self.network(client)) else { return };
        if !matches(&self.ban_exceptions, client) {
            self.reporter.offended(network, offence);
        }
    }

    /// The last statistics, when the server ends.
    pub(crate) fn finish(&self) {
        self.statistics.log(&self.rates);
    }

    fn network(&self, client: &Client) -> Option<ClientNetwork> {
        client.ip.map(|ip| {
            let prefix = if ip.is_ipv6() { self.prefixes.v6 } else { self.prefixes.v4 };
            ClientNetwork::of(ip, prefix)
        })
    }

    fn ident(&self, client: &Client) -> String {
        let network = self.network(client).map_or_else(|| client.address.clone(), |n| n.to_string());
        format!("{}:{network}", self.service)
    }

    fn is_exempt(&self, client: &Client) -> bool {
        matches(&self.exceptions, client)
    }
}

/// A program of this host, on a UNIX socket, is in every list of hosts that are trusted; a list that cannot be asked has
/// nobody in it.
fn matches(list: &MatchList, client: &Client) -> bool {
    let Some(ip) = client.ip else { return client.on_unix_socket };
    list.matches_host(&client.name, ip).unwrap_or_else(|error| {
        log::warning!("{error}");
        false
    })
}
