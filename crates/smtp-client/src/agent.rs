//! The program: what deliveries share, made of the configuration while this process may still read everything.

use config::param;
use ipc::agent::SiteFailure;
use ipc::log;
use lookup::{Generic, Maps, MatchList};
use net::dns::mail_hosts::HostFinder;
use net::tls::client::Context;
use service::DebugPeers;
use service::transcript::Notices;
use service::{Delivery, Fatal, Results, Service, SiteAgent};
use smtp_proto::client::Protocol;

use crate::cache::Cache;
use crate::content::Checks;
use crate::delivery::Attempt;
use crate::login::Logins;
use crate::settings::{Own, Settings};

/// All that deliveries share.
pub(crate) struct Client {
    pub(crate) settings: Settings,
    pub(crate) hosts: HostFinder,
    pub(crate) tls: Context,
    pub(crate) generic: Generic,
    pub(crate) checks: Checks,
    pub(crate) cache: Cache,
    /// `smtp_connection_cache_destinations`
    pub(crate) cache_always: MatchList,
    /// None where this program never logs in.
    pub(crate) logins: Option<Logins>,
    /// `smtp_reply_filter`
    pub(crate) reply_filter: Maps,
    /// `notify_classes`, and the way to the postmaster.
    pub(crate) notices: Notices,
    pub(crate) debug_peers: DebugPeers,
    pub(crate) cleanup: ipc::cleanup::Client,
    /// `smtp_discard_ehlo_keyword_address_maps`.
    pub(crate) discard_maps: Maps,
}

/// Serves the deliveries of this program.
pub(crate) fn run(service: Service, protocol: Protocol) -> Result<(), Fatal> {
    let client = Client::new(&service, protocol).map_err(Fatal::new)?;
    service.serve_site_deliveries(client)
}

impl Client {
    /// Reads the configuration and opens its tables, keys and certificates.
    ///
    /// # Errors
    /// What is wrong, beginning with the parameter.
    pub(crate) fn new(service: &Service, protocol: Protocol) -> Result<Self, String> {
        let config = &service.config;
        let own = Own { config, protocol };
        let hosts = match protocol {
            Protocol::Smtp => HostFinder::for_smtp(config),
            Protocol::Lmtp => HostFinder::for_lmtp(config),
        };
        let generic = own.get(param::SMTP_GENERIC_MAPS);
        let discard = match protocol {
            Protocol::Smtp => param::SMTP_DISCARD_EHLO_KEYWORD_ADDRESS_MAPS,
            Protocol::Lmtp => param::LMTP_DISCARD_LHLO_KEYWORD_ADDRESS_MAPS,
        };
        let settings = Settings::new(&own)?;
        let always = own.name(param::SMTP_CONNECTION_CACHE_DESTINATIONS);
        Ok(Self {
            cache: Cache::new(settings.cache.clone()),
            cache_always: MatchList::strings(&always, &settings.cache.destinations)
                .map_err(|error| error.to_string())?,
            settings,
            hosts: hosts.map_err(|error| error.to_string())?,
            tls: Context::new(config, own.prefix(), Some(service.opener()))?,
            generic: Generic::from_config(config, &own.name(param::SMTP_GENERIC_MAPS), &generic)
                .map_err(|error| error.to_string())?,
            checks: Checks::new(&own)?,
            logins: Logins::new(&own)?,
            notices: Notices::new(config).map_err(|error| error.to_string())?,
            debug_peers: DebugPeers::new(config).map_err(|error| error.to_string())?,
            cleanup: service.cleanup(),
            reply_filter: Maps::open(&config::split_list(&own.get(param::SMTP_REPLY_FILTER)))
                .map_err(|error| format!("{}: {error}", own.name(param::SMTP_REPLY_FILTER)))?,
            discard_maps: Maps::open(&config.get(discard))
                .map_err(|error| format!("{}: {error}", discard.name()))?,
        })
    }

    /// The keywords of this server's EHLO reply that are passed over.
    pub(crate) fn discarded_keywords(&self, address: Option<std::net::IpAddr>) -> Vec<String> {
        let Some(address) = address.filter(|_| !self.discard_maps.is_empty()) else {
            return self.settings.discard_keywords.clone();
        };
        match self.discard_maps.get(&address.to_string()) {
            Ok(Some(found)) => config::split_list(&found),
            Ok(None) => self.settings.discard_keywords.clone(),
            Err(error) => {
                log::warning!("{error}");
                self.settings.discard_keywords.clone()
            }
        }
    }
}

impl SiteAgent for Client {
    fn deliver(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        Attempt::new(self, delivery, results).run()
    }

    fn probe(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        // The request says that it is one: the message stops after its recipients.
        self.deliver(delivery, results)
    }
}
