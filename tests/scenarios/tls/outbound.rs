//! The levels of `smtp_tls_policy_maps` against servers with certificates of every kind, and with none.

use scenarios::{Authority, Builder, Network, Postfix, is_root};

use super::{Senders, certificates};

/// The servers: a port, a name, and the options of Postfix's smtpd there; `@` stands for the folder of the certificates.
const SERVERS: [(u16, &str, &str); 11] = [
    (2510, "good", "-o smtpd_tls_chain_files=@/good.chain"),
    (2511, "expired", "-o smtpd_tls_chain_files=@/expired.chain"),
    (2512, "self", "-o smtpd_tls_chain_files=@/self.chain"),
    (2513, "other", "-o smtpd_tls_chain_files=@/other.chain"),
    (2514, "plain", "-o smtpd_tls_security_level=none"),
    // It offers TLS, but has no key.
    (2515, "keyless", "-o smtpd_tls_security_level=encrypt -o smtpd_tls_chain_files=@/nowhere"),
    // Nothing that is offered suits it.
    (2516, "ancient", "-o smtpd_tls_chain_files=@/good.chain -o smtpd_tls_protocols=<=TLSv1.1"),
    (2518, "both", "-o smtpd_tls_chain_files=@/good.chain,@/ec.chain"),
    (2519, "older", "-o smtpd_tls_chain_files=@/good.chain -o smtpd_tls_protocols=<=TLSv1.2"),
    (2520, "named", "-o smtpd_tls_chain_files=@/other.chain -o tls_server_sni_maps=texthash:@/names"),
    (
        2521,
        "asking",
        "-o smtpd_tls_chain_files=@/good.chain -o smtpd_tls_ask_ccert=yes -o smtpd_tls_CAfile=@/ca.pem",
    ),
];

/// A case: its name, the server, the policy, and what the log must say, for one that tests nothing to be noticed.
/// `@name` in a policy is the fingerprint of that certificate.
const CASES: [(&str, &str, &str, &str); 47] = [
    ("none-good", "good", "none", "status=sent"),
    ("may-good", "good", "may", "Trusted TLS"),
    ("may-expired", "expired", "may", "Untrusted TLS"),
    ("may-self", "self", "may", "Untrusted TLS"),
    ("may-other", "other", "may", "Trusted TLS"),
    ("may-plain", "plain", "may", "status=sent"),
    ("may-keyless", "keyless", "may", "SSL_connect error"),
    ("may-ancient", "ancient", "may", "status=sent"),
    ("may-both", "both", "may", "ECDSA"),
    ("may-older", "older", "may", "Trusted TLS connection established to"),
    ("may-asking", "asking", "may", "client-signature"),
    ("encrypt-good", "good", "encrypt", "Trusted TLS"),
    ("encrypt-expired", "expired", "encrypt", "Untrusted TLS"),
    ("encrypt-self", "self", "encrypt", "Untrusted TLS"),
    ("encrypt-plain", "plain", "encrypt", "TLS is required, but was not offered by host"),
    ("encrypt-keyless", "keyless", "encrypt", "SSL_connect error"),
    ("encrypt-ancient", "ancient", "encrypt", "Cannot start TLS: handshake failure"),
    ("verify-good", "good", "verify", "Verified TLS"),
    ("verify-expired", "expired", "verify", "Server certificate not verified"),
    ("verify-self", "self", "verify", "Server certificate not verified"),
    ("verify-other", "other", "verify", "Server certificate not verified"),
    ("verify-plain", "plain", "verify", "TLS is required, but was not offered by host"),
    ("verify-ancient", "ancient", "verify", "Cannot start TLS: handshake failure"),
    ("verify-both", "both", "verify", "Verified TLS"),
    ("verify-older", "older", "verify", "Verified TLS"),
    ("verify-match", "other", "verify match=other.example.net", "Verified TLS"),
    ("verify-matches", "other", "verify match=hostname:.example.net", "Verified TLS"),
    ("verify-mismatch", "good", "verify match=elsewhere.example", "Server certificate not verified"),
    ("secure-good", "good", "secure", "Verified TLS"),
    ("secure-expired", "expired", "secure", "Server certificate not verified"),
    ("secure-self", "self", "secure", "Server certificate not verified"),
    ("secure-other", "other", "secure", "Server certificate not verified"),
    ("secure-match", "good", "secure match=.example.com", "Verified TLS"),
    ("secure-dot", "good", "secure match=dot-nexthop", "Server certificate not verified"),
    ("print-good", "good", "fingerprint match=@good", "Verified TLS"),
    ("print-self", "self", "fingerprint match=@self", "Verified TLS"),
    ("print-expired", "expired", "fingerprint match=@expired", "Verified TLS"),
    ("print-either", "self", "fingerprint match=@good|@self", "Verified TLS"),
    ("print-wrong", "good", "fingerprint match=@self", "Server certificate not verified"),
    ("anchor-self", "self", "verify tafile=@@/self.pem", "Verified TLS"),
    ("anchor-wrong", "good", "verify tafile=@@/other.pem", "Server certificate not verified"),
    ("named-hostname", "named", "verify servername=hostname", "Verified TLS"),
    ("named-given", "named", "verify servername=given.example.com", "Verified TLS"),
    ("named-not", "named", "verify", "Server certificate not verified"),
    ("older-only", "good", "encrypt protocols=TLSv1.2", "TLSv1.2 with cipher"),
    ("older-not", "older", "encrypt protocols=TLSv1.3", "Cannot start TLS: handshake failure"),
    ("bad-policy", "good", "verify colour=blue", "client TLS configuration problem"),
];

/// A receiving Postfix with all servers, and the zone in which every case has a name for it.
fn receiver(network: &mut Network, authority: &Authority) -> Postfix {
    let mx = network.host("mx.example.com");
    let names: String = CASES.iter().map(|(name, ..)| format!("{name} A {}\n", mx.ip)).collect();
    network.zone("example.com", &names);
    network.zone("sender.example", "");
    let services: String = SERVERS
        .iter()
        .map(|(port, _, options)| format!("{port} inet n - n - - smtpd {}\n", fill(authority, options)))
        .collect();
    Postfix::start_on_with(
        &mx,
        &[
            "mydestination =",
            "mynetworks = 192.0.2.0/24",
            "default_transport = discard:",
            "smtpd_tls_security_level = may",
            // Ciphers without a certificate, which rustls does not have.
            "smtpd_tls_exclude_ciphers = aNULL",
        ],
        &services,
    )
}

/// `@@` is the folder of the certificates, and so is `@/`; `@name` is a fingerprint.
fn fill(authority: &Authority, text: &str) -> String {
    let folder = authority.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    let text = text.replace("@@", folder).replace("@/", &format!("{folder}/"));
    ["good", "self", "expired"].iter().fold(text, |text, name| match text.contains(&format!("@{name}")) {
        true => text.replace(&format!("@{name}"), &authority.fingerprint(name)),
        false => text,
    })
}

#[test]
fn every_level_against_every_certificate_is_as_in_postfix() {
    if !is_root("hosts with TLS") {
        return;
    }
    let mut network = Network::new();
    let authority = certificates();
    authority.issue("client", &["client.sender.example"]);
    std::fs::write(
        authority.path("names"),
        fill(&authority, "named-hostname.example.com @/good.chain\ngiven.example.com @/good.chain\n"),
    )
    .unwrap();
    let _receiver = receiver(&mut network, &authority);
    let port =
        |server: &str| SERVERS.iter().find(|(_, name, _)| *name == server).map_or(0, |(port, ..)| *port);
    let routes: Vec<String> = CASES
        .iter()
        .map(|(name, server, ..)| format!("{{ {name}.test = smtp:[{name}.example.com]:{} }}", port(server)))
        .collect();
    let policies: Vec<String> = CASES
        .iter()
        .map(|(name, server, policy, _)| {
            format!("{{ [{name}.example.com]:{} = {} }}", port(server), fill(&authority, policy))
        })
        .collect();
    let senders = Senders::start(
        &mut network,
        &[
            &format!("transport_maps = inline:{{ {} }}", routes.join(", ")),
            &format!("smtp_tls_policy_maps = inline:{{ {} }}", policies.join(", ")),
            &fill(&authority, "smtp_tls_CAfile = @/ca.pem"),
            &fill(&authority, "smtp_tls_chain_files = @/client.chain"),
            "smtp_tls_fingerprint_digest = sha256",
            "smtp_tls_security_level = may",
            "smtp_tls_protocols = >=TLSv1.2",
            "smtp_tls_mandatory_protocols = >=TLSv1.2",
        ],
    );
    for (name, ..) in &CASES {
        senders.send(&format!("user@{name}.test"));
    }
    senders.compare(&CASES.map(|(name, _, _, says)| (name, says)));
}

#[test]
fn a_second_delivery_resumes_the_session() {
    let authority = certificates();
    let chain = format!("smtpd_tls_chain_files = {}", authority.path("good.chain").display());
    let server =
        Builder::new().main("smtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1").main(&chain).start();
    let user = server.user().to_owned();
    let client = Builder::new()
        .main("mydestination =\nmynetworks = 127.0.0.0/8\nsmtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1")
        .main("smtp_connection_cache_on_demand = no")
        .main(&format!("transport_maps = inline:{{ {{ example.com = smtp:[127.0.0.1]:{} }} }}", server.port))
        .master("smtp unix - - n - 1 smtp")
        .start();
    for (number, done) in ["established", "reused"].into_iter().enumerate() {
        let mut smtp = super::greeted(client.smtp());
        let reply =
            smtp.message("a@client.example", &[&format!("{user}@example.com")], "Subject: x\r\n\r\nbody\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
        server.wait_for_mail(&user, number + 1);
        client.wait_for_log(&[&format!("TLS connection {done} to"), "TLSv1.3 with cipher"]);
        server.wait_for_log(&[&format!("TLS connection {done} from")]);
    }
}
