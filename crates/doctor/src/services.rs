//! What runs, what answers, and what it would take from strangers.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use config::{Config, ServiceEntry, ServiceKind, param};
use ipc::master::{Answer, Request, ask};
use lookup::MatchList;

use crate::finding::Report;
use crate::smtp::{Client, accepted_forms};

/// A certificate that ends sooner is as good as ended: renewals run weeks before.
const SOON: Duration = Duration::from_hours(14 * 24);

/// All of it.
pub(crate) fn check(config: &Config, own: &[IpAddr], report: &mut Report) {
    running(config, report);
    ports(config, report);
    certificates(config, report);
    relay(config, own, report);
}

fn running(config: &Config, report: &mut Report) {
    match ask(config, Request::Status) {
        Ok(Answer::Done(lines)) => {
            report.pass("running", format!("the mail system runs, {} programs", lines.len()))
        }
        Ok(Answer::Failed(lines)) => {
            report.fail("running", lines.join("; "), "postroad status; the log says more")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            report.skip("running", "only who started the mail system can ask it; run this as root");
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            report.fail("running", "the mail system does not run", "postroad start");
        }
        Err(error) => report.fail("running", format!("ask master: {error}"), "the log says more"),
    }
}

/// The SMTP services of master.cf, and where they listen.
fn listeners(config: &Config) -> impl Iterator<Item = (&ServiceEntry, SocketAddr)> {
    let interfaces = config.get(param::INET_INTERFACES);
    let named = interfaces.iter().find_map(|name| name.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    let has_v4 =
        net::dns::Family::of_protocols(&config.get(param::INET_PROTOCOLS)) != Some(net::dns::Family::V6);
    let loopback = if has_v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    let is_server = |entry: &&ServiceEntry| {
        entry.kind == ServiceKind::Inet && matches!(entry.command.as_str(), "smtpd" | "postscreen")
    };
    config.services().iter().filter(is_server).filter_map(move |entry| {
        let (host, port) = entry.host_and_port()?;
        let ip = match host {
            Some(host) => host.parse().ok()?,
            None => named.unwrap_or(loopback),
        };
        Some((entry, SocketAddr::new(ip, port)))
    })
}

fn is_wrapped(entry: &ServiceEntry) -> bool {
    entry.overrides.iter().any(|(name, value)| name == "smtpd_tls_wrappermode" && value == "yes")
}

fn ports(config: &Config, report: &mut Report) {
    let mut seen = Vec::new();
    for (entry, address) in listeners(config) {
        seen.push(address.port());
        let text = format!("{} ({})", address, entry.name);
        let advice =
            "postroad status; the log says why it does not listen; see that no other program has the port";
        if is_wrapped(entry) {
            match std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                Ok(_) => report.pass("port", format!("{text} answers, with TLS from the start")),
                Err(error) => report.fail("port", format!("{text}: {error}"), advice),
            }
            continue;
        }
        match Client::connect(address) {
            Ok((mut client, greeting)) if greeting.starts_with("220") => {
                let _ = client.say("QUIT");
                report.pass("port", format!("{text} answers: {greeting}"));
            }
            Ok((_, greeting)) => {
                report.warn("port", format!("{text} answers: {greeting}"), "see what the log says of it")
            }
            Err(error) => report.fail("port", format!("{text}: {error}"), advice),
        }
    }
    if !seen.contains(&25) {
        let advice = "uncomment the service smtp in master.cf, unless mail comes another way";
        report.warn("port", "no SMTP service at port 25: other sites cannot deliver here", advice);
    }
    if !seen.contains(&587) && !seen.contains(&465) {
        report.skip(
            "port",
            "no submission services (587, 465): users send through this host only from its networks",
        );
    }
}

fn certificates(config: &Config, report: &mut Report) {
    let certificates = net::tls::own_certificates(config, "smtpd");
    if certificates.is_empty() {
        let advice = "get a certificate (certbot certonly --standalone), and set smtpd_tls_chain_files, smtpd_tls_security_level = may";
        return report.warn("certificate", "there is none: mail and passwords come unencrypted", advice);
    }
    let host = config.get(param::MYHOSTNAME);
    for certificate in certificates {
        let own = match certificate {
            Ok(own) => own,
            Err(error) => {
                report.fail(
                    "certificate",
                    error,
                    "let the parameter name a certificate with its chain, and its own key",
                );
                continue;
            }
        };
        let (now, files) = (SystemTime::now(), &own.files);
        let names = own.certificate.names_to_match().join(", ");
        if own.ends < now || own.begins > now {
            report.fail("certificate", format!("{files}: has expired or is not valid yet"), "renew it");
        } else if own.ends < now + SOON {
            let days = own.ends.duration_since(now).unwrap_or_default().as_secs() / 86_400;
            report.warn("certificate", format!("{files}: ends in {days} days"), "see why it was not renewed");
        } else if !own.is_for(&host) {
            let advice = format!("get one for {host}, by which others know this host");
            report.warn("certificate", format!("{files}: is for {names}, not for {host}"), advice);
        } else if let Err(why) = own.trusted {
            let advice =
                "use a certificate of a public authority, with its intermediate ones (fullchain.pem)";
            report.warn("certificate", format!("{files}: {why}"), advice);
        } else {
            let days = own.ends.duration_since(now).unwrap_or_default().as_secs() / 86_400;
            report.pass("certificate", format!("{files}: for {names}, {days} days left, trusted"));
        }
    }
}

/// As a stranger, from an address that is not in mynetworks.
fn relay(config: &Config, own: &[IpAddr], report: &mut Report) {
    let networks = match MatchList::mynetworks(config) {
        Ok(networks) => networks,
        Err(error) => return report.fail("relay", error.to_string(), "mend mynetworks"),
    };
    let is_trusted = |ip: IpAddr| networks.matches_host("", ip).unwrap_or(false);
    if let Ok(Some(item)) = lookup::trusted_strangers(config) {
        let text = format!("mynetworks: {item} holds hosts all over the internet: this is an open relay");
        return report.fail("relay", text, "list only your own networks in mynetworks");
    }
    // A service that is bound to the loopback interface no stranger reaches.
    let is_open = |(entry, address): &(&ServiceEntry, SocketAddr)| {
        let is_local =
            entry.host_and_port().is_some_and(|(host, _)| host.is_some()) && address.ip().is_loopback();
        !is_wrapped(entry) && !is_local
    };
    let Some((_, port)) = listeners(config).find(is_open) else {
        return report.skip("relay", "no SMTP service that strangers reach");
    };
    let Some(from) = own.iter().copied().find(|ip| !is_trusted(*ip)) else {
        return report.skip(
            "relay",
            "all addresses of this host are in mynetworks, so that it cannot play a stranger; ask from outside",
        );
    };
    let to = if port.ip().is_loopback() || port.is_ipv4() != from.is_ipv4() { from } else { port.ip() };
    let host = config.get(param::MYHOSTNAME);
    match accepted_forms(from, SocketAddr::new(to, port.port()), &host) {
        Ok(forms) if forms.is_empty() => report.pass("relay", format!("mail of strangers ({from}) to strangers is refused")),
        Ok(forms) => report.fail(
            "relay",
            format!("this is an open relay: a stranger ({from}) may send to {}", forms.join(" ")),
            "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
        ),
        Err(error) => report.skip("relay", format!("port {} does not answer {from}: {error}", port.port())),
    }
}
