//! What the DNS says about the domain and about this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use net::dns::DnsError;

use crate::dns::Dns;
use crate::finding::Report;
use crate::spf::{self, Verdict};

/// Whom the questions are about.
pub struct Site<'a> {
    /// The DNS.
    pub dns: &'a dyn Dns,
    /// The domain whose mail this host takes.
    pub domain: &'a str,
    /// `myhostname`.
    pub host: &'a str,
    /// The addresses that others see this host by.
    pub addresses: Vec<IpAddr>,
    /// Where DKIM keys may be; empty to look in the usual places.
    pub selectors: Vec<String>,
}

/// Selectors that signers and tutorials use.
const USUAL_SELECTORS: [&str; 13] = [
    "default",
    "mail",
    "dkim",
    "postroad",
    "s1",
    "s2",
    "selector1",
    "selector2",
    "key1",
    "k1",
    "rsa",
    "ed25519",
    "smtp",
];

/// All that the DNS can tell. Without a resolver that answers there is nothing to be told.
pub fn check(site: &Site<'_>, report: &mut Report) {
    if !resolver(site, report) {
        let left = "mx, ptr, spf, dkim and dmarc: not without a resolver that answers";
        return report.skip("dns", left);
    }
    mx(site, report);
    pointers(site, report);
    sender_policy(site, report);
    keys(site, report);
    dmarc(site, report);
}

fn resolver(site: &Site<'_>, report: &mut Report) -> bool {
    let first = site.dns.mx(site.domain);
    if let Err(error @ DnsError::Temporary { .. }) = &first {
        // A domain that is broken must not be taken for a resolver that is.
        if site.dns.ns("org").err().is_some_and(|error| error.is_temporary()) {
            let advice = "see that /etc/resolv.conf names a server that answers";
            report.fail("resolver", error.to_string(), advice);
            return false;
        }
    }
    let is_secure = |secure: Result<bool, DnsError>| secure.unwrap_or(false);
    let secure = is_secure(first.map(|answer| answer.secure))
        || is_secure(site.dns.ns("org").map(|answer| answer.secure))
        || is_secure(site.dns.ns("com").map(|answer| answer.secure));
    if secure {
        report.pass("resolver", "answers, and validates DNSSEC");
    } else {
        report.warn(
            "resolver",
            "answers, and does not validate DNSSEC: DANE cannot be used",
            "run a validating resolver on this host (unbound), with “options trust-ad” in /etc/resolv.conf",
        );
    }
    true
}

fn mx(site: &Site<'_>, report: &mut Report) {
    let domain = site.domain;
    let hosts: Vec<String> = match site.dns.mx(domain) {
        Ok(answer) if answer.value.iter().any(net::dns::Mx::is_null) => {
            let advice = format!("replace the MX record of {domain} by: MX 10 {}.", site.host);
            return report.fail("mx", format!("{domain} says that it takes no mail (MX .)"), advice);
        }
        Ok(answer) => answer.value.into_iter().map(|mx| mx.host).collect(),
        Err(error) if error.is_absence() => vec![domain.to_owned()],
        Err(error) => return report.fail("mx", error.to_string(), "mend the zone, or its name servers"),
    };
    let mut missing = Vec::new();
    let mut ours = Vec::new();
    for host in &hosts {
        match site.dns.addresses(host) {
            Ok(answer) if answer.value.iter().any(|ip| site.addresses.contains(ip)) => {
                ours.push(host.as_str())
            }
            Ok(_) => {}
            Err(error) => missing.push(format!("{host}: {error}")),
        }
    }
    let advice = format!(
        "let {domain} have an MX record that names this host: MX 10 {}.; behind NAT, set proxy_interfaces to the address outside",
        site.host
    );
    match (ours.is_empty(), missing.is_empty()) {
        (true, _) => report.fail(
            "mx",
            format!("mail for {domain} goes to {}, not to this host", hosts.join(", ")),
            advice,
        ),
        (false, true) => report.pass("mx", format!("mail for {domain} comes here, by {}", ours.join(", "))),
        (false, false) => {
            report.warn("mx", missing.join("; "), "give these hosts addresses, or remove their MX records")
        }
    }
}

/// A name that leads back to the address; receivers refuse mail of hosts that have none.
fn pointers(site: &Site<'_>, report: &mut Report) {
    match site.dns.addresses(site.host) {
        Ok(answer) if answer.value.iter().any(|ip| site.addresses.contains(ip)) => {}
        Ok(answer) => {
            let found: Vec<String> = answer.value.iter().map(ToString::to_string).collect();
            let text = format!("myhostname = {} leads to {}, not to this host", site.host, found.join(", "));
            report.fail(
                "ptr",
                text,
                "give the name the addresses of this host, or set myhostname to its name",
            );
        }
        Err(error) => report.fail(
            "ptr",
            error.to_string(),
            "give myhostname an address record, or set it to a name that has one",
        ),
    }
    if site.addresses.is_empty() {
        report.warn(
            "ptr",
            "this host has no public address",
            "behind NAT, set proxy_interfaces to the address outside",
        );
    }
    for ip in &site.addresses {
        let names = site.dns.names(*ip).map(|answer| answer.value);
        let advice = format!("ask who gave you {ip} to set its PTR record to {}", site.host);
        match names {
            Err(error) if error.is_temporary() => report.warn("ptr", error.to_string(), advice),
            Err(_) => report.fail("ptr", format!("{ip} has no name"), advice),
            Ok(names) => {
                let leads_back =
                    |name: &String| site.dns.addresses(name).is_ok_and(|found| found.value.contains(ip));
                match names.iter().find(|name| leads_back(name)) {
                    None => report.fail(
                        "ptr",
                        format!("{ip} is {}, which does not lead back to it", names.join(", ")),
                        advice,
                    ),
                    Some(name) if name.eq_ignore_ascii_case(site.host) => {
                        report.pass("ptr", format!("{ip} is {name}, and back"));
                    }
                    Some(name) => report.warn(
                        "ptr",
                        format!("{ip} is {name}, and not myhostname = {}", site.host),
                        advice,
                    ),
                }
            }
        }
    }
}

fn sender_policy(site: &Site<'_>, report: &mut Report) {
    let domain = site.domain;
    let advice = format!("{domain} TXT \"v=spf1 mx -all\"");
    let texts = match site.dns.txt(domain) {
        Ok(answer) => answer.value,
        Err(error) if error.is_absence() => Vec::new(),
        Err(error) => return report.warn("spf", error.to_string(), "mend the zone, or its name servers"),
    };
    match spf::records(&texts).len() {
        0 => return report.warn("spf", format!("{domain} has no SPF record"), advice),
        1 => {}
        count => {
            return report.fail(
                "spf",
                format!("{domain} has {count} SPF records"),
                "make one of them; more count as none",
            );
        }
    }
    let mut verdicts = site.addresses.iter().map(|ip| (ip, spf::evaluate(site.dns, domain, *ip)));
    match verdicts.find(|(_, verdict)| *verdict != Verdict::Pass) {
        None => report.pass("spf", format!("the record of {domain} lets this host send")),
        Some((ip, Verdict::Fail)) => {
            report.fail("spf", format!("the record of {domain} forbids {ip} to send"), advice)
        }
        Some((_, Verdict::Unknown(why))) => report.warn("spf", why, advice),
        Some((ip, _)) => report.warn("spf", format!("the record of {domain} does not know {ip}"), advice),
    }
}

fn keys(site: &Site<'_>, report: &mut Report) {
    let asked = !site.selectors.is_empty();
    let selectors: BTreeSet<&str> = match asked {
        true => site.selectors.iter().map(String::as_str).collect(),
        false => USUAL_SELECTORS.into_iter().collect(),
    };
    let mut found = Vec::new();
    for selector in selectors {
        let name = format!("{selector}._domainkey.{}", site.domain);
        let texts = site.dns.txt(&name).map(|answer| answer.value).unwrap_or_default();
        let key = texts.iter().find_map(|text| tag(text, "p"));
        match key {
            Some(key) if !key.is_empty() => found.push(selector),
            Some(_) => {
                report.warn("dkim", format!("{name}: the key is revoked"), "sign with another selector")
            }
            None if asked => report.fail(
                "dkim",
                format!("{name} has no key"),
                "publish the public key of your signer there",
            ),
            None => {}
        }
    }
    if !found.is_empty() {
        report.pass("dkim", format!("keys of {} at {}", site.domain, found.join(", ")));
    } else if !asked {
        report.warn(
            "dkim",
            format!("{} has no key under the usual selectors", site.domain),
            "sign your mail, or say under which selector the key is: --selector NAME",
        );
    }
}

fn dmarc(site: &Site<'_>, report: &mut Report) {
    let mut domain = site.domain;
    // The policy of the domain above counts where there is none; not that of a top-level domain.
    let record = loop {
        let texts = site.dns.txt(&format!("_dmarc.{domain}")).map(|answer| answer.value).unwrap_or_default();
        let records: Vec<String> = texts.into_iter().filter(|text| text.starts_with("v=DMARC1")).collect();
        if !records.is_empty() {
            break records;
        }
        match domain.split_once('.') {
            Some((_, above)) if above.contains('.') => domain = above,
            _ => break Vec::new(),
        }
    };
    let advice =
        format!("_dmarc.{} TXT \"v=DMARC1; p=none; rua=mailto:postmaster@{}\"", site.domain, site.domain);
    match &record[..] {
        [] => report.warn("dmarc", format!("{} has no DMARC record", site.domain), advice),
        [record] => match tag(record, "p") {
            Some(policy @ ("none" | "quarantine" | "reject")) => {
                report.pass("dmarc", format!("the policy of {domain} is {policy}"));
            }
            _ => {
                report.fail("dmarc", format!("the record of {domain} has no policy (p=): “{record}”"), advice)
            }
        },
        _ => report.fail(
            "dmarc",
            format!("{domain} has several DMARC records"),
            "make one of them; more count as none",
        ),
    }
}

/// The value of a tag in `a=b; c=d`.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').find_map(|part| {
        let (found, value) = part.split_once('=')?;
        (found.trim() == name).then(|| value.trim())
    })
}
