//! A policy service as a restriction names it: where it listens, and how long it is waited for.

use std::path::PathBuf;
use std::time::Duration;

use config::{Config, Param, Value, param, split_list};

/// One `check_policy_service`.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    name: String,
    pub(super) endpoint: Endpoint,
    pub(super) timeout: Duration,
    pub(super) max_idle: Duration,
    pub(super) max_ttl: Duration,
    pub(super) retry_delay: Duration,
    pub(super) request_limit: u64,
    pub(super) try_limit: u64,
    pub(super) default_action: String,
    pub(super) policy_context: String,
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Inet { host: String, port: u16 },
    Unix(PathBuf),
}

impl Service {
    /// Reads `inet:host:port`, `unix:path`, or `{ inet:host:port, name=value, … }`.
    pub(crate) fn parse(config: &Config, text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let words = inner.map_or_else(|| vec![text.to_owned()], split_list);
        let (name, settings) = words.split_first().ok_or("the braces are empty")?;
        let mut service = Self {
            name: name.clone(),
            endpoint: Endpoint::parse(name)?,
            timeout: config.get(param::SMTPD_POLICY_SERVICE_TIMEOUT),
            max_idle: config.get(param::SMTPD_POLICY_SERVICE_MAX_IDLE),
            max_ttl: config.get(param::SMTPD_POLICY_SERVICE_MAX_TTL),
            retry_delay: config.get(param::SMTPD_POLICY_SERVICE_RETRY_DELAY),
            request_limit: config.get(param::SMTPD_POLICY_SERVICE_REQUEST_LIMIT),
            try_limit: config.get(param::SMTPD_POLICY_SERVICE_TRY_LIMIT),
            default_action: config.get(param::SMTPD_POLICY_SERVICE_DEFAULT_ACTION),
            policy_context: config.get(param::SMTPD_POLICY_SERVICE_POLICY_CONTEXT),
        };
        for setting in settings {
            service.set(setting)?;
        }
        service.timeout = service.timeout.max(Duration::from_secs(1));
        Ok(service)
    }

    /// The address, as it was written.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `name=value` or `{ name = value }`.
    fn set(&mut self, setting: &str) -> Result<(), String> {
        let bare = setting.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(setting);
        let (name, value) = bare.split_once('=').ok_or_else(|| format!("\"{setting}\" is not name=value"))?;
        let (name, value) = (name.trim(), value.trim());
        match name {
            "timeout" => self.timeout = read(param::SMTPD_POLICY_SERVICE_TIMEOUT, value)?,
            "max_idle" => self.max_idle = read(param::SMTPD_POLICY_SERVICE_MAX_IDLE, value)?,
            "max_ttl" => self.max_ttl = read(param::SMTPD_POLICY_SERVICE_MAX_TTL, value)?,
            "retry_delay" => self.retry_delay = read(param::SMTPD_POLICY_SERVICE_RETRY_DELAY, value)?,
            "request_limit" => self.request_limit = read(param::SMTPD_POLICY_SERVICE_REQUEST_LIMIT, value)?,
            "try_limit" => self.try_limit = read(param::SMTPD_POLICY_SERVICE_TRY_LIMIT, value)?,
            "default_action" => value.clone_into(&mut self.default_action),
            "policy_context" => value.clone_into(&mut self.policy_context),
            _ => {
                return Err(format!(
                    "there is no setting {name}; there are timeout, max_idle, max_ttl, retry_delay, request_limit, \
                     try_limit, default_action and policy_context"
                ));
            }
        }
        Ok(())
    }
}

fn read<T: Value>(parameter: Param<T>, value: &str) -> Result<T, String> {
    T::parse(value, &parameter.row()).map_err(|error| format!("{value} {error}"))
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: must be inet:host:port or unix:path");
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        match kind {
            "inet" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
                let port = port.parse().map_err(|_| format!("{text}: the port must be a number"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let host = if host.is_empty() { "localhost" } else { host };
                Ok(Self::Inet { host: host.to_owned(), port })
            }
            "unix" | "local" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            _ => Err(wrong()),
        }
    }
}
