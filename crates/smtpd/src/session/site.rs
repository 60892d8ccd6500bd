//! What a site changes about the dialogue: `smtpd_command_filter`, `smtpd_reject_footer` and its tables; the same of
//! `postscreen_`.

use std::sync::Arc;

use config::{Config, Param, param};
use ipc::log;
use lookup::{Maps, OpenError};
use smtp_proto::Reply;
use smtp_proto::server::{SAME_LINE, SiteRules};

use crate::expansion::{Censor, expand};

/// The rules of a service.
#[derive(Debug)]
pub(crate) struct Site {
    command_filter: Option<Table>,
    footer: String,
    footer_maps: Option<Table>,
    /// The parameter of the footer, for the log.
    footer_name: &'static str,
    censor: Censor,
    hostname: String,
}

/// Tables with a name for the log.
struct Table {
    name: &'static str,
    maps: Maps,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Table {
    fn open(name: &'static str, list: &[String]) -> Result<Option<Self>, OpenError> {
        let maps = Maps::open(list)?;
        Ok((!maps.is_empty()).then_some(Self { name, maps }))
    }

    /// A table that fails has nothing to say: the dialogue goes on without it.
    fn get(&self, key: &str) -> Option<String> {
        self.maps.get(key).unwrap_or_else(|error| {
            log::warning!("{}: {error}", self.name);
            None
        })
    }
}

impl Site {
    /// The rules of sessions.
    pub(crate) fn new(config: &Config) -> Result<Self, OpenError> {
        let filter = config::split_list(&config.get::<String>(param::SMTPD_COMMAND_FILTER));
        let footer_maps: Vec<String> = config.get(param::SMTPD_REJECT_FOOTER_MAPS);
        Ok(Self {
            command_filter: Table::open("smtpd_command_filter", &filter)?,
            footer: config.get(param::SMTPD_REJECT_FOOTER),
            footer_maps: Table::open("smtpd_reject_footer_maps", &footer_maps)?,
            footer_name: "smtpd_reject_footer",
            censor: Censor::new(&config.get(param::SMTPD_EXPANSION_FILTER)),
            hostname: config.get(param::MYHOSTNAME),
        })
    }

    /// The rules for clients that never get a session.
    pub(crate) fn of_screening(config: &Config) -> Result<Self, OpenError> {
        let filter = config::split_list(&config.get::<String>(param::POSTSCREEN_COMMAND_FILTER));
        let footer_maps: Vec<String> = config.get(param::POSTSCREEN_REJECT_FOOTER_MAPS);
        Ok(Self {
            command_filter: Table::open("postscreen_command_filter", &filter)?,
            footer: raw(config, param::POSTSCREEN_REJECT_FOOTER, param::SMTPD_REJECT_FOOTER),
            footer_maps: Table::open("postscreen_reject_footer_maps", &footer_maps)?,
            footer_name: "postscreen_reject_footer",
            censor: Censor::new(&raw(
                config,
                param::POSTSCREEN_EXPANSION_FILTER,
                param::SMTPD_EXPANSION_FILTER,
            )),
            hostname: config.get(param::MYHOSTNAME),
        })
    }

    /// The rules for one client; none where there are none.
    pub(crate) fn rules_for(self: &Arc<Self>, address: &str, port: u16) -> Option<Arc<dyn SiteRules>> {
        let silent = self.command_filter.is_none() && self.footer.is_empty() && self.footer_maps.is_none();
        let rules = || Rules { site: Arc::clone(self), address: address.to_owned(), port };
        (!silent).then(|| Arc::new(rules()) as Arc<dyn SiteRules>)
    }
}

/// A parameter that is not expanded when it is read, whose default is the value of `other`.
fn raw(config: &Config, parameter: Param<String>, other: Param<String>) -> String {
    let text: String = config.get(parameter);
    if text == format!("${}", other.name()) { config.get(other) } else { text }
}

/// The rules, with what they show of the client.
#[derive(Debug)]
struct Rules {
    site: Arc<Site>,
    address: String,
    port: u16,
}

impl SiteRules for Rules {
    fn command(&self, line: &str) -> Option<String> {
        let found = self.site.command_filter.as_ref()?.get(line)?;
        log::info!("command filter: {} becomes {}", line.escape_debug(), found.escape_debug());
        Some(found)
    }

    fn footer(&self, reply: &Reply) -> Option<String> {
        let mapped = self.site.footer_maps.as_ref().and_then(|maps| maps.get(&reply.to_string()));
        let template = mapped.as_deref().unwrap_or(&self.site.footer);
        if template.is_empty() {
            return None;
        }
        let (start, template) = match template.strip_prefix("\\c") {
            Some(rest) => (String::from(SAME_LINE), rest),
            None => (String::new(), template),
        };
        let attribute = |name: &str| match name {
            "client_address" => Some(self.address.clone()),
            "client_port" => Some(self.port.to_string()),
            "localtime" => Some(ipc::log::now().strftime("%b %e %H:%M:%S").to_string()),
            "server_name" => Some(self.site.hostname.clone()),
            _ => None,
        };
        let lines: Vec<String> = template
            .split("\\n")
            .map(|line| expand(line, &self.site.censor, &attribute, self.site.footer_name))
            .collect();
        Some(start + &lines.join("\n"))
    }
}
