//! The DNS's part of the report, with answers from a table.

use std::net::IpAddr;
use std::time::Duration;

use net::dns::{Answer, DnsError, Kind, Mx};

use crate::dns::Dns;
use crate::domain::{Site, check};
use crate::finding::{Level, Report};

/// Lines `NAME TYPE VALUE`.
struct Table {
    records: &'static str,
    secure: bool,
    dead: bool,
}

impl Table {
    fn find(&self, name: &str, kind: &str, asked: Kind) -> Result<Answer<Vec<String>>, DnsError> {
        if self.dead {
            return Err(DnsError::Temporary { name: name.to_owned(), kind: asked, cause: "timeout".into() });
        }
        let value: Vec<String> = self
            .records
            .lines()
            .filter_map(|line| line.trim().strip_prefix(&format!("{name} {kind} ")))
            .map(str::to_owned)
            .collect();
        let secure = self.secure;
        match value.is_empty() {
            true => Err(DnsError::NotFound { name: name.to_owned(), kind: asked }),
            false => Ok(Answer { value, secure, ttl: Duration::ZERO, canonical: name.to_owned() }),
        }
    }
}

impl Dns for Table {
    fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, DnsError> {
        let hosts = self.find(domain, "MX", Kind::Mx)?;
        Ok(hosts.map(|hosts| hosts.into_iter().map(|host| Mx { preference: 10, host }).collect()))
    }

    fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, DnsError> {
        let found = self.find(host, "A", Kind::A)?;
        Ok(found.map(|found| found.iter().map(|ip| ip.parse().unwrap()).collect()))
    }

    fn names(&self, ip: IpAddr) -> Result<Answer<Vec<String>>, DnsError> {
        self.find(&ip.to_string(), "PTR", Kind::Ptr)
    }

    fn txt(&self, name: &str) -> Result<Answer<Vec<String>>, DnsError> {
        self.find(name, "TXT", Kind::Txt)
    }

    fn ns(&self, zone: &str) -> Result<Answer<Vec<String>>, DnsError> {
        self.find(zone, "NS", Kind::Ns)
    }
}

fn report_of(records: &'static str, selectors: &[&str]) -> Report {
    report(&Table { records, secure: true, dead: false }, selectors)
}

fn report(table: &Table, selectors: &[&str]) -> Report {
    let site = Site {
        dns: table,
        domain: "example.com",
        host: "mail.example.com",
        addresses: vec!["192.0.2.1".parse().unwrap()],
        selectors: selectors.iter().map(|&name| name.to_owned()).collect(),
    };
    let mut report = Report::default();
    check(&site, &mut report);
    report
}

const GOOD: &str = "example.com MX mail.example.com
    mail.example.com A 192.0.2.1
    192.0.2.1 PTR mail.example.com
    example.com TXT v=spf1 mx -all
    s1._domainkey.example.com TXT v=DKIM1; p=AAAA
    _dmarc.example.com TXT v=DMARC1; p=reject";

fn level(report: &Report, check: &str) -> Level {
    let of_check = report.findings.iter().filter(|finding| finding.check == check);
    of_check.map(|finding| finding.level).max().unwrap_or(Level::Pass)
}

#[test]
fn a_good_domain_passes() {
    let report = report_of(GOOD, &[]);
    assert_eq!(report.exit_status(), 0, "{report:#?}");
    assert_eq!(report.findings.len(), 6);
}

#[test]
fn what_is_missing_is_told_with_a_way_out() {
    let report = report_of("example.com MX other.example\nother.example A 198.51.100.1", &["k"]);
    for check in ["mx", "ptr", "dkim"] {
        assert_eq!(level(&report, check), Level::Fail, "{check}: {report:#?}");
    }
    for check in ["spf", "dmarc"] {
        assert_eq!(level(&report, check), Level::Warn, "{check}: {report:#?}");
    }
    assert!(report.findings.iter().filter(|f| f.level >= Level::Warn).all(|f| !f.advice.is_empty()));
    assert_eq!(report.exit_status(), 2);
}

#[test]
fn records_are_read_and_not_only_found() {
    for (records, check, expected) in [
        ("example.com MX .", "mx", Level::Fail),
        ("example.com A 192.0.2.1", "mx", Level::Pass),
        ("192.0.2.1 PTR host.isp.example", "ptr", Level::Fail),
        ("example.com TXT v=spf1 ip4:192.0.2.0/24 -all", "spf", Level::Pass),
        ("example.com TXT v=spf1 ip4:198.51.100.0/24 -all", "spf", Level::Fail),
        ("example.com TXT v=spf1 +IP4:192.0.2.0/24 -all", "spf", Level::Pass),
        ("example.com TXT v=spf1 übel -all", "spf", Level::Warn),
        ("example.com TXT v=spf1 ip4:198.51.100.0/24 ~all", "spf", Level::Warn),
        ("example.com TXT v=spf1 -all\nexample.com TXT v=spf1 mx -all", "spf", Level::Fail),
        (
            "example.com TXT v=spf1 include:_spf.isp.example -all\n_spf.isp.example TXT v=spf1 ip4:192.0.2.1 -all",
            "spf",
            Level::Pass,
        ),
        (
            "example.com TXT v=spf1 redirect=r.example\nr.example TXT v=spf1 a:h.example -all\nh.example A 192.0.2.1",
            "spf",
            Level::Pass,
        ),
        ("example.com TXT v=spf1 include:example.com -all", "spf", Level::Warn),
        ("example.com TXT v=spf1 mxx -all", "spf", Level::Warn),
        ("_dmarc.example.com TXT v=DMARC1; rua=mailto:x@y", "dmarc", Level::Fail),
        ("default._domainkey.example.com TXT v=DKIM1; p=", "dkim", Level::Warn),
    ] {
        let report = report_of(records, &[]);
        assert_eq!(level(&report, check), expected, "{records}: {report:#?}");
    }
}

#[test]
fn without_a_resolver_one_line_says_so() {
    let report = report(&Table { records: "", secure: false, dead: true }, &[]);
    assert_eq!(report.findings.len(), 2, "{report:#?}");
    assert_eq!(level(&report, "resolver"), Level::Fail);
    let mut insecure = GOOD_INSECURE;
    insecure.secure = false;
    let report = self::report(&insecure, &[]);
    assert_eq!((level(&report, "resolver"), report.exit_status()), (Level::Warn, 1));
}

const GOOD_INSECURE: Table = Table { records: GOOD, secure: false, dead: false };
