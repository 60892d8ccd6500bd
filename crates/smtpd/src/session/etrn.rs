//! ETRN (RFC 1985): a client asks for the mail that waits for a domain.

use std::net::IpAddr;

use ipc::log;
use ipc::queue_manager::Word;
use lookup::LookupError;
use smtp_proto::path::is_host_name;
use smtp_proto::{Fault, Reply};

use super::dialogue::Dialogue;
use crate::report::Subject;

impl Dialogue<'_> {
    /// The answer to `ETRN domain`, `ETRN @domain`, `ETRN #queue`.
    pub(super) fn etrn(&self, arguments: &str) -> Reply {
        if arguments.split_ascii_whitespace().count() != 1 {
            return Fault::EtrnSyntax.reply("");
        }
        let domain = arguments.strip_prefix(['@', '#']).unwrap_or(arguments);
        if !(is_host_name(domain) || is_literal(domain)) {
            return Reply::plain(501, "Error: invalid parameter syntax");
        }
        let subject = Subject { etrn_domain: Some(domain), ..self.subject_at("ETRN") };
        if let Some(reply) = self.server.restrictions.etrn(&subject, &self.postponed) {
            self.log_refusal(&subject, &reply);
            return reply;
        }
        match self.server.flushes(domain) {
            Ok(true) => {}
            Ok(false) => {
                log::warning!("reject: ETRN {domain}... from {}", self.client);
                return Fault::EtrnNotServed(domain.to_owned()).reply("");
            }
            Err(error) => return unable(&error),
        }
        match self.server.queue_manager.say(&Word::FlushSite(domain.to_owned())) {
            Ok(()) => Reply::plain(250, "Queuing started"),
            Err(error) => unable(&LookupError::new("qmgr", error.to_string())),
        }
    }
}

fn unable(error: &LookupError) -> Reply {
    log::warning!("ETRN: {error}");
    Reply::plain(458, "Unable to queue messages")
}

fn is_literal(domain: &str) -> bool {
    let inner = domain.strip_prefix('[').and_then(|domain| domain.strip_suffix(']'));
    inner.is_some_and(|inner| {
        let tagged = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        inner[tag_length(tagged)..].parse::<IpAddr>().is_ok()
    })
}

fn tag_length(tag: Option<&str>) -> usize {
    tag.map_or(0, str::len)
}
