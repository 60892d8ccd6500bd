//! One client, from its connection to its end.
//!
//! [`conversation`] carries bytes between the client and the protocol and passes events on; [`dialogue`] knows the client
//! and answers them, [`transaction`] those about mail, [`extension`] the commands that `smtp-proto` leaves to the server.

pub(crate) mod attribute;
mod auth;
mod conversation;
mod dialogue;
mod etrn;
mod extension;
mod greeting;
pub(crate) mod site;
mod starttls;
mod transaction;
mod xclient;
mod xforward;

use std::net::SocketAddr;

use ipc::log;
use service::Connection;
use smtp_proto::Reply;
use smtp_proto::server::Session;

use crate::client::{Client, UNKNOWN};
use crate::limits::Counted;
use crate::proxy::{self, Header};
use crate::server::Server;
use crate::wire::Wire;
use conversation::Conversation;
use dialogue::Dialogue;

/// Serves one client. `stopping` says whether the mail system is being stopped.
pub(crate) fn serve(server: &Server, connection: &Connection, stopping: &dyn Fn() -> bool) {
    let Some((mut conversation, _counted)) = begin(server, connection, stopping) else { return };
    let ending = conversation.run();
    conversation.end(ending);
}

/// The beginning, up to the greeting; none for a client that has no session. What lives as long as the session is not on the stack,
/// of which a thread keeps whole pages.
#[inline(never)]
fn begin<'a>(
    server: &'a Server,
    connection: &'a Connection,
    stopping: &'a dyn Fn() -> bool,
) -> Option<(Box<Conversation<'a>>, Option<Counted>)> {
    let (peer, local) = addresses(server, connection)?;
    if let Some(banned) = peer.and_then(|peer| server.limits.banned(peer.ip())) {
        turn_away(server, connection, peer, &banned);
        return None;
    }
    let mut client = Client::new(peer, local, &server.names);
    client.shows_port = server.client_port_logging && client.port > 0;
    log::connected(&client);
    let Ok(wire) = Wire::new(&connection.stream, server.patience) else {
        log::broke_off("lost connection", "CONNECT", &client);
        log::disconnected(&client, &" commands=0");
        return None;
    };
    let counted = server.limits.count(&client);
    let mut dialogue = Dialogue::new(server, client);
    let opening = greeting::opening(&mut dialogue, counted.as_ref());
    let named = dialogue.client.to_string();
    let mut conversation = Box::new(Conversation {
        proto: Session::new(server.settings.clone(), opening.policy, server.command_buffer()),
        wire,
        dialogue,
        stopping,
        transcript: server.notices.begin(),
    });
    let client = &conversation.dialogue.client;
    let rules = server.site.rules_for(&client.address, client.port);
    let shown = (client.debug_level > 0).then(|| named.clone());
    conversation.proto.set_site_rules(rules);
    conversation.transcript.show(shown);
    if server.tls.as_ref().is_some_and(|tls| tls.wrapper)
        && let Err(lost) = conversation.encrypt()
    {
        conversation.end(Err(lost));
        return None;
    }
    conversation.look_for_early_talker(&connection.stream);
    conversation.proto.greet(&opening.greeting, &named);
    Some((conversation, counted))
}

/// Sends a banned client away: no name is looked up, no session begun.
fn turn_away(server: &Server, connection: &Connection, peer: Option<SocketAddr>, reply: &Reply) {
    let address = peer.map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
    let client = format!("{UNKNOWN}[{address}]");
    log::connected(&client);
    log::judged(None, "reject", "CONNECT", &client, reply, &" proto=SMTP");
    if let Ok(mut wire) = Wire::new(&connection.stream, server.patience) {
        let mut output = Vec::new();
        reply.write(&mut output, true);
        // Whoever does not hear it is gone anyway.
        let _ = wire.write(&output);
    }
    log::disconnected(&client, &" commands=0/0");
}

/// Who is at the other end, and where it connected to: for a connection that a load balancer passes on, as the balancer
/// says. None for one that is to be closed.
fn addresses(server: &Server, connection: &Connection) -> Option<(Option<SocketAddr>, Option<SocketAddr>)> {
    let own = (connection.peer, connection.local);
    let Some(timeout) = server.proxy_timeout else { return Some(own) };
    let mut timed = proxy::Timed::new(&connection.stream, timeout);
    match proxy::read(&mut timed) {
        Ok(Header::Proxied(from, to)) => Some((Some(from), Some(to))),
        Ok(Header::Local) => Some(own),
        Err(error) => {
            let peer = connection.peer.map_or_else(|| "a UNIX socket".to_owned(), |peer| peer.to_string());
            log::warning!("connection from {peer}: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests;
