//! The parameters of the screening.

use std::sync::Arc;
use std::time::Duration;

use config::{Config, Param, param};
use ipc::log;
use lookup::domain::Parents;
use lookup::{Cache, Maps, MatchList, OpenError};
use net::tls::server::Level;
use smtp_proto::parameter::Extensions;

use super::access::AccessList;
use super::block_lists::BlockLists;
use crate::session::site::Site;

/// What happens to a client that fails a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing, but it is tested again the next time.
    Ignore,
    /// It is told at each recipient.
    Enforce,
    /// It is told at once.
    Drop,
}

impl Action {
    fn named(name: &str, word: &str) -> Result<Self, OpenError> {
        match word.trim().to_ascii_lowercase().as_str() {
            "ignore" | "continue" => Ok(Self::Ignore),
            "enforce" => Ok(Self::Enforce),
            "drop" => Ok(Self::Drop),
            _ => {
                Err(OpenError::Configuration(format!("{name} = {word}: it must be ignore, enforce or drop")))
            }
        }
    }
}

/// The parameters of the screening.
pub(super) struct Settings {
    pub(super) access: AccessList,
    pub(super) denylist_action: Action,
    pub(super) own_addresses: MatchList,
    pub(super) greet_action: Action,
    /// Sent at once, so that clients which do not read the whole greeting begin to speak. Empty for no test.
    pub(super) greet_banner: String,
    pub(super) greet_wait: Pace,
    pub(super) greet_ttl: Duration,
    pub(super) block_lists: BlockLists,
    pub(super) block_list_action: Action,
    pub(super) block_list_timeout: Duration,
    pub(super) threshold: i32,
    /// Below zero: a score that makes further tests needless.
    pub(super) allow_threshold: i32,
    pub(super) cache: Cache,
    pub(super) cache_name: String,
    pub(super) cache_retention: Duration,
    pub(super) cache_cleanup: Duration,
    pub(super) count_limit: usize,
    pub(super) pre_queue_limit: usize,
    pub(super) post_queue_limit: usize,
    pub(super) command_count_limit: usize,
    pub(super) command_time_limit: Pace,
    pub(super) line_length_limit: usize,
    pub(super) proxy_timeout: Option<Duration>,
    pub(super) hostname: String,
    pub(super) greeting: String,
    pub(super) size_limit: u64,
    pub(super) helo_required: bool,
    pub(super) disable_vrfy: bool,
    /// Nothing but a greeting goes without TLS.
    pub(super) must_encrypt: bool,
    /// What a client hears besides, and what it says is taken for.
    pub(super) site: Arc<Site>,
    offered: Extensions,
    discard_keywords: Vec<String>,
    discard_keyword_maps: Maps,
    pub(super) soft_bounce: bool,
    /// `ALLOW` and `DENY`, or what these words were.
    pub(super) words: (&'static str, &'static str),
    /// `syslog_name`
    pub(super) syslog_name: String,
}

/// A time that is shorter while there are many clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    calm: Duration,
    stressed: Duration,
}

impl Pace {
    fn new(config: &Config, parameter: Param<Duration>) -> Self {
        let stressed = config.with(param::STRESS, "yes");
        Self { calm: config.get(parameter), stressed: stressed.get(parameter) }
    }

    pub(super) const fn with(self, stress: bool) -> Duration {
        if stress { self.stressed } else { self.calm }
    }
}

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        let action = |name: &str| Action::named(name, &config.text(name).unwrap_or_default());
        let number =
            |parameter: Param<u64>| usize::try_from(config.get::<u64>(parameter)).unwrap_or(usize::MAX);
        let score = |name: &str| {
            let text = config.text(name).unwrap_or_default();
            let wrong = |_| OpenError::Configuration(format!("{name} = {text}: it must be a whole number"));
            text.trim().parse::<i32>().map_err(wrong)
        };
        let interfaces: Vec<String> = config.get(param::POSTSCREEN_ALLOWLIST_INTERFACES);
        let cache_name: String = config.get(param::POSTSCREEN_CACHE_MAP);
        let proxy: String = config.get(param::POSTSCREEN_UPSTREAM_PROXY_PROTOCOL);
        if !matches!(proxy.as_str(), "" | "haproxy") {
            let text = format!("postscreen_upstream_proxy_protocol = {proxy}: it must be haproxy or empty");
            return Err(OpenError::Configuration(text));
        }
        let level = Level::of(config, "postscreen").map_err(OpenError::Configuration)?;
        Ok(Self {
            access: AccessList::new(config)?,
            denylist_action: action("postscreen_denylist_action")?,
            own_addresses: MatchList::hosts(
                "postscreen_allowlist_interfaces",
                &interfaces,
                Parents::from_config(config, "postscreen_allowlist_interfaces"),
            )?,
            greet_action: action("postscreen_greet_action")?,
            greet_banner: config.get(param::POSTSCREEN_GREET_BANNER),
            greet_wait: Pace::new(config, param::POSTSCREEN_GREET_WAIT),
            greet_ttl: config.get(param::POSTSCREEN_GREET_TTL),
            block_lists: BlockLists::new(config)?,
            block_list_action: action("postscreen_dnsbl_action")?,
            block_list_timeout: config.get(param::POSTSCREEN_DNSBL_TIMEOUT),
            threshold: score("postscreen_dnsbl_threshold")?,
            allow_threshold: score("postscreen_dnsbl_allowlist_threshold")?,
            cache: Cache::named("postscreen_cache_map", &cache_name)?,
            cache_name,
            cache_retention: config.get(param::POSTSCREEN_CACHE_RETENTION_TIME),
            cache_cleanup: config.get(param::POSTSCREEN_CACHE_CLEANUP_INTERVAL),
            count_limit: number(param::POSTSCREEN_CLIENT_CONNECTION_COUNT_LIMIT),
            pre_queue_limit: number(param::POSTSCREEN_PRE_QUEUE_LIMIT),
            post_queue_limit: number(param::POSTSCREEN_POST_QUEUE_LIMIT),
            command_count_limit: number(param::POSTSCREEN_COMMAND_COUNT_LIMIT),
            command_time_limit: Pace::new(config, param::POSTSCREEN_COMMAND_TIME_LIMIT),
            line_length_limit: number(param::LINE_LENGTH_LIMIT).max(512),
            proxy_timeout: (!proxy.is_empty()).then(|| config.get(param::POSTSCREEN_UPSTREAM_PROXY_TIMEOUT)),
            hostname: config.get(param::MYHOSTNAME),
            greeting: config.get(param::SMTPD_BANNER),
            size_limit: config.get(param::MESSAGE_SIZE_LIMIT),
            helo_required: config.get(param::POSTSCREEN_HELO_REQUIRED),
            disable_vrfy: config.get(param::POSTSCREEN_DISABLE_VRFY_COMMAND),
            must_encrypt: level == Level::Encrypt,
            site: Arc::new(Site::of_screening(config)?),
            offered: offered(config, level),
            discard_keywords: config.get(param::POSTSCREEN_DISCARD_EHLO_KEYWORDS),
            discard_keyword_maps: Maps::open(
                &config.get(param::POSTSCREEN_DISCARD_EHLO_KEYWORD_ADDRESS_MAPS),
            )?,
            soft_bounce: config.get(param::SOFT_BOUNCE),
            words: if config.get(param::RESPECTFUL_LOGGING) { ("ALLOW", "DENY") } else { ("WHITE", "BLACK") },
            syslog_name: config.get(param::SYSLOG_NAME),
        })
    }

    /// What is offered to the client at this address. A table that cannot be asked keeps nothing from it.
    pub(super) fn offered_to(&self, address: &str) -> Extensions {
        let mapped = self.discard_keyword_maps.get(address).unwrap_or_else(|error| {
            log::warning!("postscreen_discard_ehlo_keyword_address_maps: {error}");
            None
        });
        let mapped = mapped.map(|value| config::split_list(&value));
        let keywords = mapped.as_deref().unwrap_or(&self.discard_keywords);
        let discarded = keywords.iter().filter_map(|word| Extensions::from_keyword(word));
        discarded.fold(self.offered, Extensions::without)
    }
}

/// What anybody may be offered.
fn offered(config: &Config, level: Level) -> Extensions {
    let mut offered = Extensions::ALL_PLAIN;
    if level != Level::None {
        offered = offered.and(Extensions::STARTTLS);
    }
    if config.get(param::SMTPUTF8_ENABLE) { offered } else { offered.without(Extensions::SMTPUTF8) }
}
