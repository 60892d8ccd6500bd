//! What the configuration makes cleanup do: read, and its tables opened, once.

use config::{Config, param};
use ipc::log;
use jiff::tz::TimeZone;
use lookup::canonical::{Canonical, Masquerade, Usage};
use lookup::expand::VirtualAliases;
use lookup::rewrite::{RewriteContext, Rewriter};
use lookup::{AddressSearch, LookupError, Maps, OpenError};
use mail::Address;

use crate::checks::Checks;

/// The rules in force, shared by all sessions.
pub struct Rules {
    pub(crate) myhostname: String,
    pub(crate) mail_name: String,
    /// 0 for no limit.
    pub(crate) message_size_limit: u64,
    pub(crate) header_size_limit: usize,
    /// `cleanup_replace_stray_cr_lf`: lines end with LF here, so that every CR is stray. Left in, the next mail system
    /// could take it for a line end, and what follows for a command.
    pub(crate) replace_stray_cr: bool,
    pub(crate) hopcount_limit: u64,
    /// 0 for no limit.
    pub(crate) duplicate_filter_limit: usize,
    pub(crate) enable_original_recipient: bool,
    pub(crate) always_add_missing_headers: bool,
    /// `From: address (name)` instead of `From: name <address>`.
    pub(crate) obsolete_from: bool,
    pub(crate) undisclosed_recipients_header: String,
    pub(crate) message_drop_headers: Vec<String>,
    pub(crate) empty_address_recipient: Address,
    pub(crate) always_bcc: Option<Address>,
    /// Where bounces are said to come from; mail "from" it is mail from the null sender.
    pub(crate) mailer_daemon: Address,
    pub(crate) checks: Checks,
    pub(crate) zone: TimeZone,
    pub(crate) aliases: VirtualAliases,
    sender_bcc_maps: Maps,
    recipient_bcc_maps: Maps,
    search: AddressSearch,
    rewriter: Rewriter,
    canonical: Canonical,
    masquerade: Masquerade,
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// A parameter that can never work, and why.
    pub fn new(config: &Config) -> Result<Self, String> {
        let whole = |parameter| usize::try_from(config.get::<u64>(parameter)).unwrap_or(usize::MAX);
        let rewriter = Rewriter::new(config);
        let myorigin = format!("MAILER-DAEMON@{}", config.get(param::MYORIGIN));
        Ok(Self {
            myhostname: config.get(param::MYHOSTNAME),
            mail_name: config.get(param::MAIL_NAME),
            message_size_limit: config.get(param::MESSAGE_SIZE_LIMIT),
            header_size_limit: whole(param::HEADER_SIZE_LIMIT),
            replace_stray_cr: config.get(param::CLEANUP_REPLACE_STRAY_CR_LF),
            hopcount_limit: config.get(param::HOPCOUNT_LIMIT),
            duplicate_filter_limit: whole(param::DUPLICATE_FILTER_LIMIT),
            enable_original_recipient: config.get(param::ENABLE_ORIGINAL_RECIPIENT),
            always_add_missing_headers: config.get(param::ALWAYS_ADD_MISSING_HEADERS),
            obsolete_from: config.get(param::HEADER_FROM_FORMAT) == "obsolete",
            undisclosed_recipients_header: undisclosed(&config.get(param::UNDISCLOSED_RECIPIENTS_HEADER)),
            message_drop_headers: config.get(param::MESSAGE_DROP_HEADERS),
            empty_address_recipient: address(config, param::EMPTY_ADDRESS_RECIPIENT)?.unwrap_or_default(),
            always_bcc: address(config, param::ALWAYS_BCC)?,
            mailer_daemon: Address::new(myorigin).map_err(|error| format!("myorigin: {error}"))?,
            checks: Checks::new(config)?,
            zone: ipc::log::zone(),
            aliases: VirtualAliases::new(config).map_err(said)?,
            sender_bcc_maps: maps(config, param::SENDER_BCC_MAPS)?,
            recipient_bcc_maps: maps(config, param::RECIPIENT_BCC_MAPS)?,
            search: AddressSearch::from_config(config).map_err(said)?,
            rewriter,
            canonical: Canonical::new(config).map_err(said)?,
            masquerade: Masquerade::new(config).map_err(said)?,
        })
    }

    /// Whether headers from remote clients are rewritten and completed at all.
    pub(crate) fn rewrites_remote_headers(&self) -> bool {
        self.rewriter.rewrites_remote_headers()
    }

    /// An address in the form in which the queue has it: complete, and, where `map` says so, canonical and masqueraded.
    pub(crate) fn canonical_form(
        &self,
        address: &Address,
        context: RewriteContext,
        usage: Usage,
        map: bool,
    ) -> Result<Address, LookupError> {
        let mut form = self.rewriter.rewrite(address, context).into_owned();
        if map {
            if let Some(mapped) = self.canonical.map(&form, usage)? {
                form = mapped;
            }
            if let Some(shown) = self.masquerade.apply(&form, usage)? {
                form = shown;
            }
        }
        Ok(form)
    }

    /// Who gets a copy of all mail from this sender.
    pub(crate) fn sender_bcc(&self, sender: &Address) -> Result<Option<Address>, LookupError> {
        self.automatic_copy(&self.sender_bcc_maps, sender)
    }

    /// Who gets a copy of all mail to this recipient.
    pub(crate) fn recipient_bcc(&self, recipient: &Address) -> Result<Option<Address>, LookupError> {
        self.automatic_copy(&self.recipient_bcc_maps, recipient)
    }

    fn automatic_copy(&self, maps: &Maps, address: &Address) -> Result<Option<Address>, LookupError> {
        if maps.is_empty() || address.is_null() {
            return Ok(None);
        }
        let found = self.search.general(maps, address)?;
        let Some(found) = found else { return Ok(None) };
        mail::header_address::parse_first(&found.value)
            .map_err(|why| LookupError::new(&maps.labels(), format!("the value for {address}: {why}")))
    }
}

/// The header is only added if it is one; a wrong one is complained about once, here.
fn undisclosed(header: &str) -> String {
    let header = header.trim();
    if !header.is_empty() && mail::header::name(header.as_bytes()).is_none() {
        log::warning!(
            "undisclosed_recipients_header: \"{header}\" is not added: expected \"header-name: header-value\""
        );
        return String::new();
    }
    header.to_owned()
}

pub(crate) fn maps(config: &Config, list: config::Param<Vec<String>>) -> Result<Maps, String> {
    Maps::open(&config.get(list)).map_err(|error| format!("{}: {error}", list.name()))
}

fn address(config: &Config, parameter: config::Param<String>) -> Result<Option<Address>, String> {
    let address =
        Address::new(config.get(parameter)).map_err(|error| format!("{}: {error}", parameter.name()))?;
    Ok(Some(address).filter(|address| !address.is_null()))
}

fn said(error: OpenError) -> String {
    error.to_string()
}
