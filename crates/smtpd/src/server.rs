//! What all sessions of a service share; made once from the configuration, never changed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::{Config, Param, param};
use ipc::{cleanup, log, queue_manager};
use lookup::domain::Parents;
use lookup::{LookupError, Maps, MatchList, OpenError};
use net::tls::server::Opener;
use service::DebugPeers;
use smtp_proto::content::BareNewline;
use smtp_proto::parameter::Extensions;
use smtp_proto::server::{Policy, Settings};

use crate::auth::Authentication;
use crate::client::Client;
use crate::limits::Limits;
use crate::names::HostNames;
use crate::restrictions::Restrictions;
use crate::session::site::Site;
use crate::space::Space;
use crate::tls::Tls;
use crate::transcript::Notices;
use crate::wire::Patience;

/// A buffer for content: what one read takes at most.
const CONTENT_BUFFER: usize = 64 * 1024;

/// How many of those are kept for the next message.
const MAX_SPARE_BUFFERS: usize = 64;

/// What a command buffer holds beside a line of `line_length_limit`: its end, and the beginning of the next command.
const COMMAND_BUFFER_MARGIN: usize = 256;

/// The SMTP server.
pub struct Server {
    pub(crate) settings: Arc<Settings>,
    pub(crate) restrictions: Restrictions,
    /// None where TLS is off.
    pub(crate) tls: Option<Tls>,
    /// None where `smtpd_sasl_auth_enable = no`.
    pub(crate) authentication: Option<Authentication>,
    /// `smtpd_sasl_authenticated_header`
    pub(crate) shows_login: bool,
    pub(crate) cleanup: cleanup::Client,
    pub(crate) cleanup_options: cleanup::Options,
    /// `transport:nexthop` that all mail goes through; `None` for none.
    pub(crate) content_filter: Option<String>,
    pub(crate) notices: Notices,
    pub(crate) debug_peers: DebugPeers,
    pub(crate) names: Arc<HostNames>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) space: Space,
    pub(crate) patience: Patience,
    pub(crate) error_sleep_time: Duration,
    pub(crate) greeting: String,
    pub(crate) client_port_logging: bool,
    pub(crate) forbidden_commands: MatchList,
    pub(crate) buffers: Buffers,
    offered: Extensions,
    discard_keywords: Vec<String>,
    discard_keyword_maps: Maps,
    bare_newline: BareNewline,
    bare_newline_exclusions: MatchList,
    xclient_hosts: MatchList,
    xforward_hosts: MatchList,
    flush_domains: MatchList,
    pub(crate) queue_manager: queue_manager::Client,
    pub(crate) site: Arc<Site>,
    /// `smtpd_upstream_proxy_protocol` is on: how long a balancer is waited for.
    pub(crate) proxy_timeout: Option<Duration>,
}

/// What holds for one client, and what of EHLO's list is kept from it.
pub(crate) struct ClientPolicy {
    pub(crate) policy: Policy,
    /// For the log; empty where the operator wants silence.
    pub(crate) discarded: String,
}

impl Server {
    /// The server of this configuration, for the service of this name in master.cf.
    ///
    /// # Errors
    /// A list or table that can never work.
    pub fn new(config: &Config, service: &str, cleanup: cleanup::Client) -> Result<Self, OpenError> {
        Self::with_limits(config, cleanup, Arc::new(Limits::new(config, service)?))
    }

    /// The same server for sessions that begin when there are nearly as many as there may be: `$stress` is `yes`.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn stressed(&self, config: &Config) -> Result<Self, OpenError> {
        let config = config.with(param::STRESS, "yes");
        let mut stressed = Self::with_limits(&config, self.cleanup.clone(), Arc::clone(&self.limits))?;
        stressed.tls = self.tls.as_ref().map(|tls| Tls::new(&config, Arc::clone(&tls.context)));
        Ok(stressed)
    }

    /// The last words of a server that ends.
    pub fn finish(&self) {
        self.limits.finish();
    }

    fn with_limits(
        config: &Config,
        cleanup: cleanup::Client,
        limits: Arc<Limits>,
    ) -> Result<Self, OpenError> {
        let hosts = |name, parameter: Param<Vec<String>>| {
            MatchList::hosts(name, &config.get(parameter), Parents::from_config(config, name))
        };
        let overrides = config.get(param::RECEIVE_OVERRIDE_OPTIONS);
        let overrides = |word: &str| overrides.iter().any(|option| option == word);
        let message_size_limit = config.get(param::MESSAGE_SIZE_LIMIT);
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let per_request = config.get(param::SMTPD_PER_REQUEST_DEADLINE);
        let names = Arc::new(HostNames::new(config)?);
        Ok(Self {
            settings: Arc::new(settings(config)),
            restrictions: Restrictions::new(config, &names)?,
            tls: None,
            authentication: Authentication::new(config)?,
            shows_login: config.get(param::SMTPD_SASL_AUTHENTICATED_HEADER),
            cleanup,
            cleanup_options: cleanup::Options {
                filter: !overrides("no_header_body_checks"),
                map_addresses: !overrides("no_address_mappings"),
                can_wait: true,
                ..cleanup::Options::default()
            },
            content_filter: Some(config.get(param::CONTENT_FILTER)).filter(|filter| !filter.is_empty()),
            notices: Notices::new(config)?,
            debug_peers: DebugPeers::new(config)?,
            names,
            limits,
            space: Space::new(&queue_directory, config.get(param::QUEUE_MINFREE), message_size_limit),
            patience: Patience {
                timeout: config.get::<Duration>(param::SMTPD_TIMEOUT).max(Duration::from_secs(1)),
                deadline: per_request.then(|| small(config, param::SMTPD_MIN_DATA_RATE)),
            },
            error_sleep_time: config.get(param::SMTPD_ERROR_SLEEP_TIME),
            client_port_logging: config.get(param::SMTPD_CLIENT_PORT_LOGGING),
            greeting: config.get(param::SMTPD_BANNER),
            forbidden_commands: MatchList::strings(
                "smtpd_forbidden_commands",
                &config.get(param::SMTPD_FORBIDDEN_COMMANDS),
            )?,
            buffers: Buffers::default(),
            offered: offered(config),
            discard_keywords: config.get(param::SMTPD_DISCARD_EHLO_KEYWORDS),
            discard_keyword_maps: Maps::open(&config.get(param::SMTPD_DISCARD_EHLO_KEYWORD_ADDRESS_MAPS))?,
            bare_newline: bare_newline(config),
            // Postfix matches this list in the way of mynetworks, which is its default.
            bare_newline_exclusions: MatchList::hosts(
                "smtpd_forbid_bare_newline_exclusions",
                &config.get(param::SMTPD_FORBID_BARE_NEWLINE_EXCLUSIONS),
                Parents::from_config(config, "mynetworks"),
            )?,
            xclient_hosts: hosts("smtpd_authorized_xclient_hosts", param::SMTPD_AUTHORIZED_XCLIENT_HOSTS)?,
            xforward_hosts: hosts("smtpd_authorized_xforward_hosts", param::SMTPD_AUTHORIZED_XFORWARD_HOSTS)?,
            flush_domains: MatchList::domains(
                "fast_flush_domains",
                &config.get(param::FAST_FLUSH_DOMAINS),
                Parents::from_config(config, "fast_flush_domains"),
            )?,
            queue_manager: queue_manager::Client::new(ipc::socket_path(
                &queue_directory,
                false,
                &config.get(param::QUEUE_SERVICE_NAME),
            )),
            site: Arc::new(Site::new(config)?),
            proxy_timeout: (config.get(param::SMTPD_UPSTREAM_PROXY_PROTOCOL) == "haproxy")
                .then(|| config.get(param::SMTPD_UPSTREAM_PROXY_TIMEOUT)),
        })
    }

    /// The same, with the TLS of the configuration. `opener` opens keys that this process may not, once it has dropped its
    /// rights.
    ///
    /// # Errors
    /// A parameter or a file that cannot be used, where nothing goes without TLS.
    pub fn with_tls(mut self, config: &Config, opener: Box<Opener>) -> Result<Self, OpenError> {
        let context = crate::tls::open(config, Some(opener)).map_err(OpenError::Configuration)?;
        self.tls = context.map(|context| Tls::new(config, context));
        Ok(self)
    }

    /// What holds for this client.
    ///
    /// # Errors
    /// A table could not be asked.
    pub(crate) fn policy_for(&self, client: &Client) -> Result<ClientPolicy, LookupError> {
        let mapped = match self.discard_keyword_maps.is_empty() {
            true => None,
            false => self.discard_keyword_maps.get(&client.address)?,
        };
        let mapped = mapped.map(|value| config::split_list(&value));
        let keywords = mapped.as_deref().unwrap_or(&self.discard_keywords);
        let (mut extensions, mut discarded) = (self.offered, Vec::new());
        if self.tls.is_some() && client.tls.is_none() {
            extensions = extensions.and(Extensions::STARTTLS);
        }
        if self.may_name_clients(client) {
            extensions = extensions.and(Extensions::XCLIENT);
        }
        if self.may_forward(client) {
            extensions = extensions.and(Extensions::XFORWARD);
        }
        for extension in keywords.iter().filter_map(|word| Some((word, Extensions::from_keyword(word)?))) {
            extensions = extensions.without(extension.1);
            discarded.push(extension.0.to_ascii_uppercase());
        }
        if keywords.iter().any(|word| word.eq_ignore_ascii_case("silent-discard")) {
            discarded.clear();
        }
        let excluded =
            self.bare_newline != BareNewline::Allow && self.matches(&self.bare_newline_exclusions, client)?;
        let bare_newline = if excluded { BareNewline::Allow } else { self.bare_newline };
        let policy = Policy { extensions, bare_newline };
        Ok(ClientPolicy { policy, discarded: discarded.join(" ") })
    }

    /// `smtpd_authorized_xclient_hosts`; a table that fails authorizes nobody.
    pub(crate) fn may_name_clients(&self, client: &Client) -> bool {
        self.authorizes(&self.xclient_hosts, client)
    }

    /// `smtpd_authorized_xforward_hosts`; a table that fails authorizes nobody.
    pub(crate) fn may_forward(&self, client: &Client) -> bool {
        self.authorizes(&self.xforward_hosts, client)
    }

    fn authorizes(&self, list: &MatchList, client: &Client) -> bool {
        let ip = client.ip.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let known = client.ip.is_some() || client.on_unix_socket;
        known
            && list.matches_host(&client.name, ip).unwrap_or_else(|error| {
                log::warning!("{error}");
                false
            })
    }

    /// Whether mail for this domain is kept for it: `fast_flush_domains`.
    ///
    /// # Errors
    /// A table could not be asked.
    pub(crate) fn flushes(&self, domain: &str) -> Result<bool, LookupError> {
        self.flush_domains.matches(domain)
    }

    /// A program of this host, on a UNIX socket, is in every list of hosts that are trusted.
    fn matches(&self, list: &MatchList, client: &Client) -> Result<bool, LookupError> {
        client.ip.map_or(Ok(client.on_unix_socket), |ip: IpAddr| list.matches_host(&client.name, ip))
    }

    /// A buffer for commands.
    pub(crate) fn command_buffer(&self) -> Vec<u8> {
        vec![0; self.settings.line_length_limit + COMMAND_BUFFER_MARGIN]
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        hostname: config.get(param::MYHOSTNAME),
        line_length_limit: usize::try_from(config.get::<u64>(param::LINE_LENGTH_LIMIT))
            .unwrap_or(2048)
            .max(512),
        message_size_limit: config.get(param::MESSAGE_SIZE_LIMIT),
        helo_required: config.get(param::SMTPD_HELO_REQUIRED),
        must_encrypt: crate::tls::must_encrypt(config),
        strict_envelopes: config.get(param::STRICT_RFC821_ENVELOPES),
        numeric_domain: config.get(param::RESOLVE_NUMERIC_DOMAIN),
        strict_smtputf8: config.get(param::STRICT_SMTPUTF8),
        disable_vrfy: config.get(param::DISABLE_VRFY_COMMAND),
        recipient_limit: usize::try_from(config.get::<u64>(param::SMTPD_RECIPIENT_LIMIT))
            .unwrap_or(usize::MAX),
        recipient_overshoot_limit: small(config, param::SMTPD_RECIPIENT_OVERSHOOT_LIMIT),
        soft_error_limit: small(config, param::SMTPD_SOFT_ERROR_LIMIT),
        hard_error_limit: small(config, param::SMTPD_HARD_ERROR_LIMIT),
        junk_command_limit: small(config, param::SMTPD_JUNK_COMMAND_LIMIT),
        noop_commands: config.get(param::SMTPD_NOOP_COMMANDS),
        soft_bounce: config.get(param::SOFT_BOUNCE),
        forbid_unauth_pipelining: config.get(param::SMTPD_FORBID_UNAUTH_PIPELINING),
        bare_newline_reject_code: u16::try_from(
            config.get::<u64>(param::SMTPD_FORBID_BARE_NEWLINE_REJECT_CODE),
        )
        .unwrap_or(550),
    }
}

/// What EHLO may offer to anybody.
fn offered(config: &Config) -> Extensions {
    let offered = Extensions::ALL_PLAIN.and(Extensions::AUTH);
    match config.get(param::SMTPUTF8_ENABLE) {
        true => offered,
        false => offered.without(Extensions::SMTPUTF8),
    }
}

fn bare_newline(config: &Config) -> BareNewline {
    match config.get(param::SMTPD_FORBID_BARE_NEWLINE).to_ascii_lowercase().as_str() {
        "no" => BareNewline::Allow,
        "note" => BareNewline::Note,
        "reject" => BareNewline::Reject,
        _ => BareNewline::Normalize,
    }
}

/// A number that nobody means to be larger than four thousand million.
fn small(config: &Config, parameter: Param<u64>) -> u32 {
    u32::try_from(config.get(parameter)).unwrap_or(u32::MAX)
}

/// Large buffers, lent to sessions while content comes in: an idle session has none.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    pub(crate) fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; CONTENT_BUFFER])
    }

    /// Takes a buffer back; one of another size was not lent.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() == CONTENT_BUFFER && spare.len() < MAX_SPARE_BUFFERS {
            spare.push(buffer);
        }
    }
}
