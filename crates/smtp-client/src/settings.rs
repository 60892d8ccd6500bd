//! What the configuration makes a client do: read once, under the names of the program that reads it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Config, Param, Value, param};
use lookup::interfaces::{self, Protocols};
use smtp_proto::client::Protocol;

/// Submission over TLS from the first byte on.
const SUBMISSIONS_PORT: u16 = 465;

/// The parameters of this program: `smtp_…` for smtp, `lmtp_…` for lmtp.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) config: &'a Config,
    pub(crate) protocol: Protocol,
}

impl Own<'_> {
    /// The value of this program's parameter, which is named after smtp's.
    pub(crate) fn get<T: Value>(&self, parameter: Param<T>) -> T {
        let suffix = parameter.name().trim_start_matches("smtp_");
        self.config.for_transport(self.prefix(), suffix, parameter)
    }

    /// The name of this program's parameter.
    pub(crate) fn name<T>(&self, parameter: Param<T>) -> String {
        format!("{}_{}", self.prefix(), parameter.name().trim_start_matches("smtp_"))
    }

    /// `smtp` or `lmtp`.
    pub(crate) const fn prefix(&self) -> &'static str {
        match self.protocol {
            Protocol::Smtp => "smtp",
            Protocol::Lmtp => "lmtp",
        }
    }

    /// One that has another name for LMTP.
    fn named<T: Value>(&self, smtp: Param<T>, lmtp: Param<T>) -> T {
        self.config.get(if self.protocol == Protocol::Smtp { smtp } else { lmtp })
    }
}

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// None leaves it to the system.
    pub(crate) connect: Option<Duration>,
    pub(crate) hello: Duration,
    pub(crate) xforward: Duration,
    pub(crate) starttls: Duration,
    pub(crate) mail: Duration,
    pub(crate) rcpt: Duration,
    pub(crate) data_init: Duration,
    pub(crate) data_transfer: Duration,
    pub(crate) data_done: Duration,
    pub(crate) rset: Duration,
    pub(crate) quit: Duration,
    /// The times are those of a whole request with its reply, not of each read and write.
    pub(crate) per_request: bool,
    /// Bytes per second that content must at least make, where times are those of whole requests.
    pub(crate) min_data_rate: u64,
}

/// Where connections are kept for the next message.
#[derive(Clone, Debug)]
pub(crate) struct CacheSettings {
    /// `smtp_connection_cache_on_demand`: while more mail for the destination waits.
    pub(crate) on_demand: bool,
    /// `smtp_connection_cache_destinations`, unopened.
    pub(crate) destinations: Vec<String>,
    /// How long an idle session is kept.
    pub(crate) time_limit: Duration,
    /// How long after its beginning a session is used again.
    pub(crate) reuse_time_limit: Duration,
    /// How often a session is used, 0 for no limit.
    pub(crate) reuse_count_limit: u64,
}

/// The settings of one program.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) protocol: Protocol,
    pub(crate) myhostname: String,
    /// Where the paths of UNIX sockets begin that are not absolute.
    pub(crate) queue_directory: PathBuf,
    pub(crate) hello_name: String,
    pub(crate) always_ehlo: bool,
    pub(crate) never_ehlo: bool,
    pub(crate) skip_5xx_greeting: bool,
    pub(crate) skip_quit_response: bool,
    /// The port where a next hop names none, as it is written.
    pub(crate) port: String,
    pub(crate) port_number: u16,
    pub(crate) relayhost: String,
    pub(crate) fallback_relays: Vec<String>,
    /// 0 for no limit.
    pub(crate) mx_session_limit: u64,
    /// Source addresses of connections.
    pub(crate) bind_v4: Option<IpAddr>,
    pub(crate) bind_v6: Option<IpAddr>,
    pub(crate) bind_enforce: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) line_length_limit: usize,
    pub(crate) send_xforward: bool,
    pub(crate) convert_mime: bool,
    pub(crate) wrappermode: bool,
    /// Nothing is said of `smtp_tls_wrappermode`: the port decides.
    wraps_by_port: bool,
    pub(crate) cname_overrides_servername: bool,
    pub(crate) discard_keywords: Vec<String>,
    /// `lmtp_assume_final`: a server that knows no DSN has delivered what it took.
    pub(crate) assume_final: bool,
    pub(crate) send_dummy_mail_auth: bool,
    /// `smtp_address_verify_target`: address probes end at DATA, not at RCPT.
    pub(crate) verifies_at_data: bool,
    /// `best_mx_transport`: who delivers mail for which this host is the best; nobody where it is empty.
    pub(crate) best_mx_transport: String,
    pub(crate) note_starttls_offer: bool,
    /// How long a message waits before a failed opportunistic handshake lets it go in clear.
    pub(crate) plaintext_after: Duration,
    /// `smtp_tls_connection_reuse` as the policies have it decides; otherwise encrypted sessions are kept like others.
    pub(crate) tls_reuse_by_policy: bool,
    pub(crate) cache: CacheSettings,
}

impl Settings {
    /// # Errors
    /// What is wrong, beginning with the parameter.
    pub(crate) fn new(own: &Own<'_>) -> Result<Self, String> {
        let config = own.config;
        let port = own.get(param::SMTP_TCP_PORT);
        Ok(Self {
            port_number: config::port_number(&port).ok_or_else(|| {
                format!("{} = {port}: must be a port by number or name", own.name(param::SMTP_TCP_PORT))
            })?,
            protocol: own.protocol,
            myhostname: config.get(param::MYHOSTNAME),
            queue_directory: config.get(param::QUEUE_DIRECTORY),
            hello_name: own.named(param::SMTP_HELO_NAME, param::LMTP_LHLO_NAME),
            always_ehlo: config.get(param::SMTP_ALWAYS_SEND_EHLO),
            never_ehlo: config.get(param::SMTP_NEVER_SEND_EHLO),
            skip_5xx_greeting: own.get(param::SMTP_SKIP_5XX_GREETING),
            skip_quit_response: own.get(param::SMTP_SKIP_QUIT_RESPONSE),
            port,
            relayhost: config.get(param::RELAYHOST),
            fallback_relays: own.get(param::SMTP_FALLBACK_RELAY),
            mx_session_limit: own.get(param::SMTP_MX_SESSION_LIMIT),
            bind_v4: source_address(own, param::SMTP_BIND_ADDRESS, true)?,
            bind_v6: source_address(own, param::SMTP_BIND_ADDRESS6, false)?,
            bind_enforce: own.get(param::SMTP_BIND_ADDRESS_ENFORCE),
            timeouts: Timeouts::new(own),
            line_length_limit: usize::try_from(own.get(param::SMTP_LINE_LENGTH_LIMIT)).unwrap_or(usize::MAX),
            send_xforward: own.get(param::SMTP_SEND_XFORWARD_COMMAND),
            convert_mime: !config.get(param::DISABLE_MIME_OUTPUT_CONVERSION),
            wrappermode: own.get(param::SMTP_TLS_WRAPPERMODE),
            wraps_by_port: !config.is_set(&own.name(param::SMTP_TLS_WRAPPERMODE)),
            cname_overrides_servername: own.get(param::SMTP_CNAME_OVERRIDES_SERVERNAME),
            discard_keywords: own.named(param::SMTP_DISCARD_EHLO_KEYWORDS, param::LMTP_DISCARD_LHLO_KEYWORDS),
            assume_final: config.get(param::LMTP_ASSUME_FINAL),
            verifies_at_data: own.get(param::SMTP_ADDRESS_VERIFY_TARGET).eq_ignore_ascii_case("data"),
            best_mx_transport: config.get(param::BEST_MX_TRANSPORT),
            send_dummy_mail_auth: own.get(param::SMTP_SEND_DUMMY_MAIL_AUTH),
            note_starttls_offer: own.get(param::SMTP_TLS_NOTE_STARTTLS_OFFER),
            plaintext_after: config.get(param::MINIMAL_BACKOFF_TIME),
            tls_reuse_by_policy: config.is_set(&own.name(param::SMTP_TLS_CONNECTION_REUSE)),
            cache: CacheSettings {
                on_demand: own.get(param::SMTP_CONNECTION_CACHE_ON_DEMAND),
                destinations: own.get(param::SMTP_CONNECTION_CACHE_DESTINATIONS),
                time_limit: own.get(param::SMTP_CONNECTION_CACHE_TIME_LIMIT),
                reuse_time_limit: own.get(param::SMTP_CONNECTION_REUSE_TIME_LIMIT),
                reuse_count_limit: own.get(param::SMTP_CONNECTION_REUSE_COUNT_LIMIT),
            },
        })
    }

    /// Whether TLS comes before the greeting: this is asked for, or it is the port where nothing else works (RFC 8314
    /// section 7.3).
    pub(crate) const fn wraps(&self, port: u16) -> bool {
        self.wrappermode || self.wraps_by_port && port == SUBMISSIONS_PORT
    }

    /// The source address for a connection to this address.
    pub(crate) const fn source_for(&self, address: IpAddr) -> Option<IpAddr> {
        if address.is_ipv4() { self.bind_v4 } else { self.bind_v6 }
    }
}

/// The source address that a parameter names; without it the one address of its family that `inet_interfaces` names, so
/// that a host with several addresses is told by its own one.
fn source_address(own: &Own<'_>, parameter: Param<String>, v4: bool) -> Result<Option<IpAddr>, String> {
    let text = own.get(parameter);
    if !text.is_empty() {
        let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(&text);
        let address = bare.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == v4);
        let right = if v4 { "an address of IPv4" } else { "an address of IPv6" };
        return address.map(Some).ok_or_else(|| format!("{} = {text}: must be {right}", own.name(parameter)));
    }
    let items = own.config.get(param::INET_INTERFACES);
    if items.iter().any(|item| matches!(item.as_str(), "all" | "loopback-only")) {
        return Ok(None);
    }
    let protocols = Protocols::new(&own.config.get(param::INET_PROTOCOLS));
    let mut found = interfaces::addresses("inet_interfaces", &items, protocols).unwrap_or_default();
    found.retain(|address| address.is_ipv4() == v4);
    Ok(match found[..] {
        [only] if !only.is_loopback() && !only.is_unspecified() => Some(only),
        _ => None,
    })
}

impl Timeouts {
    fn new(own: &Own<'_>) -> Self {
        let connect = own.get(param::SMTP_CONNECT_TIMEOUT);
        Self {
            connect: Some(connect).filter(|time| !time.is_zero()),
            hello: own.named(param::SMTP_HELO_TIMEOUT, param::LMTP_LHLO_TIMEOUT),
            xforward: own.get(param::SMTP_XFORWARD_TIMEOUT),
            starttls: own.get(param::SMTP_STARTTLS_TIMEOUT),
            mail: own.get(param::SMTP_MAIL_TIMEOUT),
            rcpt: own.get(param::SMTP_RCPT_TIMEOUT),
            data_init: own.get(param::SMTP_DATA_INIT_TIMEOUT),
            data_transfer: own.get(param::SMTP_DATA_XFER_TIMEOUT),
            data_done: own.get(param::SMTP_DATA_DONE_TIMEOUT),
            rset: own.get(param::SMTP_RSET_TIMEOUT),
            quit: own.get(param::SMTP_QUIT_TIMEOUT),
            per_request: own.get(param::SMTP_PER_REQUEST_DEADLINE),
            min_data_rate: own.get(param::SMTP_MIN_DATA_RATE),
        }
    }
}
