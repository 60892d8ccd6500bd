//! What goes over the wire for a message's envelope: XFORWARD, MAIL and RCPT with the parameters that the server knows.

use mail::{Body, DsnReturn, Notify};

use super::Features;
use super::Stage;
use crate::parameter::{Mail, Rcpt};
use crate::xtext;

/// Where a message came from, for a server that takes XFORWARD. What is not known is not spoken of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// The client's host name.
    pub name: Option<String>,
    /// Its address; IPv6 with `IPv6:` before it.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// `SMTP`, `ESMTP` …
    pub protocol: Option<String>,
    /// What it said in HELO.
    pub helo: Option<String>,
    /// The queue id.
    pub identity: Option<String>,
    /// The message came from this host itself, not over the network.
    pub local: bool,
}

impl Forward {
    /// Appends the arguments of one of the two commands; says whether the server takes any of them. There are two so
    /// that a line stays below 512 bytes.
    fn write(&self, stage: Stage, taken: &[String], out: &mut String) -> bool {
        let port = self.port.map(|port| port.to_string());
        let source = if self.local { "LOCAL" } else { "REMOTE" };
        let attributes: &[(&str, Option<&str>)] = match stage {
            Stage::ForwardClient => &[
                ("NAME", self.name.as_deref()),
                ("ADDR", self.address.as_deref()),
                ("PORT", port.as_deref()),
            ],
            _ => &[
                ("PROTO", self.protocol.as_deref()),
                ("HELO", self.helo.as_deref()),
                ("IDENT", self.identity.as_deref()),
                ("SOURCE", Some(source)),
            ],
        };
        let before = out.len();
        for (name, value) in attributes.iter().filter(|(name, _)| taken.iter().any(|other| other == name)) {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                out.push_str(&format!(" {name}={}", xtext::encode(value)));
            }
        }
        out.len() > before
    }
}

/// A message's envelope, as it is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Where the message came from, if the server is to be told.
    pub forward: Option<Forward>,
    /// The sender and what it asks for; what the server does not offer is left out.
    pub mail: Mail,
    /// The message was submitted with REQUIRETLS (RFC 8689).
    pub requiretls: bool,
    /// The recipients; their numbers in replies are their places here.
    pub recipients: Vec<Rcpt>,
    /// Send the content by BDAT where the server offers CHUNKING.
    pub chunking: bool,
    /// Only find out whom the server would take it for.
    pub probe: Probe,
}

/// How far a transaction goes that is there only to find out about its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Probe {
    /// All the way: it is none.
    #[default]
    No,
    /// Nothing follows the last RCPT.
    Recipients,
    /// Up to the reply to DATA, for servers that refuse recipients there. No content follows: the session is over then.
    Data,
}

impl Transaction {
    /// Writes the command of a stage; says whether there is one.
    pub(super) fn write(&self, stage: Stage, features: &Features, out: &mut String) -> bool {
        match stage {
            Stage::Reset => out.push_str("RSET"),
            Stage::ForwardClient | Stage::ForwardProtocol => {
                let start = out.len();
                out.push_str("XFORWARD");
                let any = self
                    .forward
                    .as_ref()
                    .is_some_and(|forward| forward.write(stage, &features.xforward, out));
                if !any {
                    out.truncate(start);
                    return false;
                }
            }
            Stage::Mail => self.write_mail(features, out),
            Stage::Recipient(place) => match self.recipients.get(place) {
                Some(recipient) => write_rcpt(recipient, features, out),
                None => return false,
            },
            _ => out.push_str("DATA"),
        }
        out.push_str("\r\n");
        true
    }

    fn write_mail(&self, features: &Features, out: &mut String) {
        let mail = &self.mail;
        out.push_str(&format!("MAIL FROM:<{}>", mail.sender.to_path()));
        if let (Some(_), Some(size)) = (features.size, mail.size) {
            out.push_str(&format!(" SIZE={size}"));
        }
        if features.eight_bit_mime {
            out.push_str(match mail.body {
                Body::EightBitMime => " BODY=8BITMIME",
                Body::SevenBit => " BODY=7BIT",
                Body::Unspecified => "",
            });
        }
        if features.smtputf8 && mail.smtputf8 {
            out.push_str(" SMTPUTF8");
        }
        if features.dsn {
            if let Some(envid) = mail.envid.as_deref().filter(|envid| is_word(envid)) {
                out.push_str(&format!(" ENVID={envid}"));
            }
            out.push_str(match mail.ret {
                Some(DsnReturn::Full) => " RET=FULL",
                Some(DsnReturn::Headers) => " RET=HDRS",
                None => "",
            });
        }
        if let (Some(_), Some(auth)) = (&features.auth, &mail.auth) {
            let auth = if auth == "<>" { auth.clone() } else { xtext::encode(auth) };
            out.push_str(&format!(" AUTH={auth}"));
        }
        if features.requiretls && self.requiretls {
            out.push_str(" REQUIRETLS");
        }
    }
}

fn write_rcpt(recipient: &Rcpt, features: &Features, out: &mut String) {
    out.push_str(&format!("RCPT TO:<{}>", recipient.recipient.to_path()));
    if !features.dsn {
        return;
    }
    if let Some(orcpt) = recipient.orcpt.as_deref().filter(|orcpt| is_word(orcpt)) {
        out.push_str(&format!(" ORCPT={orcpt}"));
    }
    let words: Vec<_> = [
        (Notify::NEVER, "NEVER"),
        (Notify::SUCCESS, "SUCCESS"),
        (Notify::FAILURE, "FAILURE"),
        (Notify::DELAY, "DELAY"),
    ]
    .into_iter()
    .filter_map(|(asked, word)| recipient.notify.contains(asked).then_some(word))
    .collect();
    if !words.is_empty() {
        out.push_str(&format!(" NOTIFY={}", words.join(",")));
    }
}

/// Whether the value, which is passed on as it was received, can stand in a command without changing its meaning.
fn is_word(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| !c.is_control() && !c.is_whitespace())
}
