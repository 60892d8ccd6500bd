//! DANE (RFC 7672): what TLSA records and their security make of a delivery, beside Postfix.

use scenarios::{Authority, Network, Postfix, is_root};

use super::{Senders, certificates};

/// Below which zone a case is, its level, the TLSA record of its mail exchanger (`@` is the right digest of the server's key, `@ca` of
/// the authority's), and what the log must say.
const CASES: [(&str, &str, &str, &str, &str); 17] = [
    ("right", "signed", "dane", "3 1 1 @good", "Verified TLS"),
    ("wrong", "signed", "dane", "3 1 1 @other", "Server certificate not verified"),
    ("either", "signed", "dane", "3 1 1 @other|3 1 1 @good", "Verified TLS"),
    ("anchor", "signed", "dane", "2 1 1 @ca", "Verified TLS"),
    ("anchor-wrong", "signed", "dane", "2 1 1 @other", "Server certificate not verified"),
    ("unusable", "signed", "dane", "1 1 1 @good", "Untrusted TLS"),
    ("none", "signed", "dane", "", "Untrusted TLS"),
    ("right-only", "signed", "dane-only", "3 1 1 @good", "Verified TLS"),
    ("wrong-only", "signed", "dane-only", "3 1 1 @other", "Server certificate not verified"),
    ("unusable-only", "signed", "dane-only", "1 1 1 @good", "status=deferred"),
    ("none-only", "signed", "dane-only", "", "status=deferred"),
    ("insecure", "plain", "dane", "3 1 1 @other", "Untrusted TLS"),
    ("insecure-only", "plain", "dane-only", "3 1 1 @good", "status=deferred"),
    ("bogus", "bogus", "dane", "3 1 1 @good", "status=deferred"),
    ("bogus-may", "bogus", "may", "3 1 1 @good", "status=deferred"),
    ("clear", "signed", "dane", "3 1 1 @good", "TLS is required, but was not offered by host"),
    ("clear-none", "signed", "dane", "", "status=sent"),
];

/// The records of all cases of a zone. Those called `clear` are at the host without TLS.
fn records(zone: &str, authority: &Authority, addresses: [std::net::IpAddr; 2]) -> String {
    let digest = |name: &str| authority.key_digest(name);
    let [good, other, ca] = ["good", "other", "ca"].map(digest);
    let mut text = String::new();
    for (name, _, _, tlsa, _) in CASES.iter().filter(|(_, of, ..)| *of == zone) {
        let address = addresses[usize::from(name.starts_with("clear"))];
        text += &format!("{name} MX 10 mx.{name}\nmx.{name} A {address}\n");
        for record in tlsa.split('|').filter(|record| !record.is_empty()) {
            let record = record.replace("@good", &good).replace("@other", &other).replace("@ca", &ca);
            text += &format!("_25._tcp.mx.{name} TLSA {record}\n");
        }
    }
    text
}

#[test]
fn tlsa_records_decide_as_in_postfix() {
    if !is_root("hosts with DANE") {
        return;
    }
    let mut network = Network::new();
    let authority = certificates();
    // The name that usage 2 asks for.
    authority.issue("good", &["mx.anchor.signed.example", "mx.anchor-wrong.signed.example"]);
    std::fs::write(
        authority.path("whole.chain"),
        ["good.chain", "ca.pem"].map(|name| std::fs::read_to_string(authority.path(name)).unwrap()).concat(),
    )
    .unwrap();
    let (mx, clear) = (network.host("mx.example.net"), network.host("clear.example.net"));
    network.zone("example.net", "");
    network.zone("sender.example", "");
    network.zone("plain.example", &records("plain", &authority, [mx.ip, clear.ip]));
    network.signed_zone("signed.example", &records("signed", &authority, [mx.ip, clear.ip]));
    network.bogus_zone("bogus.example", &records("bogus", &authority, [mx.ip, clear.ip]));
    let take = ["mydestination =", "mynetworks = 192.0.2.0/24", "default_transport = discard:"];
    let chain = format!("smtpd_tls_chain_files = {}", authority.path("whole.chain").display());
    let _mx = Postfix::start_on(&mx, &[&take[..], &["smtpd_tls_security_level = may", &chain]].concat());
    let _clear = Postfix::start_on(&clear, &take);
    let policies: Vec<String> = CASES
        .iter()
        .map(|(name, zone, level, ..)| format!("{{ {name}.{zone}.example = {level} }}"))
        .collect();
    let senders = Senders::start(
        &mut network,
        &[
            &format!("smtp_tls_policy_maps = inline:{{ {} }}", policies.join(", ")),
            "smtp_tls_security_level = may",
            "relay_domains =",
        ],
    );
    for (name, zone, ..) in &CASES {
        senders.send(&format!("user@{name}.{zone}.example"));
    }
    senders.compare(&CASES.map(|(name, _, _, _, says)| (name, says)));
}
