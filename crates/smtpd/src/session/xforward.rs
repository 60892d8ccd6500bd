//! XFORWARD: a content filter passes on where the next message came from. It changes what is logged, never what is
//! permitted.

use std::fmt;

use mail::Dsn;
use smtp_proto::{Fault, Reply, Verb};

use super::attribute::{self, Attribute};
use super::dialogue::Dialogue;
use crate::client::UNKNOWN;

/// The longest name of a protocol.
const MAX_PROTOCOL: usize = 64;

/// The client that had the message first, as the filter knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    name: Option<String>,
    address: Option<String>,
    port: u16,
    helo: Option<String>,
    protocol: Option<String>,
    /// The message's queue id there.
    ident: Option<String>,
    /// Something was said of the client, be it that nothing is known.
    names_client: bool,
    /// Whether it came from that host itself, so that its headers are completed like those of local mail; none where
    /// nothing was said of it.
    pub(super) is_local: Option<bool>,
}

impl Dialogue<'_> {
    /// Takes attributes for the next message.
    ///
    /// # Errors
    /// The reply where this client may not say so, or says it wrongly: then nothing changes.
    pub(super) fn xforward(&mut self, arguments: &str) -> Result<Reply, Reply> {
        let attributes = attribute::parse(Verb::Xforward, arguments)?;
        if !self.server.may_forward(&self.client) {
            return Err(Fault::NotAuthorized.reply(&self.server.settings.hostname));
        }
        let mut forwarded = self.forwarded.clone().unwrap_or_default();
        for attribute in &attributes {
            forwarded.take(attribute)?;
        }
        self.forwarded = Some(forwarded);
        Ok(Reply::new(250, Dsn::new(2, 0, 0), "Ok"))
    }
}

impl Forwarded {
    /// What is passed on with the message.
    pub(super) fn to_pass_on(&self) -> mail::Forwarded {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let client = mail::Client {
            name: text(&self.name),
            address: text(&self.address),
            port: self.port,
            helo: text(&self.helo),
            protocol: text(&self.protocol),
            ..mail::Client::default()
        };
        mail::Forwarded { client: self.names_client.then_some(client), id: self.ident.clone() }
    }

    fn take(&mut self, attribute: &Attribute) -> Result<(), Reply> {
        self.names_client |= !matches!(attribute.name.as_str(), "IDENT" | "SOURCE");
        match attribute.name.as_str() {
            "NAME" => self.name = attribute.host_name()?,
            "ADDR" => self.address = attribute.address()?.map(|ip| ip.to_string()),
            "PORT" => self.port = attribute.port()?,
            "HELO" => self.helo = attribute.helo(),
            "PROTO" => {
                let protocol = attribute.word();
                if protocol.as_ref().is_some_and(|protocol| protocol.len() > MAX_PROTOCOL) {
                    return Err(attribute.bad());
                }
                self.protocol = protocol;
            }
            "IDENT" => self.ident = attribute.word(),
            "SOURCE" => match attribute.value.as_deref().map(str::to_ascii_uppercase).as_deref() {
                Some("LOCAL") => self.is_local = Some(true),
                Some("REMOTE") | None => self.is_local = Some(false),
                Some(_) => return Err(attribute.bad()),
            },
            _ => return Err(attribute.unknown(Verb::Xforward)),
        }
        Ok(())
    }
}

impl fmt::Display for Forwarded {
    /// What follows the client where a message begins in the log: `, orig_queue_id=…, orig_client=…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ident) = &self.ident {
            write!(f, ", orig_queue_id={ident}")?;
        }
        match (&self.name, &self.address) {
            (None, None) => Ok(()),
            (Some(name), None) => write!(f, ", orig_client={name}"),
            (name, Some(address)) => {
                write!(f, ", orig_client={}[{address}]", name.as_deref().unwrap_or(UNKNOWN))
            }
        }
    }
}
