//! What verbs ask: tables, and parameters that stand in replies.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use config::{Config, param};
use lookup::domain::Parents;
use lookup::interfaces::{self, Protocols};
use lookup::recipient_check::RecipientCheck;
use lookup::{LookupError, Maps, MatchList, OpenError, RewriteContext, Rewriter};
use mail::Address;

use super::dns_list::ListReplies;
use super::verification::Verification;
use crate::names::HostNames;
use crate::policy;

/// What verbs ask: tables, and parameters that stand in replies.
pub(super) struct Judge {
    pub(super) config: Config,
    pub(super) mynetworks: MatchList,
    pub(super) recipients: RecipientCheck,
    rewriter: Rewriter,
    /// How access tables name subdomains.
    pub(super) parents: Parents,
    pub(super) null_access_lookup_key: String,
    /// `smtpd_log_access_permit_actions`
    pub(super) logged_permissions: MatchList,
    pub(super) policy: policy::Services,
    pub(super) verification: Verification,
    pub(super) names: Arc<HostNames>,
    /// `inet_interfaces` and `proxy_interfaces`.
    pub(super) own_addresses: Vec<IpAddr>,
    /// `permit_mx_backup_networks`, if it is set.
    pub(super) mx_backup_networks: Option<MatchList>,
    pub(super) list_replies: ListReplies,
    /// `unknown_address_tempfail_action`
    pub(super) unknown_address_on_failure: OnFailure,
    /// `unknown_helo_hostname_tempfail_action`
    pub(super) unknown_helo_on_failure: OnFailure,
    pub(super) codes: Codes,
    /// `smtpd_sasl_auth_enable`
    pub(super) offers_login: bool,
    /// `smtpd_sender_login_maps`
    pub(super) sender_logins: Maps,
    /// `relay_clientcerts`
    pub(super) relay_certificates: Maps,
}

/// What becomes of a request that a verb cannot judge for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// It is put off at once.
    Defer,
    /// It is put off unless something refuses it.
    DeferIfPermit,
}

impl OnFailure {
    pub(super) fn new(action: &str) -> Self {
        if action.eq_ignore_ascii_case("defer") { Self::Defer } else { Self::DeferIfPermit }
    }
}

/// The reply codes that have parameters.
pub(super) struct Codes {
    pub(super) reject: u16,
    pub(super) defer: u16,
    pub(super) access_reject: u16,
    pub(super) access_defer: u16,
    pub(super) relay_domains: u16,
    pub(super) invalid_hostname: u16,
    pub(super) non_fqdn: u16,
    pub(super) multi_recipient_bounce: u16,
    pub(super) plaintext: u16,
    pub(super) unknown_client: u16,
    pub(super) unknown_hostname: u16,
    pub(super) unknown_address: u16,
}

impl Judge {
    pub(super) fn new(config: &Config, names: Arc<HostNames>) -> Result<Self, OpenError> {
        let backup_networks = config.get(param::PERMIT_MX_BACKUP_NETWORKS);
        let parents = |feature| Parents::from_config(config, feature);
        let backup_networks = MatchList::hosts(
            "permit_mx_backup_networks",
            &backup_networks,
            parents("permit_mx_backup_networks"),
        )
        .map(|list| (!backup_networks.is_empty()).then_some(list))?;
        let code = |parameter, default| u16::try_from(config.get::<u64>(parameter)).unwrap_or(default);
        Ok(Self {
            config: config.clone(),
            mynetworks: MatchList::mynetworks(config)?,
            recipients: RecipientCheck::new(config)?,
            rewriter: Rewriter::new(config),
            parents: parents("smtpd_access_maps"),
            null_access_lookup_key: config.get(param::SMTPD_NULL_ACCESS_LOOKUP_KEY),
            logged_permissions: MatchList::strings(
                "smtpd_log_access_permit_actions",
                &config.get(param::SMTPD_LOG_ACCESS_PERMIT_ACTIONS),
            )?,
            policy: policy::Services::new(config),
            verification: Verification::new(config),
            offers_login: config.get(param::SMTPD_SASL_AUTH_ENABLE),
            sender_logins: Maps::open(&config.get(param::SMTPD_SENDER_LOGIN_MAPS))?,
            names,
            own_addresses: own_addresses(config)?,
            mx_backup_networks: backup_networks,
            list_replies: ListReplies::new(config)?,
            unknown_address_on_failure: OnFailure::new(&config.get(param::UNKNOWN_ADDRESS_TEMPFAIL_ACTION)),
            unknown_helo_on_failure: OnFailure::new(
                &config.get(param::UNKNOWN_HELO_HOSTNAME_TEMPFAIL_ACTION),
            ),
            relay_certificates: Maps::open(&config.get(param::RELAY_CLIENTCERTS))?,
            codes: Codes {
                reject: code(param::REJECT_CODE, 554),
                defer: code(param::DEFER_CODE, 450),
                access_reject: code(param::ACCESS_MAP_REJECT_CODE, 554),
                access_defer: code(param::ACCESS_MAP_DEFER_CODE, 450),
                relay_domains: code(param::RELAY_DOMAINS_REJECT_CODE, 554),
                invalid_hostname: code(param::INVALID_HOSTNAME_REJECT_CODE, 501),
                non_fqdn: code(param::NON_FQDN_REJECT_CODE, 504),
                multi_recipient_bounce: code(param::MULTI_RECIPIENT_BOUNCE_REJECT_CODE, 550),
                plaintext: code(param::PLAINTEXT_REJECT_CODE, 450),
                unknown_client: code(param::UNKNOWN_CLIENT_REJECT_CODE, 450),
                unknown_hostname: code(param::UNKNOWN_HOSTNAME_REJECT_CODE, 450),
                unknown_address: code(param::UNKNOWN_ADDRESS_REJECT_CODE, 450),
            },
        })
    }
}

fn own_addresses(config: &Config) -> Result<Vec<IpAddr>, OpenError> {
    let protocols = Protocols::new(&config.get(param::INET_PROTOCOLS));
    let mut own = interfaces::addresses("inet_interfaces", &config.get(param::INET_INTERFACES), protocols)?;
    own.extend(interfaces::addresses("proxy_interfaces", &config.get(param::PROXY_INTERFACES), protocols)?);
    Ok(own)
}

impl Judge {
    /// The address as cleanup will complete it: what tables and lists are asked about. Replies show what the client said.
    pub(super) fn complete<'a>(&self, address: &'a Address) -> Cow<'a, Address> {
        self.rewriter.rewrite(address, RewriteContext::Local)
    }

    /// Whether the domain cannot be one, or the address could be taken for an option of a command.
    pub(super) fn is_malformed(&self, address: &Address) -> Result<bool, LookupError> {
        Ok(self.recipients.resolver().destinations().find(&self.complete(address))?.malformed)
    }

    pub(super) fn relay_permitted(&self, recipient: &Address) -> Result<bool, LookupError> {
        self.recipients.relay_permitted(&self.complete(recipient))
    }
}
