//! What verbs ask: tables, and parameters that stand in replies.

use std::borrow::Cow;

use config::{Config, param};
use lookup::domain::Parents;
use lookup::recipient_check::RecipientCheck;
use lookup::{LookupError, MatchList, OpenError, RewriteContext, Rewriter};
use mail::Address;

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
    pub(super) codes: Codes,
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
}

impl Judge {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        let code = |parameter, default| u16::try_from(config.get::<u64>(parameter)).unwrap_or(default);
        Ok(Self {
            config: config.clone(),
            mynetworks: MatchList::mynetworks(config)?,
            recipients: RecipientCheck::new(config)?,
            rewriter: Rewriter::new(config),
            parents: Parents::from_config(config, "smtpd_access_maps"),
            null_access_lookup_key: config.get(param::SMTPD_NULL_ACCESS_LOOKUP_KEY),
            logged_permissions: MatchList::strings(
                "smtpd_log_access_permit_actions",
                &config.get(param::SMTPD_LOG_ACCESS_PERMIT_ACTIONS),
            )?,
            policy: policy::Services::new(config),
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
            },
        })
    }
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
