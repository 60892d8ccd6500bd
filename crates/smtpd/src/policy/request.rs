//! The text of a request: all attributes of the protocol, in the order in which Postfix sends them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use config::{Config, param};

use crate::report::Subject;
use crate::tls::Encryption;

/// Ties the requests about one message together: distinct within this process.
pub(crate) type Instance = u64;

/// A number that no other message of this process has.
pub(crate) fn next_instance() -> Instance {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// What is the same in every request.
pub(super) struct Facts {
    stress: String,
    compatibility_level: String,
    mail_version: String,
    /// Distinguishes this process from others, also from one that had its number earlier.
    process: String,
}

impl Facts {
    pub(super) fn new(config: &Config) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            stress: config.get(param::STRESS),
            compatibility_level: config.get(param::COMPATIBILITY_LEVEL),
            mail_version: config.get(param::MAIL_VERSION),
            process: format!("{:x}.{started:x}", std::process::id()),
        }
    }
}

/// The whole request.
pub(super) fn text(facts: &Facts, subject: &Subject<'_>, policy_context: &str) -> String {
    let client = subject.client;
    let login = |field: fn(&crate::client::Login) -> &str| client.login.as_ref().map_or("", field);
    let at_content = matches!(subject.place, "DATA" | "END-OF-MESSAGE");
    let count = if at_content { subject.recipients } else { 0 };
    let address = |address: Option<&mail::Address>| address.map(ToString::to_string).unwrap_or_default();
    let mut out = String::with_capacity(1024);
    let mut put = |name: &str, value: &str| {
        out.push_str(name);
        out.push('=');
        // A value ends with its line, whatever the client has put into it.
        out.extend(value.chars().map(|c| if c.is_control() { '?' } else { c }));
        out.push('\n');
    };
    put("request", "smtpd_access_policy");
    put("protocol_state", subject.place);
    put("protocol_name", subject.protocol);
    put("client_address", &client.address);
    put("client_name", &client.name);
    put("client_port", &port(client.port));
    put("reverse_client_name", &client.reverse_name);
    put("server_address", &client.server_address);
    put("server_port", &port(client.server_port));
    put("helo_name", subject.helo.unwrap_or_default());
    put("sender", &address(subject.sender));
    put("recipient", &address(subject.recipient));
    put("recipient_count", &count.to_string());
    put("queue_id", &subject.queue_id.map(|id| id.to_string()).unwrap_or_default());
    put("instance", &format!("{}.{}", facts.process, subject.instance));
    put("size", &subject.size.to_string());
    put("etrn_domain", subject.etrn_domain.unwrap_or_default());
    put("stress", &facts.stress);
    put("sasl_method", login(|login| &login.method));
    put("sasl_username", login(|login| &login.username));
    put("sasl_sender", subject.sasl_sender);
    let tls = client.tls.as_ref();
    let (subject_name, issuer) = tls.and_then(Encryption::trusted_names).unwrap_or_default();
    let [certificate, key] = tls.and_then(Encryption::fingerprints).unwrap_or_default();
    let (protocol, cipher, bits) = tls.map(Encryption::cipher).unwrap_or_default();
    put("ccert_subject", subject_name);
    put("ccert_issuer", issuer);
    put("ccert_fingerprint", &certificate);
    put("ccert_pubkey_fingerprint", &key);
    put("encryption_protocol", protocol);
    put("encryption_cipher", cipher);
    put("encryption_keysize", &bits.to_string());
    put("policy_context", policy_context);
    put("compatibility_level", &facts.compatibility_level);
    put("mail_version", &facts.mail_version);
    let _ = out.write_char('\n');
    out
}

fn port(port: u16) -> String {
    if port == 0 { String::new() } else { port.to_string() }
}
