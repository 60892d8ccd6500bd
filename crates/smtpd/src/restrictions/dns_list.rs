//! Lists of addresses and names in the DNS: block lists and their opposite (RFC 5782).

use std::net::{IpAddr, Ipv4Addr};

use config::{Config, param};
use ipc::log;
use lookup::{LookupError, Maps, OpenError};
use mail::{Address, Dsn};
use net::dns::Family;
use smtp_proto::Reply;

use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;
use crate::client::UNKNOWN;
use crate::expansion::{Censor, expand};

/// The longest reason that is passed on to a client.
const REASON_LIMIT: usize = 400;

/// A list, and which of its answers count: `zone` or `zone=127.0.0.[2..4;8]`.
pub(crate) struct DnsList {
    /// The key of `rbl_reply_maps`, and what replies name.
    zone: String,
    pattern: Option<Pattern>,
}

/// Ranges of numbers for each part of an address.
struct Pattern([Vec<(u8, u8)>; 4]);

impl DnsList {
    /// Reads what follows a verb.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (zone, pattern) = text.split_once('=').map_or((text, None), |(zone, rest)| (zone, Some(rest)));
        if !net::dns::is_host_name(zone) {
            return Err(format!("\"{zone}\" is no domain name"));
        }
        let pattern = pattern.map(|pattern| {
            Pattern::parse(pattern).ok_or_else(|| {
                format!("\"{pattern}\" is no pattern like 127.0.0.2 or 127.0.0.[2..4;8]; see postconf(5)")
            })
        });
        Ok(Self { zone: zone.to_owned(), pattern: pattern.transpose()? })
    }

    /// Its domain.
    pub(crate) fn zone(&self) -> &str {
        &self.zone
    }

    /// Whether this answer of the list counts.
    pub(crate) fn counts(&self, answer: Ipv4Addr) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(answer))
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let mut parts: [Vec<(u8, u8)>; 4] = Default::default();
        let mut rest = text;
        for (at, part) in parts.iter_mut().enumerate() {
            let (field, after) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']')?,
                None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            for range in field.split(';') {
                let (low, high) = range.split_once("..").unwrap_or((range, range));
                let (low, high) = (low.parse().ok()?, high.parse().ok()?);
                part.push((low, high));
                if low > high || (!rest.starts_with('[') && field.contains([';'])) {
                    return None;
                }
            }
            rest = if at == 3 { after } else { after.strip_prefix('.')? };
        }
        rest.is_empty().then_some(Self(parts))
    }

    fn matches(&self, ip: Ipv4Addr) -> bool {
        let mut parts = self.0.iter().zip(ip.octets());
        parts.all(|(ranges, byte)| ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)))
    }
}

/// The replies to those who are listed.
pub(super) struct ListReplies {
    code: u16,
    templates: Maps,
    default: String,
    censor: Censor,
    /// `maps_rbl_domains`, for `reject_maps_rbl`.
    old_lists: Vec<DnsList>,
}

impl ListReplies {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        let old: Vec<String> = config.get(param::MAPS_RBL_DOMAINS);
        Ok(Self {
            code: u16::try_from(config.get(param::MAPS_RBL_REJECT_CODE)).unwrap_or(554),
            templates: Maps::open(&config.get(param::RBL_REPLY_MAPS))?,
            default: config.get(param::DEFAULT_RBL_REPLY),
            censor: Censor::new(&config.get(param::SMTPD_EXPANSION_FILTER)),
            old_lists: old.iter().filter_map(|text| DnsList::parse(text).ok()).collect(),
        })
    }
}

/// What a list is asked about.
struct Entity<'a> {
    /// In front of the list's zone.
    key: String,
    /// As it stands in the reply.
    what: &'a str,
    class: Class,
}

/// `reject_rbl_client`
pub(super) fn reject_client(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::DnsList(list) = argument else { return Ok(Decision::Dunno) };
    reject(e, list, client_address(e))
}

/// `reject_maps_rbl`: the same for all lists of `maps_rbl_domains`.
pub(super) fn reject_client_of_old_lists(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    for list in &e.judge.list_replies.old_lists {
        match reject(e, list, client_address(e))? {
            Decision::Dunno => {}
            decision => return Ok(decision),
        }
    }
    Ok(Decision::Dunno)
}

/// `reject_rhsbl_client`, `_reverse_client`, `_helo`, `_sender` and `_recipient`: the name of the class.
pub(super) fn reject_name(
    e: &Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::DnsList(list) = argument else { return Ok(Decision::Dunno) };
    reject(e, list, named(e, class))
}

/// `permit_dnswl_client`
pub(super) fn permit_client(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::DnsList(list) = argument else { return Ok(Decision::Dunno) };
    permit(e, list, client_address(e))
}

/// `permit_rhswl_client`
pub(super) fn permit_client_name(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::DnsList(list) = argument else { return Ok(Decision::Dunno) };
    permit(e, list, named(e, Class::Client))
}

fn client_address<'a>(e: &Evaluation<'a>) -> Option<Entity<'a>> {
    let client = e.subject.client;
    Some(Entity { key: reversed(client.ip?), what: &client.address, class: Class::Client })
}

fn named<'a>(e: &Evaluation<'a>, class: Class) -> Option<Entity<'a>> {
    let subject = e.subject;
    let address = |address: Option<&'a Address>| address.filter(|a| !a.is_null()).map(Address::as_str);
    let what = match class {
        Class::Client => Some(subject.client.name.as_str()).filter(|name| *name != UNKNOWN),
        Class::ReverseClient => Some(subject.client.reverse_name.as_str()).filter(|name| *name != UNKNOWN),
        Class::Helo => subject.helo,
        Class::Sender => address(subject.sender),
        Class::Recipient => address(subject.recipient),
        Class::Login | Class::Data | Class::EndOfData | Class::Etrn => None,
    }?;
    let key = what.rsplit_once('@').map_or(what, |(_, domain)| domain);
    // Neither address literals nor addresses are names.
    let is_name = net::dns::to_ascii(key).is_some_and(|ascii| net::dns::is_host_name(&ascii));
    is_name.then(|| Entity { key: key.to_owned(), what, class })
}

/// The parts of an address in the order of names.
pub(crate) fn reversed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// Whether a list has it; an error if that could not be found out.
fn is_listed(e: &Evaluation<'_>, list: &DnsList, query: &str) -> Result<bool, ()> {
    match e.judge.names.dns().addresses(query, Family::V4) {
        Ok(answer) => Ok(answer.value.iter().any(|ip| match ip {
            IpAddr::V4(ip) => list.counts(*ip),
            IpAddr::V6(_) => true,
        })),
        Err(error) if error.is_absence() => Ok(false),
        Err(error) => {
            log::warning!("{query}: RBL lookup error: {error}");
            Err(())
        }
    }
}

fn reject(e: &Evaluation<'_>, list: &DnsList, entity: Option<Entity<'_>>) -> Result<Decision, LookupError> {
    let Some(entity) = entity else { return Ok(Decision::Dunno) };
    let query = format!("{}.{}", entity.key, list.zone);
    match is_listed(e, list, &query) {
        Ok(true) => Ok(Decision::Refuse(reply(e, list, &entity, &reason(e, &query))?)),
        // A list that does not answer blocks nobody.
        Ok(false) | Err(()) => Ok(Decision::Dunno),
    }
}

fn permit(e: &Evaluation<'_>, list: &DnsList, entity: Option<Entity<'_>>) -> Result<Decision, LookupError> {
    // No list in the DNS makes this host relay.
    if let Some(recipient) = e.subject.recipient
        && !e.judge.relay_permitted(recipient)?
    {
        return Ok(Decision::Dunno);
    }
    let Some(entity) = entity else { return Ok(Decision::Dunno) };
    match is_listed(e, list, &format!("{}.{}", entity.key, list.zone)) {
        Ok(true) => Ok(Decision::Permit),
        Ok(false) => Ok(Decision::Dunno),
        Err(()) => {
            let text = format!("<{}>: {} rejected: Service unavailable", entity.what, entity.class.words());
            Ok(Decision::DeferIfReject(Reply::new(450, Dsn::new(4, 7, 1), text)))
        }
    }
}

/// What the list says about it.
fn reason(e: &Evaluation<'_>, query: &str) -> String {
    let Ok(texts) = e.judge.names.dns().txt(query) else { return String::new() };
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    texts
        .value
        .first()
        .map(|text| text.chars().take(REASON_LIMIT).map(printable).collect())
        .unwrap_or_default()
}

/// The reply that the site has for this list.
fn reply(e: &Evaluation<'_>, list: &DnsList, entity: &Entity<'_>, txt: &str) -> Result<Reply, LookupError> {
    let replies = &e.judge.list_replies;
    let own = replies.templates.get(&list.zone)?;
    let attribute = |name: &str| attribute(e, list, entity, txt, name);
    let parameter = if own.is_some() { "rbl_reply_maps" } else { "default_rbl_reply" };
    let template = own.as_deref().unwrap_or(&replies.default);
    let text = expand(template, &replies.censor, &attribute, parameter);
    Ok(read_reply(&text, entity.class).unwrap_or_else(|| {
        log::warning!(
            "{parameter}: \"{text}\" does not begin with a reply code 4NN or 5NN; the request is deferred"
        );
        super::misconfigured()
    }))
}

/// `554 5.7.1 text`; the enhanced code may be missing.
fn read_reply(text: &str, class: Class) -> Option<Reply> {
    let (code, rest) = text.split_once(' ')?;
    let number: u16 = code.parse().ok().filter(|number| (400..600).contains(number))?;
    let status = if number < 500 { 4 } else { 5 };
    let rest = rest.trim_start();
    let (dsn, text) = match rest.split_once(' ') {
        Some((first, after)) if let Ok(dsn) = first.parse::<Dsn>() => {
            (class.fitting(dsn.with_class(status)), after.trim_start())
        }
        _ => (Dsn::new(status, 7, 1), rest),
    };
    Some(Reply::new(number, dsn, text.to_owned()))
}

fn attribute(
    e: &Evaluation<'_>,
    list: &DnsList,
    entity: &Entity<'_>,
    txt: &str,
    name: &str,
) -> Option<String> {
    let (subject, client) = (e.subject, e.subject.client);
    let local = |a: &Address| a.as_str().rsplit_once('@').map_or(a.as_str(), |(local, _)| local).to_owned();
    let address = |address: Option<&Address>, part: &str| match address {
        None => String::new(),
        Some(address) => match part {
            "domain" => address.domain().unwrap_or_default().to_owned(),
            _ if address.is_null() => "<>".to_owned(),
            "name" => local(address),
            _ => address.to_string(),
        },
    };
    Some(match name {
        "rbl_code" => e.judge.list_replies.code.to_string(),
        "rbl_domain" => list.zone.clone(),
        "rbl_reason" | "rbl_txt" => txt.to_owned(),
        "rbl_what" => entity.what.to_owned(),
        "rbl_class" => entity.class.words().to_owned(),
        "client" => format!("{}[{}]", client.name, client.address),
        "client_address" => client.address.clone(),
        "client_name" => client.name.clone(),
        "reverse_client_name" => client.reverse_name.clone(),
        "helo_name" => subject.helo.unwrap_or_default().to_owned(),
        "sender" => address(subject.sender, ""),
        "sender_name" => address(subject.sender, "name"),
        "sender_domain" => address(subject.sender, "domain"),
        "recipient" => address(subject.recipient, ""),
        "recipient_name" => address(subject.recipient, "name"),
        "recipient_domain" => address(subject.recipient, "domain"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_say_which_answers_count() {
        let matches = |pattern: &str, ip: &str| {
            DnsList::parse(&format!("zone.example={pattern}"))
                .unwrap()
                .pattern
                .unwrap()
                .matches(ip.parse().unwrap())
        };
        for (pattern, yes, no) in [
            ("127.0.0.2", "127.0.0.2", "127.0.0.3"),
            ("127.0.0.[2..4;8]", "127.0.0.4", "127.0.0.5"),
            ("127.0.0.[2..4;8]", "127.0.0.8", "127.0.1.8"),
            ("127.[0;1].[0..255].2", "127.1.77.2", "127.2.77.2"),
        ] {
            assert!(matches(pattern, yes) && !matches(pattern, no), "{pattern}");
        }
        for wrong in [
            "",
            "127.0.0",
            "127.0.0.256",
            "127.0.0.[2..",
            "127.0.0.[4..2]",
            "127.0.0.2.3",
            "127.0.0.2;3",
            "127.0.0.[]",
            "x",
        ] {
            assert!(DnsList::parse(&format!("zone.example={wrong}")).is_err(), "{wrong}");
        }
        assert!(DnsList::parse("no zone").is_err() && DnsList::parse("").is_err());
    }

    #[test]
    fn addresses_are_asked_about_backwards() {
        assert_eq!(reversed("192.0.2.7".parse().unwrap()), "7.2.0.192");
        let v6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
        assert_eq!(reversed("2001:db8::7".parse().unwrap()), v6);
    }

    #[test]
    fn replies_begin_with_a_code() {
        let read = |text: &str| read_reply(text, Class::Client).map(|reply| reply.to_string());
        assert_eq!(read("554 no").unwrap().trim_end(), "554 5.7.1 no");
        assert_eq!(read("450 5.7.9 later on").unwrap().trim_end(), "450 4.7.9 later on");
        assert!(read("no").is_none() && read("250 ok").is_none() && read("5540 x").is_none());
    }
}
