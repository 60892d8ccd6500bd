use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::dns::Kind;
use crate::tls::client::Context;
use crate::tls::testing::{Authority, NEW_KEY, config};

const DOCUMENT: &str =
    "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.mx.example.com\r\nmax_age: 86400\r\n";

#[test]
fn documents_are_read() {
    let document = Document::parse(DOCUMENT).unwrap();
    assert_eq!((document.mode, document.max_age.as_secs()), (Mode::Enforce, 86400));
    for (host, named) in [
        ("mail.example.com", true),
        ("MAIL.example.com.", true),
        ("a.mx.example.com", true),
        ("a.b.mx.example.com", false),
        ("mx.example.com", false),
        ("evil.example.org", false),
    ] {
        assert_eq!(document.names(host), named, "{host}");
    }
    assert_eq!(
        Document::parse("version: STSv1\nmode: none\nmax_age: 99999999999\n").unwrap().max_age.as_secs(),
        MAX_AGE
    );
    for wrong in [
        "",
        "mode: enforce\nmx: a\nmax_age: 1\n",
        "version: STSv2\nmode: enforce\nmx: a\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmax_age: 1\n",
        "version: STSv1\nmode: maybe\nmx: a\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a\nmax_age: x\n",
        "<html>",
    ] {
        assert!(Document::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn records_are_read() {
    let id = |texts: &[&str]| {
        record_id(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>()).map(str::to_owned)
    };
    assert_eq!(id(&["v=STSv1; id=20160831085700Z;"]), Some("20160831085700Z".into()));
    assert_eq!(id(&["other", "v=STSv1;id=a"]), Some("a".into()));
    for wrong in [
        &["v=STSv1; id=a", "v=STSv1; id=b"][..],
        &["v=STSv1;"],
        &["v=STSv1; id=a-b"],
        &["v=STSv10; id=a"],
        &[],
    ] {
        assert_eq!(id(wrong), None, "{wrong:?}");
    }
}

fn store(enforces: bool, fetch: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static) -> Store {
    Store { enforces, fetch: Box::new(fetch), domains: Mutex::default() }
}

fn answer(id: Option<&str>) -> Result<Answer<Vec<String>>, DnsError> {
    let Some(id) = id else { return Err(DnsError::NotFound { name: "x".into(), kind: Kind::Txt }) };
    Ok(Answer {
        value: vec![format!("v=STSv1; id={id};")],
        secure: false,
        ttl: Duration::from_secs(60),
        canonical: "x".into(),
    })
}

fn policy(main_cf: &str) -> Policy {
    Context::new(&config(main_cf), "smtp", None).unwrap().policy("example.com").unwrap()
}

#[test]
fn a_policy_raises_the_level_of_hosts_it_names_and_shuts_out_the_others() {
    let may = || policy("smtp_tls_security_level = may\n");
    let enforcing = store(true, |_| Ok(DOCUMENT.into()));
    let found = enforcing.apply(may(), "example.com", "mail.example.com", &|_| answer(Some("a"))).unwrap();
    assert_eq!(
        (found.level, found.names, &*found.server_name),
        (Level::Verify, vec![Match::Hostname], "hostname")
    );
    assert!(found.system_anchors);
    let error =
        enforcing.apply(may(), "example.com", "evil.example.org", &|_| answer(Some("a"))).unwrap_err();
    assert_eq!(error.to_string(), "MTA-STS policy of example.com does not name the host evil.example.org");
    // Only watched: by the operator's choice, or by the domain's.
    let testing = store(false, |_| Ok(DOCUMENT.into()));
    let domain_tests = store(true, |_| Ok(DOCUMENT.replace("enforce", "testing")));
    for store in [testing, domain_tests] {
        let found = store.apply(may(), "example.com", "evil.example.org", &|_| answer(Some("a"))).unwrap();
        assert_eq!((found.level, found.reports_unverified), (Level::May, true));
    }
    let off = store(true, |_| Ok(DOCUMENT.replace("enforce", "none")));
    assert_eq!(off.apply(may(), "example.com", "x", &|_| answer(Some("a"))).unwrap(), may());
}

#[test]
fn dane_and_the_operators_word_come_first() {
    let enforcing = || store(true, |_| Err("nobody may ask".into()));
    let table = policy("smtp_tls_policy_maps = inline:{ { example.com = may } }\n");
    let mut dane = policy("smtp_tls_security_level = dane\n");
    dane.tlsa.push(crate::dns::Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0; 32] });
    for policy in [
        table,
        dane,
        policy("smtp_tls_security_level = none\n"),
        policy("smtp_tls_security_level = verify\n"),
    ] {
        let unasked = |_: &str| -> Result<Answer<Vec<String>>, DnsError> { unreachable!() };
        assert_eq!(
            enforcing().apply(policy.clone(), "example.com", "evil.example.org", &unasked).unwrap(),
            policy
        );
    }
}

#[test]
fn a_policy_is_kept_while_it_is_valid_and_fetched_when_its_id_changes() {
    static FETCHED: AtomicU32 = AtomicU32::new(0);
    let store = store(true, |_| match FETCHED.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(DOCUMENT.into()),
        1 => Err("503".into()),
        _ => Ok(DOCUMENT.replace("max_age: 86400", "max_age: 0")),
    });
    let ask = |id: Option<&str>| store.document("Example.com.", &|_| answer(id)).is_some();
    assert!(!ask(None));
    assert!(ask(Some("a")) && ask(Some("a")));
    assert_eq!(FETCHED.load(Ordering::Relaxed), 1);
    // No answer of the DNS, and a web server that fails: what is kept holds, and nobody is asked too often.
    assert!(ask(None) && ask(Some("b")) && ask(Some("b")));
    assert_eq!(FETCHED.load(Ordering::Relaxed), 2);
    assert!(!ask(Some("c")));
    assert_eq!(FETCHED.load(Ordering::Relaxed), 3);
}

#[test]
fn policies_come_over_https_from_a_server_that_is_trusted() {
    let authority = Authority::new();
    authority.issue("web", "localhost", NEW_KEY);
    std::fs::create_dir(authority.folder().join(".well-known")).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(authority.folder().join(".well-known").join(name), text).unwrap()
    };
    let head = |status: &str, more: &str| {
        format!("HTTP/1.0 {status}\r\nContent-Type: text/plain\r\n{more}\r\n{DOCUMENT}")
    };
    write("mta-sts.txt", &head("200 OK", ""));
    write("moved", &head("302 Found", "Location: /.well-known/mta-sts.txt\r\n"));
    write("html", &head("200 OK", "").replace("text/plain", "text/html"));
    write("large", &format!("{}{}", head("200 OK", ""), "x".repeat(70_000)));
    let server = authority.serve("-cert web.pem -key web.key -HTTP");
    let port = server.port;
    let ca = CertificateDer::from(authority.der("ca.pem"));
    let get = |roots: &[&CertificateDer<'static>], name: &str| {
        fetch(roots, &format!("https://localhost:{port}/.well-known/{name}"), Duration::from_secs(20))
    };
    let found = get(&[&ca], "mta-sts.txt");
    let others = ["moved", "html", "large"].map(|name| (name, get(&[&ca], name)));
    let untrusted = get(&[], "mta-sts.txt");
    assert_eq!(found.as_deref().map(Document::parse), Ok(Document::parse(DOCUMENT)));
    for (name, result) in others {
        assert!(result.is_err(), "{name}");
    }
    assert!(untrusted.is_err());
}
