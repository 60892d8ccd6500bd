//! The resolver against a server that answers from a table.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::fake::FakeServer;
use super::{DnsError, DnsSettings, Family, Mx, Resolver, Srv, Tlsa};
use crate::wait_until;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn each_kind_of_record_is_found() {
    let server = FakeServer::start();
    let dns = server.resolver();
    let mx = dns.mx("example.com").unwrap();
    assert_eq!(
        mx.value,
        [
            Mx { preference: 20, host: "mx2.example.com".to_owned() },
            Mx { preference: 10, host: "mx1.example.com".to_owned() }
        ]
    );
    assert_eq!((mx.ttl, mx.secure, mx.canonical.as_str()), (Duration::from_secs(60), false, "example.com"));
    assert_eq!(dns.addresses("mx1.example.com", Family::V4).unwrap().value, ips(&["192.0.2.1"]));
    assert_eq!(dns.addresses("mx1.example.com", Family::V6).unwrap().value, ips(&["2001:db8::1"]));
    assert_eq!(
        dns.addresses("mx1.example.com", Family::Any).unwrap().value,
        ips(&["192.0.2.1", "2001:db8::1"])
    );
    assert_eq!(dns.addresses("mx2.example.com", Family::Any).unwrap().value, ips(&["192.0.2.2"]));
    assert_eq!(dns.names("192.0.2.1".parse().unwrap()).unwrap().value, ["mx1.example.com"]);
    assert_eq!(dns.names("::ffff:192.0.2.1".parse().unwrap()).unwrap().value, ["mx1.example.com"]);
    assert_eq!(dns.names("2001:db8::1".parse().unwrap()).unwrap().value, ["mx1.example.com"]);
    assert_eq!(dns.txt("text.example").unwrap().value, ["first part, second part"]);
    assert_eq!(dns.ns("example.com").unwrap().value, ["ns1.example.com"]);
    assert_eq!(
        dns.srv("_submission._tcp.example.com").unwrap().value,
        [Srv { priority: 0, weight: 5, port: 587, target: "mx1.example.com".to_owned() }]
    );
    assert_eq!(
        dns.tlsa("_25._tcp.mx.signed.example").unwrap().value,
        [Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0, 255, 16] }]
    );
    assert_eq!(dns.mx("bücher.example").unwrap().value[0].preference, 5);
    assert!(dns.mx("nullmx.example").unwrap().value[0].is_null());
}

#[test]
fn errors_have_postfix_s_words() {
    let server = FakeServer::start();
    let dns = server.resolver();
    let text = |error: DnsError| error.to_string();
    let prefix = "Host or domain name not found. Name service error for name=";
    assert_eq!(
        text(dns.mx("nowhere.example").unwrap_err()),
        format!("{prefix}nowhere.example type=MX: Host not found")
    );
    let missing = dns.addresses("bare.example", Family::V6).unwrap_err();
    assert!(missing.is_absence() && !missing.is_not_found() && !missing.is_temporary());
    assert_eq!(
        text(missing),
        format!("{prefix}bare.example type=AAAA: Host found but no data record of requested type")
    );
    for name in ["servfail.example", "refused.example", "silent.example"] {
        let error = dns.addresses(name, Family::V4).unwrap_err();
        assert!(error.is_temporary());
        assert_eq!(text(error), format!("{prefix}{name} type=A: Host not found, try again"));
    }
    let before = server.asked.load(Ordering::SeqCst);
    for name in ["192.0.2.1", "::1", "a b", "", "bad..name"] {
        let error = dns.addresses(name, Family::Any).unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(text(error), format!("Name service error for {name}: invalid host or domain name"));
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), before);
    let malformed =
        "Name service error for name=badmx.example type=MX: Malformed or unexpected name server reply";
    assert_eq!(text(dns.mx("badmx.example").unwrap_err()), malformed);
    assert!(matches!(dns.names("192.0.2.9".parse().unwrap()), Err(DnsError::Malformed { .. })));
    assert_eq!(dns.mx("mixedmx.example").unwrap().value.len(), 1);
}

#[test]
fn aliases_are_followed() {
    let server = FakeServer::start();
    let dns = server.resolver();
    let answer = dns.addresses("alias2.example", Family::V4).unwrap();
    assert_eq!((answer.value, answer.canonical.as_str()), (ips(&["192.0.2.10"]), "bare.example"));
    assert!(matches!(dns.addresses("dangling.example", Family::V4), Err(DnsError::NotFound { .. })));
    assert!(matches!(dns.mx("alias.example"), Err(DnsError::NoData { .. })));
    let circle = dns.mx("circle1.example").unwrap_err();
    assert_eq!(circle.to_string(), "Name server loop for circle1.example");
}

#[test]
fn only_what_the_server_validated_is_secure() {
    let server = FakeServer::start();
    assert!(!server.resolver().mx("signed.example").unwrap().secure);
    let dns = Resolver::system(DnsSettings { dnssec: true, ..server.settings() });
    assert!(dns.mx("signed.example").unwrap().secure);
    assert!(dns.tlsa("_25._tcp.mx.signed.example").unwrap().secure);
    assert!(!dns.mx("example.com").unwrap().secure);
    assert!(!dns.addresses("half.signed.example", Family::V4).unwrap().secure);
    // From memory, too.
    assert!(dns.mx("signed.example").unwrap().secure);
}

#[test]
fn answers_and_their_absence_are_remembered_for_their_time() {
    let server = FakeServer::start();
    let dns = server.resolver();
    let asked = || server.asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert!(dns.mx("example.com").is_ok());
        assert!(dns.clone().mx("nowhere.example").is_err());
        assert!(dns.addresses("bare.example", Family::V6).is_err());
    }
    assert_eq!(asked(), 3);
    wait_until(|| {
        assert!(dns.addresses("short.example.com", Family::V4).is_ok());
        asked() == 5
    });
    // That nothing was learnt is not remembered.
    assert!(dns.mx("servfail.example").is_err() && dns.mx("servfail.example").is_err());
    assert_eq!(asked(), 7);
}

#[test]
fn a_truncated_answer_comes_over_tcp() {
    let server = FakeServer::start();
    assert_eq!(server.resolver().txt("big.example").unwrap().value, ["all of it"]);
    server.configure(&format!("nameserver {}\noptions use-vc\n", server.address));
    assert_eq!(server.resolver().txt("text.example").unwrap().value.len(), 1);
}

#[test]
fn silence_delays_nobody_else() {
    let server = FakeServer::start();
    server.configure(&format!("nameserver {}\noptions timeout:8 attempts:1\n", server.address));
    let dns = server.resolver();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let dns = dns.clone();
            thread::spawn(move || dns.mx("silent.example").unwrap_err().is_temporary())
        })
        .collect();
    let begun = Instant::now();
    assert!(dns.mx("example.com").is_ok() && dns.mx("nullmx.example").is_ok());
    assert!(begun.elapsed() < Duration::from_secs(7));
    assert!(slow.into_iter().all(|thread| thread.join().unwrap()));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_next_server_is_asked_and_the_file_read_again() {
    let server = FakeServer::start();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    server.configure(&format!("nameserver {silent}\nnameserver {}\noptions timeout:1\n", server.address));
    let dns = server.resolver();
    assert!(dns.mx("example.com").is_ok());
    // Where the silent server is asked first, each of them takes a second; on a busy machine one of them may.
    let names = ["nullmx.example", "signed.example", "servfail.example", "nowhere.example"];
    let is_quick = names.into_iter().any(|name| {
        let begun = Instant::now();
        let _ = dns.mx(name);
        begun.elapsed() < Duration::from_millis(900)
    });
    assert!(is_quick, "the silent server is asked last for a while");
    let other = FakeServer::start();
    server.configure(&format!("nameserver {}\n", other.address));
    wait_until(|| {
        assert!(dns.mx("example.com").is_ok());
        other.asked.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn short_names_are_completed_on_request_only() {
    let server = FakeServer::start();
    server.configure(&format!("nameserver {}\nsearch example.com example\n", server.address));
    assert!(server.resolver().addresses("mx1", Family::V4).is_err());
    let dns = Resolver::system(DnsSettings { completes_names: true, ..server.settings() });
    let answer = dns.addresses("mx1", Family::V4).unwrap();
    assert_eq!(answer.canonical, "mx1.example.com");
    assert!(dns.addresses("bare", Family::V4).is_err());
    assert!(dns.addresses("mx.signed", Family::V4).is_err());
    let dns = Resolver::system(DnsSettings { searches_domains: true, ..server.settings() });
    assert!(dns.addresses("bare", Family::V4).is_ok());
    assert!(dns.addresses("mx.signed", Family::V4).is_ok());
}

#[test]
fn native_lookups_find_what_this_host_knows() {
    let dns = Resolver::system(DnsSettings::default());
    assert_eq!(dns.native_addresses("localhost", Family::V4).unwrap().value, ips(&["127.0.0.1"]));
    assert_eq!(dns.native_addresses("192.0.2.7", Family::Any).unwrap().value, ips(&["192.0.2.7"]));
    assert!(matches!(dns.native_addresses("a b", Family::Any), Err(DnsError::InvalidName { .. })));
}
