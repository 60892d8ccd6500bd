//! The arguments of XCLIENT and XFORWARD: `NAME=value`, values in xtext.

use std::net::IpAddr;

use mail::Dsn;
use smtp_proto::path::is_host_name;
use smtp_proto::{Reply, Verb, xtext};

/// The longest value.
const MAX_VALUE: usize = 255;

/// One attribute; a value is none where it said `[UNAVAILABLE]`.
pub(crate) struct Attribute {
    /// In upper case.
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    /// `[TEMPUNAVAIL]`: the name of the client could not be found for now.
    pub(crate) temporary: bool,
    said: String,
}

/// The arguments of a command.
///
/// # Errors
/// The reply to arguments that are none.
pub(crate) fn parse(verb: Verb, arguments: &str) -> Result<Vec<Attribute>, Reply> {
    let words: Vec<&str> = arguments.split_ascii_whitespace().collect();
    if words.is_empty() {
        return Err(syntax(format!("Syntax: {} attribute=value...", verb.name())));
    }
    words.into_iter().map(attribute).collect()
}

fn attribute(word: &str) -> Result<Attribute, Reply> {
    let found = word.split_once('=').filter(|(_, value)| !value.is_empty());
    let (name, said) = found.ok_or_else(|| syntax("Error: attribute=value expected".to_owned()))?;
    let name = name.to_ascii_uppercase();
    let mut attribute = Attribute { name, value: None, temporary: false, said: said.to_owned() };
    if said.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
        attribute.temporary = true;
    } else if !said.eq_ignore_ascii_case("[UNAVAILABLE]") {
        let value = xtext::decode(said).filter(|value| value.len() <= MAX_VALUE);
        attribute.value = Some(value.ok_or_else(|| attribute.bad())?);
    }
    Ok(attribute)
}

impl Attribute {
    /// A value that the attribute cannot have.
    pub(crate) fn bad(&self) -> Reply {
        syntax(format!("Bad {} syntax: {}", self.name, self.said))
    }

    /// An attribute that does not exist.
    pub(crate) fn unknown(&self, verb: Verb) -> Reply {
        syntax(format!("Bad {} attribute name: {}", verb.name(), self.name))
    }

    /// A host name, none where there is none.
    pub(crate) fn host_name(&self) -> Result<Option<String>, Reply> {
        match &self.value {
            Some(name) if !is_host_name(name) => Err(self.bad()),
            value => Ok(value.clone()),
        }
    }

    /// An address without brackets; IPv6 after `IPV6:`. One of IPv4 in the form of IPv6 is of IPv4.
    pub(crate) fn address(&self) -> Result<Option<IpAddr>, Reply> {
        let Some(text) = &self.value else { return Ok(None) };
        let tagged = text.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPV6:"));
        let address = match tagged {
            Some(tag) => text[tag.len()..].parse().ok().map(IpAddr::V6),
            None => text.parse().ok().map(IpAddr::V4),
        };
        address.map(|ip| Some(ip.to_canonical())).ok_or_else(|| self.bad())
    }

    /// A port, 0 where there is none.
    pub(crate) fn port(&self) -> Result<u16, Reply> {
        self.value.as_ref().map_or(Ok(0), |text| text.parse().map_err(|_| self.bad()))
    }

    /// Printable text without blanks and what has a meaning in headers.
    pub(crate) fn word(&self) -> Option<String> {
        let neutral = |c: char| match c {
            '(' | ')' | '<' | '>' | ';' | ':' | ',' | '"' | '\\' | '@' => '?',
            c if c.is_whitespace() => '?',
            c => c,
        };
        self.value.as_ref().map(|text| text.chars().map(neutral).collect())
    }

    /// A name as a client gives it to HELO: a literal keeps its colons.
    pub(crate) fn helo(&self) -> Option<String> {
        let neutral = |c: char| if c.is_whitespace() || "()<>;,\"\\".contains(c) { '?' } else { c };
        self.value.as_ref().map(|text| text.chars().map(neutral).collect())
    }
}

fn syntax(text: String) -> Reply {
    Reply::new(501, Dsn::new(5, 5, 4), text)
}
