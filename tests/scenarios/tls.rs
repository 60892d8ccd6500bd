//! TLS between hosts, beside real Postfix: both send the same mail to the same servers, and say the same of it in their logs.

mod dane;
mod inbound;
mod mta_sts;
mod outbound;

use std::collections::{BTreeMap, BTreeSet};

use scenarios::{Authority, Builder, Host, Instance, Network, Postfix, Smtp, wait_for};

/// Two hosts that send: one with this mail system, one with Postfix.
pub(crate) struct Senders {
    ours: Instance,
    theirs: Postfix,
    pub(crate) hosts: [Host; 2],
}

/// What both are told; failed attempts come again soon.
const SETTINGS: [&str; 10] = [
    "mynetworks = 192.0.2.0/24 127.0.0.0/8",
    "mydestination =",
    "inet_protocols = ipv4",
    "smtp_tls_loglevel = 1",
    "smtp_dns_support_level = dnssec",
    "minimal_backoff_time = 1s",
    "maximal_backoff_time = 2s",
    "queue_run_delay = 1s",
    "smtp_connection_cache_on_demand = no",
    "smtp_starttls_timeout = 20s",
];

impl Senders {
    pub(crate) fn start(network: &mut Network, lines: &[&str]) -> Self {
        let hosts = ["postroad.sender.example", "postfix.sender.example"].map(|name| network.host(name));
        let all: Vec<&str> = SETTINGS.iter().chain(lines).copied().collect();
        let builder = all.iter().fold(Builder::new().on(&hosts[0]), |builder, line| builder.main(line));
        let ours = builder.master("smtp unix - - n - - smtp").start();
        let theirs = Postfix::start_on(&hosts[1], &all);
        Self { ours, theirs, hosts }
    }

    /// Both send a message.
    pub(crate) fn send(&self, recipient: &str) {
        for host in &self.hosts {
            let mut smtp = host.smtp(host.ip);
            smtp.expect("EHLO client.example", 250);
            let content = "Subject: x\r\n\r\nbody\r\n";
            assert_eq!(smtp.message("sender@sender.example", &[recipient], content).code, 250);
            smtp.expect("QUIT", 221);
        }
    }

    /// Waits until both logs say something about each case that contains its text, and compares all that is said of the cases.
    pub(crate) fn compare(&self, cases: &[(&str, &str)]) {
        let wait = |whose: &str, log: &dyn Fn() -> String| wait_for_cases(whose, cases, log);
        let theirs = wait("Postfix", &|| self.theirs.log());
        let ours = wait("Postroad", &|| self.ours.log());
        let mut differences = Vec::new();
        for (name, _) in cases {
            if ours[*name] != theirs[*name] {
                differences.push(format!(
                    "{name}\n  Postfix:  {:#?}\n  Postroad: {:#?}",
                    theirs[*name], ours[*name]
                ));
            }
        }
        assert!(differences.is_empty(), "{}\nthe log:\n{}", differences.join("\n"), self.ours.log());
    }
}

/// What a log says of each case, once it says what it must.
fn wait_for_cases(
    whose: &str,
    cases: &[(&str, &str)],
    log: &dyn Fn() -> String,
) -> BTreeMap<String, BTreeSet<String>> {
    let began = std::time::Instant::now();
    wait_for(&format!("{whose}'s results"), || {
        let log = log();
        let found: BTreeMap<_, _> =
            cases.iter().map(|(name, _)| ((*name).to_owned(), said_of(&log, name))).collect();
        let missing: Vec<_> = cases
            .iter()
            .filter(|(name, part)| {
                let says = |what: &str| found[*name].iter().any(|line| line.contains(what));
                // Before the attempt is over, more may come that belongs to it.
                !says(part) || !(says("status=") || says("passing <"))
            })
            .collect();
        assert!(
            missing.is_empty() || began.elapsed() < scenarios::PATIENCE / 2,
            "{whose} does not say {missing:#?} but {found:#?}\n{log}"
        );
        missing.is_empty().then_some(found)
    })
}

/// What the SMTP client's lines say of a case, whose name is the first label of its host or domain; once each.
fn said_of(log: &str, name: &str) -> BTreeSet<String> {
    let lines = log.lines().filter(|line| line.contains("/smtp[") && mentions(line, name));
    let mut said: BTreeSet<String> = lines.filter_map(what_it_says).collect();
    // Only a message that is a second old goes on without TLS at once; a younger one is put off first.
    if said.iter().any(|line| line.contains("status=sent")) {
        said.retain(|line| !line.contains("status=deferred (Cannot start TLS"));
    }
    said
}

fn mentions(line: &str, name: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    line.match_indices(&format!("{name}.")).any(|(at, _)| begins(at))
}

fn what_it_says(line: &str) -> Option<String> {
    let (_, text) = line.split_once("]: ")?;
    let text = text.strip_prefix("warning: ").unwrap_or(text);
    // A queue id comes first in some.
    let text = match text.split_once(": ") {
        Some((id, rest)) if id.len() > 8 && id.bytes().all(|b| b.is_ascii_alphanumeric()) => rest,
        _ => text,
    };
    if text.contains("delivery temporarily suspended") {
        return None;
    }
    if let Some((cause, _)) =
        text.strip_prefix("SSL_connect error to ").and_then(|rest| rest.split_once(": "))
    {
        // The reason is in the words of the library.
        return Some(format!("SSL_connect error to {cause}"));
    }
    if let Some((_, rest)) = text.split_once("certificate verification failed for ") {
        // The reason is in the words of the library, and so is which certificate of the chain it is about.
        let peer = rest.split(": ").next().unwrap_or_default();
        return Some(format!("certificate verification failed for {peer}"));
    }
    // What is said of a policy, a record or a second attempt is each one's own.
    let own =
        ["unsupported TLSA certificate usage", "TLS policy lookup for", "tls_policy_maps", "without TLS"];
    if own.iter().any(|part| text.contains(part)) {
        return None;
    }
    let Some((_, rest)) = text.strip_prefix("to=").and_then(|rest| rest.split_once(", relay=")) else {
        return Some(text.to_owned());
    };
    let (relay, result) = rest.split_once(", delay=")?;
    let (_, result) = result.split_once("dsn=")?;
    // The next server's queue id.
    let result = result.split(": queued as").next()?;
    Some(format!("relay={relay} dsn={result}"))
}

/// A server's certificates of every kind, for hosts below example.com.
fn certificates() -> Authority {
    let authority = Authority::new();
    authority.issue("good", &["*.example.com"]);
    authority.issue_for("ec", &["*.example.com"], "ec -pkeyopt ec_paramgen_curve:prime256v1", 30);
    authority.issue_for("expired", &["*.example.com"], "rsa:2048", -1);
    authority.issue("other", &["other.example.net"]);
    authority.self_signed("self", "*.example.com");
    authority
}

/// A client that greets with EHLO.
fn greeted(mut smtp: Smtp) -> Smtp {
    smtp.expect("EHLO client.example", 250);
    smtp
}
