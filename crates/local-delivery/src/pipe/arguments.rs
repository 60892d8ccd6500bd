//! The arguments of a command: `-d ${recipient}` becomes one argument for each recipient.
//!
//! Pure. What comes from outside takes the place of a name within ONE argument, whatever blanks and quotes it has: there
//! is no shell.

use std::borrow::Cow;

use ipc::agent::Request;
use lookup::Delimiters;
use mail::Address;
use service::DeliveryRecipient;

use super::attributes::{AddressFlags, Attributes};

/// An argument with names in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(Name),
}

/// What an argument may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    ClientAddress,
    ClientHelo,
    ClientHostname,
    ClientPort,
    ClientProtocol,
    Domain,
    Envid,
    Extension,
    Mailbox,
    Nexthop,
    OriginalRecipient,
    QueueId,
    Recipient,
    SaslMethod,
    SaslSender,
    SaslUsername,
    Sender,
    Size,
    User,
}

const NAMES: [(&str, Name); 19] = [
    ("client_address", Name::ClientAddress),
    ("client_helo", Name::ClientHelo),
    ("client_hostname", Name::ClientHostname),
    ("client_port", Name::ClientPort),
    ("client_protocol", Name::ClientProtocol),
    ("domain", Name::Domain),
    ("envid", Name::Envid),
    ("extension", Name::Extension),
    ("mailbox", Name::Mailbox),
    ("nexthop", Name::Nexthop),
    ("original_recipient", Name::OriginalRecipient),
    ("queue_id", Name::QueueId),
    ("recipient", Name::Recipient),
    ("sasl_method", Name::SaslMethod),
    ("sasl_sender", Name::SaslSender),
    ("sasl_username", Name::SaslUsername),
    ("sender", Name::Sender),
    ("size", Name::Size),
    ("user", Name::User),
];

impl Name {
    fn of(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, name)| *name);
        found.ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("argv: unknown name \"{text}\": expected one of {}", known.join(", "))
        })
    }

    /// Whether it differs from recipient to recipient.
    fn is_per_recipient(self) -> bool {
        use Name::{Domain, Extension, Mailbox, OriginalRecipient, Recipient, User};
        matches!(self, Domain | Extension | Mailbox | OriginalRecipient | Recipient | User)
    }
}

impl Template {
    /// Reads `text` with `$name`, `${name}`, `$(name)`, and `$$` for a dollar sign.
    ///
    /// # Errors
    /// An unknown name, or one that does not end.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(dollar) = rest.find('$') {
            plain.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let (name, after) = match rest.as_bytes().first() {
                Some(b'{') => enclosed(rest, '}')?,
                Some(b'(') => enclosed(rest, ')')?,
                _ => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()))
                }
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Name(Name::of(name)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of an argument that names nothing.
    pub(super) fn fixed(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    fn is_per_recipient(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Name(name) if name.is_per_recipient()))
    }

    fn fill(&self, value: impl Fn(Name) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Name(name) => value(*name),
        });
        parts.collect()
    }
}

fn enclosed(text: &str, close: char) -> Result<(&str, &str), String> {
    match text[1..].split_once(close) {
        Some((name, after)) => Ok((name.trim(), after)),
        None => Err(format!("argv: no closing {close} in \"${text}\"")),
    }
}

/// What arguments are made of.
pub(super) struct Values<'a> {
    pub(super) request: &'a Request,
    pub(super) recipients: &'a [DeliveryRecipient],
    pub(super) delimiters: &'a Delimiters,
    pub(super) attributes: &'a Attributes,
}

impl Values<'_> {
    /// The words of the command, one for each recipient where a word speaks of recipients.
    ///
    /// # Errors
    /// What cannot be an argument.
    pub(super) fn command(&self) -> Result<Vec<String>, String> {
        let mut words = Vec::with_capacity(self.attributes.command.len() + self.recipients.len());
        for template in &self.attributes.command {
            if template.is_per_recipient() {
                words.extend(self.recipients.iter().map(|one| template.fill(|name| self.of_one(name, one))));
            } else {
                words.push(template.fill(|name| self.of_all(name)));
            }
        }
        match words.iter().find(|word| word.contains('\0')) {
            Some(word) => Err(format!("a zero byte in the argument {word:?}")),
            None => Ok(words),
        }
    }

    fn of_all(&self, name: Name) -> String {
        let (request, client) = (self.request, &self.request.client);
        match name {
            Name::ClientAddress => client.address.clone(),
            Name::ClientHelo => client.helo.clone(),
            Name::ClientHostname => client.name.clone(),
            Name::ClientPort if client.port == 0 => String::new(),
            Name::ClientPort => client.port.to_string(),
            Name::ClientProtocol => client.protocol.clone(),
            Name::Envid => request.envid.clone().unwrap_or_default(),
            Name::Nexthop => self.domain_form(&request.nexthop),
            Name::QueueId => request.id.to_string(),
            Name::SaslMethod => client.sasl_method.clone(),
            Name::SaslSender => client.sasl_sender.clone(),
            Name::SaslUsername => client.sasl_username.clone(),
            Name::Sender => self.sender(),
            Name::Size => request.size.to_string(),
            Name::Domain
            | Name::Extension
            | Name::Mailbox
            | Name::OriginalRecipient
            | Name::Recipient
            | Name::User => String::new(),
        }
    }

    fn of_one(&self, name: Name, recipient: &DeliveryRecipient) -> String {
        let address = &recipient.address;
        let local = self.local_form(address.local_part());
        match name {
            Name::Domain => self.domain_form(address.domain().unwrap_or_default()),
            Name::Mailbox => local.into_owned(),
            Name::User => self.delimiters.split(&local).map_or(&*local, |(user, _)| user).to_owned(),
            Name::Extension => {
                let extension = self.delimiters.split(&local).map(|(_, extension)| extension);
                // It comes with its delimiter, which is one character.
                extension.map(|text| text.chars().skip(1).collect()).unwrap_or_default()
            }
            Name::Recipient => self.address_form(address),
            Name::OriginalRecipient => self.address_form(recipient.original.as_ref().unwrap_or(address)),
            name => self.of_all(name),
        }
    }

    fn sender(&self) -> String {
        let sender = &self.request.sender;
        let quotes = self.attributes.addresses.quote;
        match sender.is_null() {
            false if quotes => sender.to_path(),
            false => sender.as_str().to_owned(),
            true => match Address::new(self.attributes.null_sender.as_str()) {
                Ok(replacement) if quotes => replacement.to_path(),
                _ => self.attributes.null_sender.clone(),
            },
        }
    }

    fn address_form(&self, address: &Address) -> String {
        let AddressFlags { quote, .. } = self.attributes.addresses;
        let local = self.local_form(address.local_part());
        let form = match address.domain() {
            Some(domain) => format!("{local}@{}", self.domain_form(domain)),
            None => local.into_owned(),
        };
        match Address::new(form.as_str()) {
            Ok(address) if quote => address.to_path(),
            _ => form,
        }
    }

    fn local_form<'b>(&self, local: &'b str) -> Cow<'b, str> {
        if self.attributes.addresses.fold_local { local.to_lowercase().into() } else { local.into() }
    }

    fn domain_form(&self, domain: &str) -> String {
        if self.attributes.addresses.fold_domain { domain.to_lowercase() } else { domain.to_owned() }
    }
}
