//! XCLIENT: a trusted client says for whom it speaks. The session begins anew, as that client's.

use ipc::log;
use smtp_proto::server::Helo;
use smtp_proto::{Fault, Reply, Verb};

use super::attribute::{self, Attribute};
use super::dialogue::Dialogue;
use crate::client::{Client, Login, UNKNOWN};
use crate::server::Server;

/// What an XCLIENT command has changed.
pub(super) struct Changed {
    client: Client,
    /// HELO and PROTO, where they were given.
    helo: Option<String>,
    extended: Option<bool>,
}

impl Dialogue<'_> {
    /// Becomes the client that the arguments describe.
    ///
    /// # Errors
    /// The reply where this client may not say so, or says it wrongly: then nothing changes.
    pub(super) fn xclient(&mut self, arguments: &str) -> Result<Option<Helo>, Reply> {
        let attributes = attribute::parse(Verb::Xclient, arguments)?;
        if !self.server.may_name_clients(&self.client) {
            return Err(Fault::NotAuthorized.reply(&self.server.settings.hostname));
        }
        let mut changed = Changed { client: self.client.clone(), helo: None, extended: None };
        let gives_login = attributes.iter().any(|attribute| attribute.name == "LOGIN");
        // NAME alone stands for both names.
        let (reverse, others): (Vec<_>, Vec<_>) =
            attributes.iter().partition(|attribute| attribute.name == "REVERSE_NAME");
        for attribute in others.into_iter().chain(reverse) {
            changed.take(attribute)?;
        }
        if !gives_login {
            changed.client.login = None;
        }
        let from = self.client.to_string();
        self.forget_transaction();
        self.forwarded = None;
        self.client = changed.client;
        self.client.is_local = self.server.is_own(&self.client);
        let extended = changed.extended.unwrap_or(false);
        self.helo = changed.helo.map(|name| Helo { name, extended });
        if self.client.to_string() != from {
            log::info!("XCLIENT from {from}: the client is {}", self.client);
        }
        Ok(self.helo.clone())
    }
}

impl Changed {
    fn take(&mut self, attribute: &Attribute) -> Result<(), Reply> {
        let client = &mut self.client;
        match attribute.name.as_str() {
            "NAME" => {
                client.name_is_temporary = attribute.temporary;
                client.name = attribute.host_name()?.unwrap_or_else(|| UNKNOWN.to_owned());
                client.reverse_name.clone_from(&client.name);
            }
            "REVERSE_NAME" => {
                client.reverse_name_is_temporary = attribute.temporary;
                client.reverse_name = attribute.host_name()?.unwrap_or_else(|| UNKNOWN.to_owned());
            }
            "ADDR" => {
                client.ip = attribute.address()?;
                client.on_unix_socket = false;
                client.address = client.ip.map_or_else(|| UNKNOWN.to_owned(), |ip| ip.to_string());
            }
            "PORT" => client.port = attribute.port()?,
            "DESTADDR" => {
                client.server_address = attribute.address()?.map(|ip| ip.to_string()).unwrap_or_default();
            }
            "DESTPORT" => client.server_port = attribute.port()?,
            "HELO" => self.helo = attribute.helo(),
            "PROTO" => match attribute.value.as_deref().map(str::to_ascii_uppercase).as_deref() {
                Some("SMTP") => self.extended = Some(false),
                Some("ESMTP") => self.extended = Some(true),
                _ => return Err(attribute.bad()),
            },
            "LOGIN" => {
                client.login = attribute
                    .value
                    .clone()
                    .map(|username| Login { method: Verb::Xclient.name().to_owned(), username });
            }
            _ => return Err(attribute.unknown(Verb::Xclient)),
        }
        Ok(())
    }
}

impl Server {
    /// Whether the client has an address of this host.
    fn is_own(&self, client: &Client) -> bool {
        let _ = self;
        client.on_unix_socket
            || client.ip.is_some_and(|ip| ip.is_loopback() || ip.to_string() == client.server_address)
    }
}
