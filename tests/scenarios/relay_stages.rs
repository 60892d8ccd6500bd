//! Every kind of answer at every stage of a session, from servers with scripts, beside real Postfix: what becomes of the
//! mail, and what the postmaster is told (`notify_classes`).

use std::collections::BTreeMap;

use scenarios::{Builder, Instance, Postfix, Says, Scripted, Smtp, is_root, wait_for};

use super::smtp_client::results;

const TLS: (&str, &str) = ("EHLO", "250-s.example\n250 STARTTLS");
const AUTH: (&str, &str) = ("EHLO", "250-s.example\n250 AUTH PLAIN");
const PIPELINING: (&str, &str) = ("EHLO", "250-s.example\n250 PIPELINING");

/// A case: its name, and what its server says. One whose name begins with `must` is asked for TLS.
const CASES: &[(&str, &Says)] = &[
    ("connect-4xx", &[("CONNECT", "450 4.3.2 later")]),
    ("connect-5xx", &[("CONNECT", "554 5.7.1 no")]),
    ("connect-421", &[("CONNECT", "421 4.3.2 busy!")]),
    ("connect-drop", &[("CONNECT", "!")]),
    ("connect-700", &[("CONNECT", "700 what")]),
    ("connect-501", &[("CONNECT", "501 5.5.4 what")]),
    ("ehlo-4xx", &[("EHLO", "451 4.3.0 later"), ("HELO", "451 4.3.0 later")]),
    ("ehlo-5xx", &[("EHLO", "502 5.5.1 what"), ("HELO", "501 5.5.4 no")]),
    ("ehlo-421", &[("EHLO", "421 4.3.2 busy!")]),
    ("ehlo-drop", &[("EHLO", "!")]),
    ("helo-only", &[("EHLO", "500 5.5.2 what")]),
    ("tls-4xx", &[TLS, ("STARTTLS", "454 4.7.0 later")]),
    ("tls-5xx", &[TLS, ("STARTTLS", "502 5.5.1 what")]),
    ("tls-421", &[TLS, ("STARTTLS", "421 4.3.2 busy!")]),
    ("tls-drop", &[TLS, ("STARTTLS", "!")]),
    ("tls-hangup", &[TLS, ("STARTTLS", "220 go!")]),
    ("must-4xx", &[TLS, ("STARTTLS", "454 4.7.0 later")]),
    ("must-5xx", &[TLS, ("STARTTLS", "502 5.5.1 what")]),
    ("must-421", &[TLS, ("STARTTLS", "421 4.3.2 busy!")]),
    ("must-drop", &[TLS, ("STARTTLS", "!")]),
    ("must-hangup", &[TLS, ("STARTTLS", "220 go!")]),
    ("must-none", &[]),
    ("auth-4xx", &[AUTH, ("AUTH", "454 4.7.0 later")]),
    ("auth-5xx", &[AUTH, ("AUTH", "535 5.7.8 no")]),
    ("auth-504", &[AUTH, ("AUTH", "504 5.5.4 what")]),
    ("auth-421", &[AUTH, ("AUTH", "421 4.3.2 busy!")]),
    ("auth-drop", &[AUTH, ("AUTH", "!")]),
    ("auth-other", &[("EHLO", "250-s.example\n250 AUTH GSSAPI")]),
    ("mail-4xx", &[("MAIL", "451 4.3.0 later")]),
    ("mail-5xx", &[("MAIL", "550 5.7.1 no")]),
    ("mail-501", &[("MAIL", "501 5.5.4 what")]),
    ("mail-555", &[("MAIL", "555 5.5.4 what")]),
    ("mail-099", &[("MAIL", "099 4.1.1 what")]),
    ("mail-3xx", &[("MAIL", "354 what")]),
    ("mail-421", &[("MAIL", "421 4.3.2 busy!")]),
    ("mail-421-piped", &[PIPELINING, ("MAIL", "421 4.3.2 busy!")]),
    ("mail-drop", &[("MAIL", "!")]),
    ("rcpt-4xx", &[("RCPT TO:<one@", "450 4.2.0 later")]),
    ("rcpt-5xx", &[("RCPT TO:<one@", "550 5.1.1 no")]),
    ("rcpt-503", &[("RCPT TO:<one@", "503 5.5.1 what")]),
    ("rcpt-421", &[("RCPT TO:<one@", "421 4.3.2 busy!")]),
    ("rcpt-421-open", &[("RCPT TO:<one@", "421 4.3.2 later")]),
    ("rcpt-421-piped", &[PIPELINING, ("RCPT TO:<two@", "421 4.3.2 busy!")]),
    ("rcpt-600", &[("RCPT TO:<one@", "600 what")]),
    ("rcpt-drop", &[("RCPT TO:<two@", "!")]),
    ("rcpt-all", &[PIPELINING, ("RCPT", "550 5.1.1 no"), ("DATA", "503 5.5.1 nobody")]),
    ("data-4xx", &[("DATA", "451 4.3.0 later")]),
    ("data-5xx", &[("DATA", "554 5.7.1 no")]),
    ("data-503", &[PIPELINING, ("DATA", "503 5.5.1 what")]),
    ("data-2xx", &[("DATA", "250 2.0.0 what")]),
    ("data-421", &[("DATA", "421 4.3.2 busy!")]),
    ("data-drop", &[("DATA", "!")]),
    ("dot-4xx", &[(".", "451 4.3.0 later")]),
    ("dot-5xx", &[(".", "554 5.7.1 no")]),
    ("dot-500", &[(".", "500 5.5.2 what")]),
    ("dot-421", &[(".", "421 4.3.2 busy!")]),
    ("dot-drop", &[(".", "!")]),
    ("dot-199", &[(".", "199 2.0.0 what")]),
    ("dot-3xx", &[(".", "354 more?")]),
    ("quit-5xx", &[("QUIT", "500 5.5.2 what")]),
    ("quit-421", &[("QUIT", "421 4.3.2 busy!")]),
    ("quit-drop", &[("QUIT", "!")]),
    ("quit-never", &[("QUIT", "...")]),
    ("size-5xx", &[("EHLO", "250-s.example\n250 SIZE 10000"), ("MAIL", "552 5.3.4 no")]),
];

/// Where the words differ, the outcome being the same: at the reply to AUTH Postfix speaks of EHLO, the words for missing
/// mechanisms are those of a library, and after 421 to STARTTLS it goes on until the connection breaks. Of the last one the
/// code differs as well: 4.4.2 for the connection, here the server's own.
const OTHER_WORDS: [&str; 3] = ["auth-drop", "auth-other", "tls-421"];

const PASSWORD: &str = "s3cr3t";

const SETTINGS: &[&str] = &[
    "myhostname = mail.example.com",
    "myorigin = example.com",
    "mydestination =",
    "inet_interfaces = 127.0.0.1",
    "inet_protocols = ipv4",
    "mynetworks = 127.0.0.0/8",
    "smtp_destination_concurrency_limit = 1",
    "smtp_connection_cache_on_demand = no",
    "smtp_quit_timeout = 8s",
    "smtp_tls_security_level = may",
    "smtp_sasl_auth_enable = yes",
    "smtp_sasl_security_options = noanonymous",
    "notify_classes = protocol",
    "error_notice_recipient = notices@notices.test",
];

/// The servers of one side: one for each case, and one that the notices go to.
struct Servers {
    cases: Vec<Scripted>,
    notices: Scripted,
}

impl Servers {
    fn start() -> Self {
        Self {
            cases: CASES.iter().map(|(_, says)| Scripted::start(says)).collect(),
            notices: Scripted::start(&[]),
        }
    }

    /// The lines of main.cf: every case has a domain.
    fn lines(&self) -> Vec<String> {
        let places: Vec<(&str, u16)> =
            CASES.iter().zip(&self.cases).map(|((name, _), server)| (*name, server.address.port())).collect();
        let entries = |entry: &dyn Fn(&(&str, u16)) -> Option<String>| {
            places.iter().filter_map(entry).collect::<Vec<_>>().join(", ")
        };
        let routes = entries(&|(name, port)| Some(format!("{{ {name}.test = smtp:[127.0.0.1]:{port} }}")));
        let notices = self.notices.address.port();
        let policies = entries(&|(name, port)| {
            name.starts_with("must").then(|| format!("{{ [127.0.0.1]:{port} = encrypt }}"))
        });
        let passwords = entries(&|(name, port)| {
            name.starts_with("auth").then(|| format!("{{ [127.0.0.1]:{port} = jane:{PASSWORD} }}"))
        });
        let mut lines: Vec<String> = SETTINGS.iter().map(|line| (*line).to_owned()).collect();
        lines.push(format!(
            "transport_maps = inline:{{ {routes}, {{ notices.test = smtp:[127.0.0.1]:{notices} }} }}"
        ));
        lines.push(format!("smtp_tls_policy_maps = inline:{{ {policies} }}"));
        lines.push(format!("smtp_sasl_password_maps = inline:{{ {passwords} }}"));
        lines
    }

    /// The notices, by the case that they are about, from the line that says whom they are about.
    fn notices(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for session in self.notices.sessions() {
            let Some((_, text)) = session.split_once("Unexpected response from ") else { continue };
            let (text, _) = text.split_once("\r\n.\r\n").unwrap_or((text, ""));
            let Some((case, server)) = CASES
                .iter()
                .zip(&self.cases)
                .find(|(_, server)| text.contains(&format!(":{}.", server.address.port())))
            else {
                continue;
            };
            let text = text.replace(&server.address.port().to_string(), "PORT");
            found.insert(case.0.to_owned(), without_end(&without_size(&text)));
        }
        found
    }
}

/// Postfix ends a transaction that failed with RSET before it says QUIT.
fn without_end(text: &str) -> String {
    let end = [" Out: RSET", " Out: QUIT"].iter().filter_map(|end| text.find(end)).min();
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The size of a message differs with what stands in its `Received:`.
fn without_size(text: &str) -> String {
    let words = text.split(' ').map(|word| if word.starts_with("SIZE=") { "SIZE=" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn send(port: u16) {
    let mut smtp = Smtp::connect(port);
    smtp.expect("EHLO client.example", 250);
    for (case, _) in CASES {
        let recipients = ["one", "two"].map(|user| format!("{user}@{case}.test"));
        let recipients = recipients.each_ref().map(String::as_str);
        let reply = smtp.message("joe@example.com", &recipients, "Subject: x\r\n\r\nsecret content\r\n");
        assert_eq!(reply.code, 250, "{case}");
    }
}

fn all_results(log: &str) -> Option<BTreeMap<String, String>> {
    let mut found = results(log);
    found.retain(|address, _| !address.contains("notices"));
    for (address, text) in &mut found {
        if OTHER_WORDS.iter().any(|case| address.contains(case)) {
            *text = text
                .split_once(" status=")
                .map_or("", |(_, rest)| rest)
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned();
        }
    }
    for text in found.values_mut() {
        // The port is another for each.
        if let Some((host, result)) = text.split_once(' ') {
            *text = format!("{} {result}", host.rsplit_once(':').map_or(host, |(host, _)| host));
        }
    }
    (found.len() == CASES.len() * 2).then_some(found)
}

fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{name}\n  Postfix:  {:?}\n  Postroad: {:?}", theirs.get(name), ours.get(name)))
        .collect()
}

#[test]
fn every_answer_at_every_stage_has_the_outcome_that_it_has_in_postfix() {
    if !is_root("real Postfix") {
        return;
    }
    let (our_servers, their_servers) = (Servers::start(), Servers::start());
    let builder = our_servers.lines().iter().fold(Builder::new().as_root(), |b, line| b.main(line));
    let ours: Instance = builder.master("smtp unix - - n - - smtp").start();
    let lines = their_servers.lines();
    let theirs = Postfix::start(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    send(ours.port);
    send(theirs.port);
    let expected = wait_for("Postfix's results", || all_results(&theirs.log()));
    let found = wait_for("our results", || all_results(&ours.log()));
    let mut wrong = differences(&found, &expected);
    let told = wait_for("Postfix's notices", || {
        let told = their_servers.notices();
        (told.len() >= 10).then_some(told)
    });
    wait_for("as many notices", || (our_servers.notices().len() >= told.len()).then_some(()));
    let (found, expected) = (our_servers.notices(), their_servers.notices());
    wrong.extend(differences(&found, &expected));
    assert!(wrong.is_empty(), "{} differences:\n{}\n{}", wrong.len(), wrong.join("\n"), ours.log());
    let all: String = found.into_values().collect();
    assert!(!all.contains("secret content") && !all.contains(PASSWORD), "{all}");
}
