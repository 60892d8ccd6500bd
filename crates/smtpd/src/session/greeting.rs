//! The first word to a client: `smtpd_banner`, or why it is not welcome.

use ipc::log;
use mail::Dsn;
use smtp_proto::Reply;
use smtp_proto::server::Policy;

use super::dialogue::Dialogue;
use crate::limits::Counted;
use crate::restrictions::Postponed;

/// How a session begins.
pub(super) struct Opening {
    /// What the protocol offers to this client.
    pub(super) policy: Policy,
    pub(super) greeting: Reply,
}

/// Looks at the client for the first time.
pub(super) fn opening(dialogue: &mut Dialogue<'_>, counted: Option<&Counted>) -> Opening {
    let server = dialogue.server;
    let client = &mut dialogue.client;
    client.debug_level = client.ip.map_or(0, |ip| server.debug_peers.level_of(&client.name, ip));
    match server.policy_for(&dialogue.client) {
        Ok(policy) => {
            dialogue.discarded = policy.discarded;
            Opening { policy: policy.policy, greeting: greeting(dialogue, counted) }
        }
        Err(error) => {
            log::warning!("{error}");
            Opening { policy: Policy::default(), greeting: local_error(&server.settings.hostname) }
        }
    }
}

fn greeting(dialogue: &mut Dialogue<'_>, counted: Option<&Counted>) -> Reply {
    let server = dialogue.server;
    if let Some(refused) =
        counted.and_then(|counted| server.limits.too_many_connections(&dialogue.client, counted))
    {
        return refused;
    }
    let subject = dialogue.subject_at("CONNECT");
    let mut postponed = Postponed::default();
    let refused = server.restrictions.connect(&subject, &mut postponed);
    if let Some(reply) = &refused {
        dialogue.log_refusal(&subject, reply);
    }
    dialogue.postponed = postponed;
    refused.unwrap_or_else(|| Reply::plain(220, server.greeting.clone()))
}

/// A table that decides about clients could not be asked.
fn local_error(hostname: &str) -> Reply {
    Reply::new(421, Dsn::new(4, 3, 0), format!("{hostname} Server local error"))
}
