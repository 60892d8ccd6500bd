//! One message to one server: which reply decides about whom.

use std::sync::Arc;

use ipc::agent::{Request, RequestRecipient};
use mail::{Address, Body, Dsn, Outcome, Served};
use queue::Content;
use smtp_proto::client::{Event, Features, Forward, Probe, Protocol, Response, Stage, Transaction};
use smtp_proto::parameter::{Mail, Rcpt};
use smtp_proto::xtext;

use crate::agent::Client;
use crate::content::{self, Transformer};
use crate::conversation::{Conversation, Trouble};
use crate::delivery::Attempt;
use crate::failure::Failure;
use crate::opening::broken;

/// How much of a message's header is looked at for UTF-8.
const MAX_HEADER: usize = 1024 * 1024;

/// A message on its way to a server.
struct Transfer<'t, 'a, 'r> {
    attempt: &'t mut Attempt<'a, 'r>,
    conversation: &'t mut Conversation,
    /// The recipients, by their places in the transaction: their positions in the request.
    positions: Vec<usize>,
    /// Which of them have heard nothing from this server that counts.
    open: Vec<bool>,
    /// Which of them the server took.
    accepted: Vec<bool>,
    /// The session was kept from an earlier message, and the server has not shown yet that it is still there.
    doubtful: bool,
}

/// Why a transaction ended before its end.
enum Break {
    /// The server of a session that was kept is not there any more; the message may go elsewhere.
    Gone,
    Trouble(Trouble),
}

impl From<Trouble> for Break {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Sends the message to all recipients that have no answer yet. Afterwards the conversation takes another, unless it is
/// spoiled.
pub(crate) fn run(attempt: &mut Attempt<'_, '_>, conversation: &mut Conversation) {
    transact(attempt, conversation, false);
}

/// As [`run`], over a session that was kept: false, and nothing has happened, if its server is not there any more.
pub(crate) fn run_again(attempt: &mut Attempt<'_, '_>, conversation: &mut Conversation) -> bool {
    conversation.session.reset_first();
    transact(attempt, conversation, true)
}

fn transact(attempt: &mut Attempt<'_, '_>, conversation: &mut Conversation, doubtful: bool) -> bool {
    let positions = attempt.results.undecided();
    conversation.uses += 1;
    let (transaction, mut content) = match prepare(attempt, conversation, &positions) {
        Ok(prepared) => prepared,
        Err(failure) => {
            attempt.fail(&failure, conversation, &positions, false);
            return true;
        }
    };
    let (open, accepted) = (vec![true; positions.len()], vec![false; positions.len()]);
    let mut transfer = Transfer { attempt, conversation, positions, open, accepted, doubtful };
    match transfer.run(transaction, &mut content) {
        Ok(()) => {}
        Err(Break::Gone) => return false,
        Err(Break::Trouble(_)) if transfer.doubtful => return false,
        Err(Break::Trouble(trouble)) => {
            transfer.conversation.spoiled = true;
            let failure = broken(transfer.conversation, &trouble);
            transfer.fail_open(&failure, true);
        }
    }
    true
}

/// The envelope and the content, if the server can take them at all.
fn prepare(
    attempt: &Attempt<'_, '_>,
    conversation: &Conversation,
    positions: &[usize],
) -> Result<(Transaction, Content), Failure> {
    let (client, request) = (attempt.client, attempt.request());
    let unreadable = |error: &dyn std::fmt::Display| {
        ipc::log::warning!("{}: {error}", request.id);
        Failure::local(
            Dsn::new(4, 3, 0),
            format!("local data error while talking to {}", conversation.server),
        )
    };
    let content =
        Content::from_file(Arc::clone(&attempt.delivery.file)).map_err(|error| unreadable(&error))?;
    let recipients: Vec<&RequestRecipient> =
        positions.iter().filter_map(|position| request.recipients.get(*position)).collect();
    let features = conversation.session.features();
    if let Some(Some(limit)) = features.size.filter(|limit| limit.is_some_and(|limit| limit < request.size)) {
        let text = format!(
            "message size {} exceeds size limit {limit} of server {}",
            request.size, conversation.server
        );
        return Err(Failure::local(Dsn::new(5, 3, 4), text));
    }
    if request.smtputf8 && !features.smtputf8 {
        let needs = needs_utf8(request, &recipients, &content).map_err(|error| unreadable(&error))?;
        if needs {
            let text = format!("SMTPUTF8 is required, but was not offered by host {}", conversation.server);
            return Err(Failure::local(Dsn::new(5, 6, 7), text));
        }
    }
    let transaction = transaction(client, request, features, &recipients).map_err(|error| {
        ipc::log::warning!("{}: {error}", request.id);
        Failure::local(Dsn::new(4, 3, 0), "address mapping lookup problem")
    })?;
    Ok((transaction, content))
}

/// Whether anything of the message cannot go to a server without SMTPUTF8 (RFC 6531 section 3.3), whatever its sender
/// declared.
fn needs_utf8(
    request: &Request,
    recipients: &[&RequestRecipient],
    content: &Content,
) -> std::io::Result<bool> {
    let ascii = request.sender.is_ascii() && recipients.iter().all(|recipient| recipient.address.is_ascii());
    Ok(!ascii || !content.header(MAX_HEADER)?.is_ascii())
}

fn transaction(
    client: &Client,
    request: &Request,
    features: &Features,
    recipients: &[&RequestRecipient],
) -> Result<Transaction, lookup::LookupError> {
    let shown = |address: &Address| {
        Ok::<_, lookup::LookupError>(client.generic.map(address)?.unwrap_or_else(|| address.clone()))
    };
    let recipients = recipients.iter().map(|recipient| {
        Ok(Rcpt {
            recipient: shown(&recipient.address)?,
            notify: recipient.notify,
            orcpt: Some(original_recipient(recipient, request.smtputf8)),
        })
    });
    let settings = &client.settings;
    let probe = probe_of(client, request);
    Ok(Transaction {
        forward: settings.send_xforward.then(|| forward(request)),
        mail: Mail {
            sender: shown(&request.sender)?,
            // What is converted becomes larger, nobody knows by how much.
            size: Some(request.size).filter(|_| !converts(client, request, features)),
            body: request.body,
            smtputf8: request.smtputf8,
            ret: request.ret,
            envid: request.envid.clone(),
            auth: settings.send_dummy_mail_auth.then(|| "<>".to_owned()),
        },
        requiretls: false,
        recipients: recipients.collect::<Result<_, lookup::LookupError>>()?,
        // It saves a round trip where DATA cannot be sent along with RCPT; otherwise dots are what servers know best.
        chunking: features.chunking && !features.pipelining && probe == Probe::No,
        probe,
    })
}

/// How far an address probe goes: `smtp_address_verify_target`.
fn probe_of(client: &Client, request: &Request) -> Probe {
    match (request.trace.is_probe(), client.settings.verifies_at_data) {
        (false, _) => Probe::No,
        (true, false) => Probe::Recipients,
        (true, true) => Probe::Data,
    }
}

/// Whether 8-bit content, if it is that, becomes quoted-printable for this server.
fn converts(client: &Client, request: &Request, features: &Features) -> bool {
    client.settings.convert_mime && !features.eight_bit_mime && request.body != Body::SevenBit
}

/// ORCPT (RFC 3461 section 4.2): as received, or the address as it was before this mail system changed it.
fn original_recipient(recipient: &RequestRecipient, smtputf8: bool) -> String {
    recipient.orcpt.clone().unwrap_or_else(|| {
        let address = recipient.original.as_ref().unwrap_or(&recipient.address);
        // RFC 6533 section 3.
        let kind = if smtputf8 && !address.is_ascii() { "utf-8" } else { "rfc822" };
        format!("{kind};{}", xtext::encode(&address.to_path()))
    })
}

fn forward(request: &Request) -> Forward {
    let known = |text: &str| (!text.is_empty() && text != "unknown").then(|| text.to_owned());
    let client = &request.client;
    let address = known(&client.address)
        .map(|address| if address.contains(':') { format!("IPv6:{address}") } else { address });
    Forward {
        name: known(&client.name),
        address,
        port: Some(client.port).filter(|port| *port != 0),
        protocol: known(&client.protocol).map(base_protocol),
        helo: known(&client.helo),
        identity: Some(request.first_id.clone().unwrap_or_else(|| request.id.to_string())),
        local: request.is_local,
    }
}

/// What servers know of XFORWARD's PROTO: not whether there were TLS, a login or UTF-8.
fn base_protocol(name: String) -> String {
    match name.starts_with("ESMTP") || name.starts_with("UTF8SMTP") {
        true => "ESMTP".to_owned(),
        false => name,
    }
}

impl Transfer<'_, '_, '_> {
    fn run(&mut self, transaction: Transaction, content: &mut Content) -> Result<(), Break> {
        let out_of_turn = |error: smtp_proto::client::Error| Trouble::Protocol(error.to_string());
        self.conversation.session.send(transaction).map_err(out_of_turn)?;
        loop {
            match self.conversation.next()? {
                Event::Idle => return Ok(()),
                // What else was sent with it does not count: the connection ends here.
                Event::Reply { to: Stage::Reset, accepted: false, .. } if self.doubtful => {
                    return Err(Break::Gone);
                }
                Event::Reply { to, accepted, response } => {
                    self.doubtful = false;
                    self.replied(to, accepted, &response);
                }
                Event::Content => {
                    if !self.send(content)? {
                        return Ok(());
                    }
                }
                Event::Read | Event::Closed(_) | Event::Handshake | Event::AuthAbandoned(_) => {
                    return Err(Trouble::Protocol("an event that cannot be here".to_owned()).into());
                }
            }
        }
    }

    fn replied(&mut self, to: Stage, accepted: bool, response: &Response) {
        match to {
            Stage::Recipient(place) if accepted => {
                self.mark_accepted(place);
                if probe_of(self.attempt.client, self.attempt.request()) == Probe::Recipients {
                    self.succeed(place, response);
                }
            }
            Stage::Recipient(place) | Stage::EndFor(place) if !accepted => {
                let failure = Failure::reply(&self.conversation.server, response, to);
                self.fail_places(&failure, &[place], false);
            }
            Stage::EndFor(place) => self.succeed(place, response),
            Stage::Data
                if accepted && probe_of(self.attempt.client, self.attempt.request()) == Probe::Data =>
            {
                for place in self.taken() {
                    self.succeed(place, response);
                }
            }
            Stage::End if accepted => {
                for place in self.taken() {
                    self.succeed(place, response);
                }
            }
            Stage::ForwardClient | Stage::ForwardProtocol if !accepted => {
                let failure = Failure::reply(&self.conversation.server, response, to);
                ipc::log::info!("{}: {}", self.attempt.request().id, failure.text);
            }
            Stage::Reset if !accepted => {
                let failure = Failure::reply(&self.conversation.server, response, to);
                self.conversation.spoiled = true;
                self.fail_open(&failure.softened(), false);
            }
            _ if accepted => {}
            _ => {
                let failure = Failure::reply(&self.conversation.server, response, to);
                self.fail_open(&failure, false);
            }
        }
    }

    fn mark_accepted(&mut self, place: usize) {
        if let Some(accepted) = self.accepted.get_mut(place) {
            *accepted = true;
        }
    }

    /// The places that the server took and that nothing else was said of.
    fn taken(&self) -> Vec<usize> {
        (0..self.open.len()).filter(|place| self.open[*place] && self.accepted[*place]).collect()
    }

    fn succeed(&mut self, place: usize, response: &Response) {
        let (Some(open), Some(position)) = (self.open.get_mut(place), self.positions.get(place)) else {
            return;
        };
        if !std::mem::replace(open, false) {
            return;
        }
        let settings = &self.attempt.client.settings;
        let served = match self.conversation.session.features().dsn {
            true => Served::PassedOn,
            false if settings.protocol == Protocol::Lmtp && settings.assume_final => Served::Delivered,
            false => Served::Relayed,
        };
        let server = &self.conversation.server;
        let text = response.to_string();
        let mut outcome = Outcome::sent(&server.with_port(), text.clone());
        // The 354 that ends a probe has no code of a success.
        if response.is_positive() {
            outcome.dsn = response.dsn();
        }
        self.attempt.results.give(*position, outcome.counted_as(served).said_by(&server.host, Some(&text)));
    }

    fn fail_open(&mut self, failure: &Failure, site: bool) {
        let places: Vec<usize> = (0..self.open.len()).filter(|place| self.open[*place]).collect();
        self.fail_places(failure, &places, site);
    }

    fn fail_places(&mut self, failure: &Failure, places: &[usize], site: bool) {
        let mut positions = Vec::with_capacity(places.len());
        for place in places {
            if let (Some(open), Some(position)) = (self.open.get_mut(*place), self.positions.get(*place))
                && std::mem::replace(open, false)
            {
                positions.push(*position);
            }
        }
        self.attempt.fail(failure, self.conversation, &positions, site);
    }

    /// Sends the content. False: it could not be read to its end, and the conversation with it is over.
    fn send(&mut self, content: &mut Content) -> Result<bool, Trouble> {
        let client = self.attempt.client;
        let request = self.attempt.request();
        let features = self.conversation.session.features();
        let transformer = Transformer {
            id: request.id,
            generic: &client.generic,
            checks: &client.checks,
            to_seven_bits: converts(client, request, features),
        };
        let conversation = &mut *self.conversation;
        match transformer.run(content, |piece| conversation.content(piece)) {
            Ok(()) => {
                let ended = self.conversation.session.end_content();
                ended.map_err(|error| Trouble::Protocol(error.to_string()))?;
                return Ok(true);
            }
            Err(content::Failure::Send(trouble)) => return Err(trouble),
            Err(content::Failure::Read(error)) => ipc::log::warning!("{}: read: {error}", request.id),
            Err(content::Failure::Lookup(error)) => ipc::log::warning!("{}: {error}", request.id),
        }
        // What is there must not look like a whole message: the connection ends without the final dot.
        self.conversation.spoiled = true;
        self.conversation.stream.close();
        let text = format!("local data error while talking to {}", self.conversation.server);
        self.fail_open(&Failure::local(Dsn::new(4, 3, 0), text), false);
        Ok(false)
    }
}
