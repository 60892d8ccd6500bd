//! Where mail for a domain is offered: which addresses, in which order (RFC 5321 section 5).
//!
//! [`HostFinder`] is made once of a configuration; [`HostFinder::find`] answers for one place of a next hop, in as much time as
//! the resolver takes. Lists of places, connections and what is tried after a failure are the caller's.
//!
//! Mail exchangers are sorted by preference, equals shuffled, their addresses by family. The list ends before this host
//! itself: mail is never passed on to a host that is no better than the one that has it. A domain without mail
//! exchangers is its own host. Which of several errors counts: one that may pass, if there is one.

use std::fmt;
use std::net::IpAddr;

use config::{Config, param};
use lookup::OpenError;
use lookup::interfaces::{self, Protocols};
use mail::Dsn;

use super::{Answer, DnsError, DnsSettings, Family, Mx, ReplyFilter, Resolver, Srv};

/// Where mail loops are looked for: mail that comes back on another port comes to another program.
const SMTP_PORT: u16 = 25;

/// Finds hosts as one configuration says.
#[derive(Clone, Debug)]
pub struct HostFinder {
    dns: Resolver,
    own: Vec<IpAddr>,
    rules: Rules,
}

/// What the parameters say.
#[derive(Clone, Debug)]
struct Rules {
    /// `inet_protocols`; none if it leaves neither.
    family: Option<Family>,
    /// `smtp_address_preference`; `Any` is no preference.
    preferred: Family,
    /// Not `smtp_dns_support_level = disabled`.
    asks_dns: bool,
    /// LMTP knows no mail exchangers.
    asks_mx: bool,
    /// `dnssec`: what the DNS could not say for sure is not asked of the host's own tables.
    dnssec: bool,
    /// `smtp_host_lookup`.
    hosts_from_dns: bool,
    hosts_native: bool,
    address_limit: usize,
    balances_families: bool,
    randomizes: bool,
    defers_without_address: bool,
    ignores_mx_error: bool,
    srv_services: Vec<String>,
    srv_fallback: bool,
    ignores_srv_error: bool,
}

/// What is looked for: a place of a next hop, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A domain, or a host, or an address without brackets.
    pub name: &'a str,
    /// It was written in brackets: the host itself is meant.
    pub literal: bool,
    /// The port as it was written, or the protocol's name (`smtp`, `lmtp`): what `use_srv_lookup` is asked for.
    pub service: &'a str,
    /// The port as a number.
    pub port: u16,
}

/// Where mail is offered, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHosts {
    /// Never empty.
    pub hosts: Vec<MailHost>,
    /// The domain's mail exchangers were asked for and found; otherwise the name is the host.
    pub from_mx: bool,
    /// This host is among the domain's mail exchangers: mail must not go to a fallback relay, which may send it back.
    pub includes_self: bool,
}

/// An address, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHost {
    /// The host's name as the MX record or the next hop has it; the address itself where that is all there is.
    pub name: String,
    /// The name at the end of its aliases: where TLSA records are looked for first, if `address_secure` (RFC 7672 section 2.2.2).
    pub canonical: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its preference; 0 for what is no mail exchanger.
    pub preference: u16,
    /// The record that named the host is validated, or the operator named it (RFC 7672 section 2.2.1).
    pub name_secure: bool,
    /// The address records are validated.
    pub address_secure: bool,
}

/// Why there is no host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// What kind of failure it is; class 4 may pass.
    pub dsn: Dsn,
    /// In Postfix's words.
    pub text: String,
    /// This host is the best one: what `best_mx_transport` is about. No fallback relay may be tried.
    pub is_loop: bool,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HostError {}

impl HostError {
    fn new(class: u8, detail: u16, text: String) -> Self {
        Self { dsn: Dsn::new(class, 4, detail), text, is_loop: false }
    }

    fn loops(domain: &str) -> Self {
        Self { is_loop: true, ..Self::new(5, 6, format!("mail for {domain} loops back to myself")) }
    }

    fn not_accepting(text: String) -> Self {
        Self { dsn: Dsn::new(5, 1, 0), text, is_loop: false }
    }

    fn is_temporary(&self) -> bool {
        self.dsn.class() == 4
    }
}

impl From<&DnsError> for HostError {
    fn from(error: &DnsError) -> Self {
        let (class, detail) = match error {
            DnsError::Filtered { emptied: true, .. } => {
                return Self { dsn: Dsn::new(4, 7, 0), text: error.to_string(), is_loop: false };
            }
            DnsError::Temporary { .. } | DnsError::Filtered { .. } => (4, 3),
            DnsError::Circle { .. }
            | DnsError::NotFound { .. }
            | DnsError::NoData { .. }
            | DnsError::InvalidName { .. }
            | DnsError::Malformed { .. } => (5, 4),
        };
        Self::new(class, detail, error.to_string())
    }
}

/// A host that is to be looked up.
struct Named {
    name: String,
    port: u16,
    preference: u16,
    secure: bool,
}

impl HostFinder {
    /// As the `smtp_` parameters say.
    ///
    /// # Errors
    /// This host's own addresses cannot be found.
    pub fn for_smtp(config: &Config) -> Result<Self, OpenError> {
        let filter = ReplyFilter::open("smtp_dns_reply_filter", &config.get(param::SMTP_DNS_REPLY_FILTER))?;
        Self::new(config, Rules::for_smtp(config), DnsSettings::for_smtp(config), filter)
    }

    /// As the `lmtp_` parameters say.
    ///
    /// # Errors
    /// As [`HostFinder::for_smtp`].
    pub fn for_lmtp(config: &Config) -> Result<Self, OpenError> {
        let filter = ReplyFilter::open("lmtp_dns_reply_filter", &config.get(param::LMTP_DNS_REPLY_FILTER))?;
        Self::new(config, Rules::for_lmtp(config), DnsSettings::for_lmtp(config), filter)
    }

    fn new(
        config: &Config,
        rules: Rules,
        dns: DnsSettings,
        filter: Option<ReplyFilter>,
    ) -> Result<Self, OpenError> {
        let dns = Resolver::system(dns);
        let dns = match filter {
            Some(filter) => dns.filtered(filter),
            None => dns,
        };
        let protocols = Protocols::new(&config.get(param::INET_PROTOCOLS));
        let mut own =
            interfaces::addresses("inet_interfaces", &config.get(param::INET_INTERFACES), protocols)?;
        own.extend(interfaces::addresses(
            "proxy_interfaces",
            &config.get(param::PROXY_INTERFACES),
            protocols,
        )?);
        Ok(Self { dns, own, rules })
    }

    /// The same, asking this resolver.
    #[must_use]
    pub fn asking(self, dns: Resolver) -> Self {
        Self { dns, ..self }
    }

    /// The resolver that is asked, for other questions about the same hosts.
    #[must_use]
    pub const fn dns(&self) -> &Resolver {
        &self.dns
    }

    /// Where mail for this place is offered.
    ///
    /// # Errors
    /// There is no such host, or it is not known whether there is, or it is this one.
    pub fn find(&self, place: &Place<'_>) -> Result<MailHosts, HostError> {
        if !self.rules.asks_dns || place.literal {
            return self.host(place);
        }
        if self.rules.srv_services.iter().any(|service| service.eq_ignore_ascii_case(place.service)) {
            return self.service(place);
        }
        self.domain(place)
    }

    /// A domain's mail exchangers, or the host of that name.
    fn domain(&self, place: &Place<'_>) -> Result<MailHosts, HostError> {
        if !self.rules.asks_mx {
            return self.host(place);
        }
        match self.dns.mx(place.name) {
            Ok(answer) if answer.value.iter().any(Mx::is_null) => {
                Err(HostError::not_accepting(format!("Domain {} does not accept mail (nullMX)", place.name)))
            }
            Ok(answer) => self.exchangers(place, answer),
            Err(error) if error.is_absence() || self.rules.ignores_mx_error => self.host(place),
            Err(error) => Err(HostError::from(&error)),
        }
    }

    fn exchangers(&self, place: &Place<'_>, answer: Answer<Vec<Mx>>) -> Result<MailHosts, HostError> {
        let secure = answer.secure;
        let mut named: Vec<Named> = answer
            .value
            .into_iter()
            .map(|mx| Named { name: mx.host, port: place.port, preference: mx.preference, secure })
            .collect();
        named.sort_by_key(|host| host.preference);
        // Against RFC 1035 section 3.3.9, and widespread.
        for number in named.iter().filter(|host| host.name.parse::<IpAddr>().is_ok()) {
            let (domain, host) = (place.name, &number.name);
            ipc::log::warning!("numeric domain name in resource data of MX record for {domain}: {host}");
        }
        let mut list = self.look_up_all(place.name, &named)?;
        let includes_self = self.cut_before_self(place.name, &mut list, named[0].preference)?;
        self.shuffle_equals(&mut list);
        Ok(MailHosts { hosts: self.arrange(list), from_mx: true, includes_self })
    }

    /// The hosts of a service: RFC 2782, RFC 6186.
    fn service(&self, place: &Place<'_>) -> Result<MailHosts, HostError> {
        let answer = match self.dns.srv(&format!("_{}._tcp.{}", place.service, place.name)) {
            Ok(answer) => answer,
            Err(error) if error.is_absence() && self.rules.srv_fallback => return self.domain(place),
            Err(error) if !error.is_absence() && self.rules.ignores_srv_error => return self.domain(place),
            Err(error) => return Err(HostError::from(&error)),
        };
        if answer.value.iter().any(|srv| srv.target == ".") {
            let text = format!("Service _{}._tcp.{} is not available (nullSRV)", place.service, place.name);
            return Err(HostError::not_accepting(text));
        }
        let secure = answer.secure;
        let named: Vec<Named> = in_order_of_weight(answer.value)
            .into_iter()
            .map(|srv| Named { name: srv.target, port: srv.port, preference: srv.priority, secure })
            .collect();
        let mut list = self.look_up_all(place.name, &named)?;
        let includes_self = self.cut_before_self(place.name, &mut list, named[0].preference)?;
        Ok(MailHosts { hosts: self.arrange(list), from_mx: true, includes_self })
    }

    /// A host itself.
    fn host(&self, place: &Place<'_>) -> Result<MailHosts, HostError> {
        let named = Named { name: place.name.to_owned(), port: place.port, preference: 0, secure: true };
        let mut list = self.look_up(&named)?;
        if list.iter().any(|host| self.is_self(host)) {
            return Err(HostError::loops(place.name));
        }
        self.shuffle_equals(&mut list);
        Ok(MailHosts { hosts: self.arrange(list), from_mx: false, includes_self: false })
    }

    /// The addresses of all these hosts that have some. It is an error if none has.
    fn look_up_all(&self, domain: &str, named: &[Named]) -> Result<Vec<MailHost>, HostError> {
        let mut list = Vec::new();
        let mut failure: Option<HostError> = None;
        for host in named {
            match self.look_up(host) {
                Ok(hosts) => list.extend(hosts),
                Err(error) if failure.as_ref().is_none_or(|known| !known.is_temporary()) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        match failure {
            Some(mut error) if list.is_empty() => {
                ipc::log::warning!("no MX host for {domain} has a valid address record");
                if self.rules.defers_without_address {
                    error.dsn = error.dsn.with_class(4);
                }
                Err(error)
            }
            _ => Ok(list),
        }
    }

    fn look_up(&self, named: &Named) -> Result<Vec<MailHost>, HostError> {
        let host = |address, canonical: &str, address_secure| MailHost {
            name: named.name.clone(),
            canonical: canonical.to_owned(),
            address,
            port: named.port,
            preference: named.preference,
            name_secure: named.secure,
            address_secure,
        };
        let unusable = || HostError::new(5, 4, format!("{}: host not found", named.name));
        let family = self.rules.family.ok_or_else(unusable)?;
        if let Ok(address) = named.name.parse::<IpAddr>() {
            return match family.includes(address) {
                true => Ok(vec![host(address, &named.name, false)]),
                false => Err(unusable()),
            };
        }
        let answer = self.addresses(&named.name, family)?;
        Ok(answer.value.iter().map(|ip| host(*ip, &answer.canonical, answer.secure)).collect())
    }

    /// `smtp_host_lookup`: the DNS, then what this host knows itself.
    fn addresses(&self, name: &str, family: Family) -> Result<Answer<Vec<IpAddr>>, HostError> {
        let mut failure = None;
        if self.rules.asks_dns && self.rules.hosts_from_dns {
            match self.dns.addresses(name, family) {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = Some(error),
            }
        }
        let doubtful = failure.as_ref().is_some_and(|error| self.rules.dnssec && !error.is_absence());
        let native = self.rules.hosts_native && !doubtful;
        match failure {
            Some(error) if !native => Err(HostError::from(&error)),
            _ => self.dns.native_addresses(name, family).map_err(|error| {
                let (class, detail) = if error.is_temporary() { (4, 3) } else { (5, 4) };
                HostError::new(
                    class,
                    detail,
                    format!("unable to look up host {name}: {}", native_words(&error)),
                )
            }),
        }
    }

    fn is_self(&self, host: &MailHost) -> bool {
        host.port == SMTP_PORT && self.own.contains(&host.address)
    }

    /// Removes this host and all that are not better than it. Whether it was there.
    fn cut_before_self(&self, domain: &str, list: &mut Vec<MailHost>, best: u16) -> Result<bool, HostError> {
        let own = list.iter().filter(|host| self.is_self(host)).map(|host| host.preference).min();
        let Some(limit) = own else { return Ok(false) };
        let best_found = list.iter().map(|host| host.preference).min();
        list.retain(|host| host.preference < limit);
        match list.is_empty() {
            false => Ok(true),
            // A better one exists, and its address is not known.
            true if best_found.is_some_and(|found| found != best) => {
                Err(HostError::new(4, 4, format!("unable to find primary relay for {domain}")))
            }
            true => Err(HostError::loops(domain)),
        }
    }

    /// `smtp_randomize_addresses`: shuffles the addresses of each preference.
    fn shuffle_equals(&self, list: &mut [MailHost]) {
        if self.rules.randomizes {
            for equals in list.chunk_by_mut(|a, b| a.preference == b.preference) {
                fastrand::shuffle(equals);
            }
        }
    }

    /// Puts the addresses in the order in which they are tried, and leaves out those that are too many.
    fn arrange(&self, mut list: Vec<MailHost>) -> Vec<MailHost> {
        let rules = &self.rules;
        let less_preferred = |host: &MailHost| !rules.preferred.includes(host.address);
        list.sort_by_key(|host| (host.preference, less_preferred(host)));
        if rules.address_limit > 0 {
            if rules.balances_families {
                balance(&mut list, rules.address_limit);
            }
            list.truncate(rules.address_limit);
        }
        list
    }
}

impl Rules {
    fn for_smtp(config: &Config) -> Self {
        let host_lookup = config.get(param::SMTP_HOST_LOOKUP);
        let level = config.get(param::SMTP_DNS_SUPPORT_LEVEL);
        Self {
            asks_mx: true,
            preferred: preferred(&config.get(param::SMTP_ADDRESS_PREFERENCE)),
            address_limit: limit_of(config.get(param::SMTP_MX_ADDRESS_LIMIT)),
            balances_families: config.get(param::SMTP_BALANCE_INET_PROTOCOLS),
            randomizes: config.get(param::SMTP_RANDOMIZE_ADDRESSES),
            defers_without_address: config.get(param::SMTP_DEFER_IF_NO_MX_ADDRESS_FOUND),
            ..Self::of_both(config, &level, &host_lookup)
        }
    }

    fn for_lmtp(config: &Config) -> Self {
        let host_lookup = config.get(param::LMTP_HOST_LOOKUP);
        let level = config.get(param::LMTP_DNS_SUPPORT_LEVEL);
        Self {
            asks_mx: false,
            preferred: preferred(&config.get(param::LMTP_ADDRESS_PREFERENCE)),
            address_limit: limit_of(config.get(param::LMTP_MX_ADDRESS_LIMIT)),
            balances_families: config.get(param::LMTP_BALANCE_INET_PROTOCOLS),
            randomizes: config.get(param::LMTP_RANDOMIZE_ADDRESSES),
            defers_without_address: config.get(param::LMTP_DEFER_IF_NO_MX_ADDRESS_FOUND),
            ..Self::of_both(config, &level, &host_lookup)
        }
    }

    fn of_both(config: &Config, support_level: &str, host_lookup: &[String]) -> Self {
        let looks_up = |how: &str| host_lookup.iter().any(|item| item.eq_ignore_ascii_case(how));
        let asks_dns = match support_level {
            "" => !config.get(param::DISABLE_DNS_LOOKUPS),
            level => !level.eq_ignore_ascii_case("disabled"),
        };
        Self {
            family: Family::of_protocols(&config.get(param::INET_PROTOCOLS)),
            preferred: Family::Any,
            asks_dns,
            asks_mx: true,
            dnssec: support_level.eq_ignore_ascii_case("dnssec"),
            hosts_from_dns: looks_up("dns"),
            hosts_native: looks_up("native"),
            address_limit: 0,
            balances_families: false,
            randomizes: true,
            defers_without_address: false,
            ignores_mx_error: config.get(param::IGNORE_MX_LOOKUP_ERROR),
            srv_services: config.get(param::USE_SRV_LOOKUP),
            srv_fallback: config.get(param::ALLOW_SRV_LOOKUP_FALLBACK),
            ignores_srv_error: config.get(param::IGNORE_SRV_LOOKUP_ERROR),
        }
    }
}

fn preferred(word: &str) -> Family {
    match word {
        "ipv4" => Family::V4,
        "ipv6" => Family::V6,
        _ => Family::Any,
    }
}

fn limit_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// What the C library says of a name that it does not know.
fn native_words(error: &DnsError) -> &'static str {
    match error {
        DnsError::Temporary { .. } => "Temporary failure in name resolution",
        DnsError::NoData { .. } => "No address associated with hostname",
        _ => "Name or service not known",
    }
}

/// Leaves room for the family that has fewer addresses: half of the places, if it has so many.
fn balance(list: &mut Vec<MailHost>, limit: usize) {
    let v4 = list.iter().filter(|host| host.address.is_ipv4()).count();
    let v6 = list.len() - v4;
    if list.len() <= limit || v4 == 0 || v6 == 0 {
        return;
    }
    let for_fewer = v4.min(v6).min(limit / 2);
    let (mut v4_places, mut v6_places) =
        if v4 < v6 { (for_fewer, limit - for_fewer) } else { (limit - for_fewer, for_fewer) };
    list.retain(|host| {
        let places = if host.address.is_ipv4() { &mut v4_places } else { &mut v6_places };
        let stays = *places > 0;
        *places = places.saturating_sub(1);
        stays
    });
}

/// By priority, and among equals by chance as their weights say: RFC 2782, "Weight".
fn in_order_of_weight(mut list: Vec<Srv>) -> Vec<Srv> {
    fastrand::shuffle(&mut list);
    // Those without weight come first, so that they have any chance at all.
    list.sort_by_key(|srv| (srv.priority, srv.weight > 0));
    let mut ordered = Vec::with_capacity(list.len());
    while let Some(first) = list.first() {
        let priority = first.priority;
        let equals = list.iter().take_while(|srv| srv.priority == priority);
        let sum: u32 = equals.map(|srv| u32::from(srv.weight)).sum();
        let mut chance = fastrand::u32(0..=sum);
        let chosen = list.iter().position(|srv| {
            let weight = u32::from(srv.weight);
            let reached = weight >= chance;
            chance = chance.saturating_sub(weight);
            reached
        });
        ordered.push(list.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests;
