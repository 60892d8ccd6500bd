//! `postroad doctor`, with a domain that is as it should be and one that is not.

use scenarios::{Builder, Instance, Network, is_root};

/// The worst level of each check.
fn levels(site: &Instance, arguments: &[&str]) -> (i32, serde_json::Value) {
    let output = site.postroad(&[&["doctor", "--json"], arguments].concat());
    let report = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.status, report)
}

fn has(report: &serde_json::Value, check: &str, level: &str) -> bool {
    let findings = report.as_array().map(Vec::as_slice).unwrap_or_default();
    findings.iter().any(|finding| finding["check"] == check && finding["level"] == level)
}

#[test]
fn the_doctor_tells_a_good_domain_from_a_bad_one() {
    if !is_root("a domain and its host") {
        return;
    }
    let mut network = Network::new();
    let host = network.host("mail.example.com");
    network.signed_zone(
        "example.com",
        "@ MX 10 mail\n@ TXT \"v=spf1 mx -all\"\n_dmarc TXT \"v=DMARC1; p=reject\"\n\
         s1._domainkey TXT \"v=DKIM1; k=rsa; p=AAAA\"",
    );
    network.zone("bad.example", "@ MX 10 elsewhere\nelsewhere A 192.0.2.99\n@ TXT \"v=spf1 -all\"");
    let site = Builder::new().on(&host).start();
    let (_, report) = levels(&site, &["example.com"]);
    for check in [
        "running",
        "port",
        "queue",
        "postmaster",
        "tables",
        "relay",
        "resolver",
        "mx",
        "ptr",
        "spf",
        "dkim",
        "dmarc",
    ] {
        assert!(has(&report, check, "pass") && !has(&report, check, "fail"), "{check}: {report:#}");
    }
    let (status, report) = levels(&site, &["bad.example", "--selector", "s9"]);
    assert_eq!(status, 2);
    for check in ["mx", "spf", "dkim", "postmaster"] {
        assert!(has(&report, check, "fail"), "{check}: {report:#}");
    }
    assert!(has(&report, "dmarc", "warn"), "{report:#}");
    let (_, report) = levels(&site, &["--offline"]);
    assert!(has(&report, "dns", "skip") && !has(&report, "mx", "pass"), "{report:#}");
    drop(site);

    let open =
        "smtpd_relay_restrictions = check_client_access inline:{{192.0.2.10=OK}}, reject_unauth_destination";
    let site = Builder::new().on(&host).main(open).start();
    let (status, report) = levels(&site, &["example.com", "--offline"]);
    assert!(status == 2 && has(&report, "relay", "fail"), "{report:#}");
    site.postroad(&["stop"]).ok();
    let (status, report) = levels(&site, &["example.com", "--offline"]);
    assert!(status == 2 && has(&report, "running", "fail") && has(&report, "port", "fail"), "{report:#}");
}
