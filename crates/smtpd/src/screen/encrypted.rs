//! A client that has failed and asks for TLS: it is refused encrypted, on a thread of its own. A handshake cannot be made
//! between two clients' turns, and few of those that fail want one.

use std::sync::Arc;
use std::time::Duration;

use ipc::log;

use super::peer::Shown;
use super::refusing::Refusing;
use super::turn::{Turn, turn};
use crate::tls::Tls;
use crate::wire::{Lost, Patience, Wire};

/// As who the handshake is logged.
const SPEAKER: &str = "tlsproxy";

/// The handshake, and the dialogue behind it.
///
/// # Errors
/// The client is gone, or has not said anything in time.
pub(super) fn converse(
    tls: &Tls,
    wire: &mut Wire<'_>,
    dialogue: &mut Refusing,
    (shown, syslog_name): (&Shown, &str),
) -> Result<(), Lost> {
    let speaker: Arc<str> = Arc::from(format!("{syslog_name}/{SPEAKER}"));
    log::speak_as(Some(Arc::clone(&speaker)));
    log::info!("CONNECT from {shown}");
    let encrypted = wire.encrypt(tls, &shown.to_string());
    log::speak_as(None);
    let ended = encrypted.and_then(|_| {
        dialogue.encrypted();
        refuse(wire, dialogue, shown)
    });
    log::speak_as(Some(speaker));
    log::info!("DISCONNECT {shown}");
    log::speak_as(None);
    ended
}

fn refuse(wire: &mut Wire<'_>, dialogue: &mut Refusing, shown: &Shown) -> Result<(), Lost> {
    let mut buffer = [0; 1024];
    loop {
        match turn(dialogue, shown) {
            Turn::Wait => {
                let count = wire.read(&mut buffer, false)?;
                dialogue.heard(&buffer[..count]);
            }
            Turn::Say(reply) => {
                wire.write(reply.as_bytes())?;
                wire.new_request();
            }
            Turn::End(reply) | Turn::StartTls(reply) => return wire.write(reply.as_bytes()),
        }
    }
}

/// The time that a client has for each command as a whole.
pub(super) const fn patience(limit: Duration) -> Patience {
    Patience { timeout: limit, deadline: Some(1) }
}
