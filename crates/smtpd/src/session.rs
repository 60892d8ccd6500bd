//! One client, from its connection to its end.
//!
//! [`conversation`] carries bytes between the client and the protocol and passes events on; [`dialogue`] knows the client
//! and answers them, [`transaction`] those about mail, [`extension`] the commands that `smtp-proto` leaves to the server.

mod conversation;
mod dialogue;
mod extension;
mod greeting;
mod transaction;

use ipc::log;
use service::Connection;
use smtp_proto::server::Session;

use crate::client::Client;
use crate::server::Server;
use crate::wire::Wire;
use conversation::Conversation;
use dialogue::Dialogue;

/// Serves one client. `stopping` says whether the mail system is being stopped.
pub(crate) fn serve(server: &Server, connection: &Connection, stopping: &dyn Fn() -> bool) {
    let mut client = Client::new(connection.peer, connection.local, &server.names);
    client.shows_port = server.client_port_logging && client.port > 0;
    log::connected(&client);
    let Ok(wire) = Wire::new(&connection.stream, server.patience) else {
        log::broke_off("lost connection", "CONNECT", &client);
        return log::disconnected(&client, &" commands=0");
    };
    let counted = client.ip.map(|ip| server.connections.count(ip));
    let mut dialogue = Dialogue::new(server, client);
    let opening = greeting::opening(&mut dialogue, counted.as_ref());
    let named = dialogue.client.to_string();
    let mut conversation = Conversation {
        proto: Session::new(server.settings.clone(), opening.policy, server.command_buffer()),
        wire,
        dialogue,
        stopping,
    };
    conversation.look_for_early_talker(&connection.stream);
    conversation.proto.greet(&opening.greeting, &named);
    let ending = conversation.run();
    conversation.end(ending);
}

#[cfg(test)]
mod tests;
