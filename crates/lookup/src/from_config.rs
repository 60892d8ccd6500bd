//! The searches and rules of this crate as a configuration asks for them. All that an operator can get wrong shows here,
//! before the first message.

use config::{Config, param};
use mail::Address;

use crate::address_search::AddressSearch;
use crate::canonical::{Canonical, Masquerade, Stage, Usages};
use crate::destination::{Destinations, DomainClasses, Settings};
use crate::domain::Parents;
use crate::expand::{ExpansionLimits, VirtualAliases};
use crate::interfaces::{Protocols, addresses};
use crate::local_domains::LocalDomains;
use crate::mapping::AddressMapping;
use crate::recipient_check::{RecipientCheck, RecipientMaps, RejectCodes};
use crate::resolve::{Resolver, RouteMaps, Target, Transports};
use crate::rewrite::Rewriter;
use crate::{Absorbed, Delimiters, Generic, Maps, MatchList, OpenError, Options};

impl Delimiters {
    /// The delimiters of this configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self::new(
            &config.get(param::RECIPIENT_DELIMITER),
            config.get(param::OWNER_REQUEST_SPECIAL),
            &config.get(param::DOUBLE_BOUNCE_SENDER),
        )
    }
}

impl Parents {
    /// How `feature` names subdomains in this configuration.
    #[must_use]
    pub fn from_config(config: &Config, feature: &str) -> Self {
        Self::of_feature(feature, &config.get(param::PARENT_DOMAIN_MATCHES_SUBDOMAINS))
    }
}

impl MatchList {
    /// `mynetworks`.
    ///
    /// # Errors
    /// An item that can never work.
    pub fn mynetworks(config: &Config) -> Result<Self, OpenError> {
        Self::hosts("mynetworks", &config.get(param::MYNETWORKS), Parents::from_config(config, "mynetworks"))
    }

    /// `fast_flush_domains`: the domains whose mail may be asked for.
    ///
    /// # Errors
    /// An item that can never work.
    pub fn fast_flush_domains(config: &Config) -> Result<Self, OpenError> {
        let parents = Parents::from_config(config, "fast_flush_domains");
        Self::domains("fast_flush_domains", &config.get(param::FAST_FLUSH_DOMAINS), parents)
    }
}

impl LocalDomains {
    /// `mydestination`, `inet_interfaces` and `proxy_interfaces`.
    ///
    /// # Errors
    /// An item that can never work, or a host name among the interfaces that is not found.
    pub fn from_config(config: &Config) -> Result<Self, OpenError> {
        let destinations = MatchList::strings("mydestination", &config.get(param::MYDESTINATION))?;
        let protocols = Protocols::new(&config.get(param::INET_PROTOCOLS));
        let mut own = addresses("inet_interfaces", &config.get(param::INET_INTERFACES), protocols)?;
        own.extend(addresses("proxy_interfaces", &config.get(param::PROXY_INTERFACES), protocols)?);
        Ok(Self::new(destinations, own))
    }
}

impl AddressSearch {
    /// The searches of this configuration.
    ///
    /// # Errors
    /// As [`LocalDomains::from_config`].
    pub fn from_config(config: &Config) -> Result<Self, OpenError> {
        let delimiters = Delimiters::from_config(config);
        Ok(Self::new(delimiters, &config.get(param::MYORIGIN), LocalDomains::from_config(config)?))
    }
}

impl Rewriter {
    /// The rules of this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            swap_bangpath: config.get(param::SWAP_BANGPATH),
            allow_percent_hack: config.get(param::ALLOW_PERCENT_HACK),
            append_at_myorigin: config.get(param::APPEND_AT_MYORIGIN),
            append_dot_mydomain: config.get(param::APPEND_DOT_MYDOMAIN),
            myorigin: config.get(param::MYORIGIN).into(),
            mydomain: config.get(param::MYDOMAIN).into(),
            remote_header_rewrite_domain: config.get(param::REMOTE_HEADER_REWRITE_DOMAIN).into(),
        }
    }
}

impl Destinations {
    /// The classes of domains of this configuration.
    ///
    /// # Errors
    /// An item of a list that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let domains = DomainClasses {
            virtual_alias: MatchList::strings(
                "virtual_alias_domains",
                &config.get(param::VIRTUAL_ALIAS_DOMAINS),
            )?,
            virtual_mailbox: MatchList::strings(
                "virtual_mailbox_domains",
                &config.get(param::VIRTUAL_MAILBOX_DOMAINS),
            )?,
            relay: MatchList::domains(
                "relay_domains",
                &config.get(param::RELAY_DOMAINS),
                Parents::from_config(config, "relay_domains"),
            )?,
        };
        let settings = Settings {
            myhostname: config.get(param::MYHOSTNAME).into(),
            empty_address_recipient: config.get(param::EMPTY_ADDRESS_RECIPIENT).into(),
            resolve_dequoted_address: config.get(param::RESOLVE_DEQUOTED_ADDRESS),
            resolve_null_domain: config.get(param::RESOLVE_NULL_DOMAIN),
            resolve_numeric_domain: config.get(param::RESOLVE_NUMERIC_DOMAIN),
            allow_min_user: config.get(param::ALLOW_MIN_USER),
        };
        let search = AddressSearch::from_config(config)?;
        Ok(Self { search, rewriter: Rewriter::new(config), domains, settings })
    }
}

impl Resolver {
    /// The routes of this configuration.
    ///
    /// # Errors
    /// A parameter that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let target =
            |parameter: config::Param<String>| Target::of_parameter(parameter.name(), &config.get(parameter));
        let null_key = |parameter: config::Param<String>| {
            Address::new(config.get(parameter))
                .map_err(|error| OpenError::Configuration(format!("{}: {error}", parameter.name())))
        };
        Ok(Self {
            destinations: Destinations::new(config)?,
            transports: Transports {
                local: target(param::LOCAL_TRANSPORT)?,
                virtual_mailbox: target(param::VIRTUAL_TRANSPORT)?,
                relay: target(param::RELAY_TRANSPORT)?,
                default: target(param::DEFAULT_TRANSPORT)?,
            },
            maps: RouteMaps {
                transport: maps_of_routes(config, param::TRANSPORT_MAPS)?,
                relocated: maps(config, param::RELOCATED_MAPS)?,
                sender_dependent_relayhost: maps_of_routes(config, param::SENDER_DEPENDENT_RELAYHOST_MAPS)?,
                sender_dependent_default_transport: maps_of_routes(
                    config,
                    param::SENDER_DEPENDENT_DEFAULT_TRANSPORT_MAPS,
                )?,
            },
            transport_parents: Parents::from_config(config, "transport_maps"),
            relayhost: Some(config.get(param::RELAYHOST)).filter(|host| !host.is_empty()).map(Into::into),
            show_user_unknown_table_name: config.get(param::SHOW_USER_UNKNOWN_TABLE_NAME),
            empty_address_relayhost_maps_lookup_key: null_key(
                param::EMPTY_ADDRESS_RELAYHOST_MAPS_LOOKUP_KEY,
            )?,
            empty_address_default_transport_maps_lookup_key: null_key(
                param::EMPTY_ADDRESS_DEFAULT_TRANSPORT_MAPS_LOOKUP_KEY,
            )?,
        })
    }
}

impl RecipientCheck {
    /// The lists of recipients of this configuration.
    ///
    /// # Errors
    /// A parameter that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let replaced = [param::RECIPIENT_CANONICAL_MAPS, param::CANONICAL_MAPS, param::VIRTUAL_ALIAS_MAPS];
        let replaced = replaced.into_iter().map(|list| maps(config, list)).collect::<Result<_, _>>()?;
        Ok(Self {
            resolver: Resolver::new(config)?,
            absorbed: Absorbed::from_config(config),
            maps: RecipientMaps {
                replaced,
                local: maps(config, param::LOCAL_RECIPIENT_MAPS)?,
                virtual_mailbox: maps(config, param::VIRTUAL_MAILBOX_MAPS)?,
                relay: maps(config, param::RELAY_RECIPIENT_MAPS)?,
            },
            reject_codes: RejectCodes {
                local: reply_code(config, param::UNKNOWN_LOCAL_RECIPIENT_REJECT_CODE),
                virtual_alias: reply_code(config, param::UNKNOWN_VIRTUAL_ALIAS_REJECT_CODE),
                virtual_mailbox: reply_code(config, param::UNKNOWN_VIRTUAL_MAILBOX_REJECT_CODE),
                relay: reply_code(config, param::UNKNOWN_RELAY_RECIPIENT_REJECT_CODE),
            },
            allow_untrusted_routing: config.get(param::ALLOW_UNTRUSTED_ROUTING),
            show_user_unknown_table_name: config.get(param::SHOW_USER_UNKNOWN_TABLE_NAME),
        })
    }
}

impl VirtualAliases {
    /// The virtual aliases of this configuration.
    ///
    /// # Errors
    /// A parameter that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let limit = |parameter| usize::try_from(config.get::<u64>(parameter)).unwrap_or(usize::MAX);
        Ok(Self {
            mapping: mapping(
                config,
                param::VIRTUAL_ALIAS_MAPS,
                &AddressSearch::from_config(config)?,
                "virtual",
            )?,
            limits: ExpansionLimits {
                recursion: limit(param::VIRTUAL_ALIAS_RECURSION_LIMIT),
                addresses: limit(param::VIRTUAL_ALIAS_EXPANSION_LIMIT),
                address_length: limit(param::VIRTUAL_ALIAS_ADDRESS_LENGTH_LIMIT),
            },
        })
    }
}

impl Canonical {
    /// The canonical tables of this configuration.
    ///
    /// # Errors
    /// A parameter that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let search = AddressSearch::from_config(config)?;
        let stage = |list: config::Param<Vec<String>>, classes: config::Param<Vec<String>>| {
            Ok(Stage {
                parameter: list.name(),
                mapping: mapping(config, list, &search, "canonical")?,
                usages: Usages::new(&config.get(classes)),
            })
        };
        Ok(Self {
            sender: stage(param::SENDER_CANONICAL_MAPS, param::SENDER_CANONICAL_CLASSES)?,
            recipient: stage(param::RECIPIENT_CANONICAL_MAPS, param::RECIPIENT_CANONICAL_CLASSES)?,
            both: stage(param::CANONICAL_MAPS, param::CANONICAL_CLASSES)?,
        })
    }
}

impl Masquerade {
    /// The masquerading of this configuration.
    ///
    /// # Errors
    /// A parameter that can never work.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        Ok(Self {
            domains: config.get(param::MASQUERADE_DOMAINS),
            exceptions: MatchList::strings(
                "masquerade_exceptions",
                &config.get(param::MASQUERADE_EXCEPTIONS),
            )?,
            usages: Usages::new(&config.get(param::MASQUERADE_CLASSES)),
        })
    }
}

impl Generic {
    /// The mapping in a list of tables: `smtp_generic_maps` or `lmtp_generic_maps`, whose value and name these are.
    ///
    /// # Errors
    /// A parameter that can never work.
    pub fn from_config(config: &Config, parameter: &str, specs: &[String]) -> Result<Self, OpenError> {
        if specs.is_empty() {
            return Ok(Self::new(None));
        }
        let maps = Maps::open(specs).map_err(|error| named(parameter, error))?;
        let propagating = config.get(param::PROPAGATE_UNMATCHED_EXTENSIONS);
        let propagate = propagating.iter().any(|name| name == "generic");
        let search = AddressSearch::from_config(config)?;
        Ok(Self::new(Some(AddressMapping::new(maps, search, Rewriter::new(config), propagate))))
    }
}

fn mapping(
    config: &Config,
    list: config::Param<Vec<String>>,
    search: &AddressSearch,
    feature: &str,
) -> Result<AddressMapping, OpenError> {
    let propagating = config.get(param::PROPAGATE_UNMATCHED_EXTENSIONS);
    let propagate = propagating.iter().any(|name| name == feature);
    Ok(AddressMapping::new(maps(config, list)?, search.clone(), Rewriter::new(config), propagate))
}

fn maps(config: &Config, list: config::Param<Vec<String>>) -> Result<Maps, OpenError> {
    maps_with(config, list, Options::default())
}

/// Tables whose values are transports and hosts: no part of an address gets into those.
fn maps_of_routes(config: &Config, list: config::Param<Vec<String>>) -> Result<Maps, OpenError> {
    maps_with(config, list, Options { substitute: false, ..Options::default() })
}

fn maps_with(config: &Config, list: config::Param<Vec<String>>, options: Options) -> Result<Maps, OpenError> {
    Maps::open_with(&config.get(list), options).map_err(|error| named(list.name(), error))
}

/// The same error, with the parameter that it is about.
fn named(parameter: &str, error: OpenError) -> OpenError {
    match error {
        OpenError::Configuration(text) => OpenError::Configuration(format!("{parameter}: {text}")),
        OpenError::Unavailable(text) => OpenError::Unavailable(format!("{parameter}: {text}")),
    }
}

/// A reply code; the table of parameters keeps it between 400 and 599.
fn reply_code(config: &Config, parameter: config::Param<u64>) -> u16 {
    u16::try_from(config.get(parameter)).unwrap_or(550)
}
