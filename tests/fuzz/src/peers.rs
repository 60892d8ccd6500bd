//! Other servers and services: the DNS, Dovecot, policy services, balancers, and the mechanisms of SASL.

use std::net::IpAddr;
use std::time::Duration;

use doctor::dns::Dns;
use net::dns::{Answer, DnsError, Kind, Mx, Tlsa};
use net::tls::sts::{Document, record_id};
use smtp_proto::sasl::scram::{Hash, Keys};
use smtp_proto::sasl::server::{Context, Step, Unavailable, Verifier};
use smtp_proto::sasl::{Mechanism, Secret, client, from_base64, push_base64, server};

use crate::messages::CONFIG;
use crate::pieces::{cut, halves, take_byte};

const MECHANISMS: [Mechanism; 8] = [
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::CramMd5,
    Mechanism::ScramSha1,
    Mechanism::ScramSha256,
    Mechanism::External,
    Mechanism::OAuthBearer,
    Mechanism::XOAuth2,
];

/// Text that comes out of the DNS or by way of it: host names, MTA-STS records and policies, SPF records, resolv.conf.
pub fn dns_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(ascii) = net::dns::to_ascii(&text) {
        assert!(ascii.is_ascii());
        if net::dns::is_host_name(&ascii) {
            assert!(ascii.len() <= 255 && !ascii.contains(['/', ' ', '\n', '@']), "no host name: {ascii:?}");
        }
    }
    if let Some(id) = record_id(&[text.to_string()]) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
    if let Ok(document) = Document::parse(&text) {
        assert!(document.mx.len() <= 100 && document.max_age <= Duration::from_secs(31_557_600));
        assert!(!document.names(""), "a policy that names no host at all");
        let _ = document.names("mx.example.com");
    }
    let [servers, _, dots, attempts] = net::fuzzing::resolv_conf_bounds(&text);
    assert!((1..=3).contains(&servers) && dots <= 15 && attempts <= 5);
    let _ = net::fuzzing::policy_level(&text);
    // A record that includes itself, and whatever else it says.
    if let Ok(ip) = "192.0.2.1".parse::<IpAddr>() {
        let zone = Zone(format!("v=spf1 {text}"));
        let _ = doctor::is_permitted(&zone, "example.com", ip);
    }
}

/// Every name has this one text and a host.
struct Zone(String);

fn answer<T>(value: T) -> Result<Answer<T>, DnsError> {
    Ok(Answer { value, secure: false, ttl: Duration::from_secs(1), canonical: String::new() })
}

impl Dns for Zone {
    fn mx(&self, _domain: &str) -> Result<Answer<Vec<Mx>>, DnsError> {
        answer(vec![Mx { preference: 1, host: "mx.example.com".to_owned() }])
    }

    fn addresses(&self, _host: &str) -> Result<Answer<Vec<IpAddr>>, DnsError> {
        answer(vec![IpAddr::from([192, 0, 2, 2])])
    }

    fn names(&self, _ip: IpAddr) -> Result<Answer<Vec<String>>, DnsError> {
        answer(vec!["mx.example.com".to_owned()])
    }

    fn txt(&self, name: &str) -> Result<Answer<Vec<String>>, DnsError> {
        if name.len() > 500 {
            return Err(DnsError::NotFound { name: name.to_owned(), kind: Kind::Txt });
        }
        answer(vec![self.0.clone()])
    }

    fn ns(&self, _zone: &str) -> Result<Answer<Vec<String>>, DnsError> {
        answer(Vec::new())
    }
}

/// TLSA records, and certificates that are none: usable records are of the known kinds, and nothing that is not equal matches.
pub fn dane(mut data: &[u8]) {
    let record = |data: &mut &[u8]| {
        let [usage, selector, matching] = [take_byte(data) & 3, take_byte(data) & 3, take_byte(data) & 3];
        let length = usize::from(take_byte(data)).min(data.len());
        let (found, rest) = data.split_at(length);
        *data = rest;
        Tlsa { usage, selector, matching, data: found.to_vec() }
    };
    let records = [record(&mut data), record(&mut data)];
    let settings = net::tls::dane::Settings::default();
    let usable = settings.usable(&records);
    assert!(
        usable.iter().all(|record| records.contains(record) && record.usage >= 2 && record.selector <= 1)
    );
    for record in &usable {
        let matches = net::fuzzing::certificate_matches(data, record);
        if record.matching == 0 && record.selector == 0 && record.usage == 3 {
            assert!(!matches || record.data == data, "another certificate than the record names");
        }
    }
}

/// What Dovecot says: a user's name can end no line and no field.
pub fn dovecot(data: &[u8]) {
    if let Some(mechanisms) = smtpd::fuzzing::dovecot_greeting(data) {
        assert!(mechanisms.len() <= 64);
        assert!(mechanisms.iter().all(|(name, _)| !name.contains(['\n', '\t'])));
    }
    for line in String::from_utf8_lossy(data).lines() {
        if let Some(user) = smtpd::fuzzing::dovecot_accepts(line) {
            assert!(
                !user.is_empty() && !user.contains(char::is_control),
                "a user with control characters: {user:?}"
            );
        }
    }
}

/// What a policy service says: one line without its end.
pub fn policy_service(data: &[u8]) {
    if let Some(action) = smtpd::fuzzing::policy_action(data) {
        assert!(!action.contains('\n') && action.len() <= 3 * data.len());
    }
}

/// PROXY headers: exactly the header's bytes are taken, and what follows it changes nothing.
pub fn proxy_header(data: &[u8]) {
    let Some((addresses, left)) = smtpd::fuzzing::proxy_header(data) else { return };
    let header = &data[..data.len() - left];
    assert!(header.len() <= 12 + 4 + 4096);
    assert_eq!(
        smtpd::fuzzing::proxy_header(header),
        Some((addresses, 0)),
        "what follows a header changes it"
    );
    assert_eq!(
        smtpd::fuzzing::proxy_header(&header[..header.len() - 1]),
        None,
        "a header is whole before its end"
    );
}

/// A client that has failed the screening: the same answers however it is cut, all of them lines, and an end.
pub fn screen(mut data: &[u8]) {
    let seed = take_byte(&mut data);
    let told = |seed| smtpd::fuzzing::turned_away(&CONFIG, cut(data, seed));
    let whole = told(0);
    assert!(whole.is_ok());
    let whole = whole.unwrap_or_default();
    assert!(whole.len() <= 2 + data.iter().filter(|byte| **byte == b'\n').count());
    assert!(whole.iter().all(|reply| !reply.replace("\r\n", "").contains(char::is_control)), "{whole:?}");
    // A line without end is too long at the byte that makes it so, or when what follows has come.
    if !data.split(|byte| *byte == b'\n').any(|line| line.len() >= 512) {
        assert_eq!(Ok(whole), told(seed | 1), "other replies when it is cut");
    }
}

/// Arguments of XCLIENT and XFORWARD: nothing that comes of them can end a line.
pub fn xclient(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for value in smtpd::fuzzing::attributes(&text) {
        assert!(!value.contains(char::is_control), "a control character in {value:?}");
    }
}

/// xtext and base64: what was decoded is the same after it was encoded.
pub fn xtext(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(decoded) = smtp_proto::xtext::decode(&text) {
        assert!(!decoded.contains(char::is_control));
        let encoded = smtp_proto::xtext::encode(&decoded);
        assert_eq!(smtp_proto::xtext::decode(&encoded), Some(decoded), "another text after it was encoded");
    }
    let mut encoded = Vec::new();
    push_base64(data, &mut encoded);
    assert_eq!(from_base64(&encoded).ok().as_deref(), Some(data));
    if let Ok(decoded) = from_base64(data) {
        assert!(decoded.len() <= data.len());
    }
}

struct Knows;

impl Verifier for Knows {
    fn check(&mut self, username: &str, password: &Secret) -> Result<bool, Unavailable> {
        Ok(username == "joe" && password.as_str() == Some("secret"))
    }

    fn scram_keys(&mut self, hash: Hash, username: &str) -> Result<Option<Keys>, Unavailable> {
        Ok((username == "joe").then(|| Keys::derive(hash, b"secret", b"salt".to_vec(), 1)))
    }

    fn password(&mut self, username: &str) -> Result<Option<Secret>, Unavailable> {
        Ok((username == "joe").then(|| Secret::from("secret")))
    }

    fn check_token(&mut self, username: &str, token: &Secret) -> Result<bool, Unavailable> {
        Ok(username == "joe" && token.as_str() == Some("secret"))
    }
}

/// A client that wants to be let in: nobody is but joe and with his password, and it takes few steps.
pub fn sasl_server(mut data: &[u8]) {
    let mechanism = MECHANISMS[usize::from(take_byte(&mut data)) % MECHANISMS.len()];
    let context = Context {
        hostname: "mail.example.com".to_owned(),
        nonce: "0123456789abcdef01234567".to_owned(),
        external: Some("joe".to_owned()),
        decoy_seed: Secret::from("seed"),
        ..Context::default()
    };
    let mut exchange = server::Exchange::new(mechanism, context);
    let (mut rest, mut steps) = (data, 0);
    let mut response = None;
    loop {
        steps += 1;
        assert!(steps < 8, "an exchange without end");
        match exchange.step(response.as_ref(), &mut Knows) {
            Step::Accepted(user) => {
                assert_eq!(user, "joe", "a stranger was let in");
                break;
            }
            Step::Refused(refusal) => {
                let named = refusal.username.unwrap_or_default();
                assert!(named.len() <= data.len() + 3);
                break;
            }
            Step::Challenge(_) => {
                let (next, later) = halves(rest);
                rest = later;
                response = Some(Secret::new(next.to_vec()));
            }
        }
    }
}

/// A server that wants something of the client: the password never goes out as it is where the mechanism hides it.
pub fn sasl_client(mut data: &[u8]) {
    let mechanism = MECHANISMS[usize::from(take_byte(&mut data)) % MECHANISMS.len()];
    let credentials =
        client::Credentials { username: "joe".to_owned(), password: Secret::from("hidden-password") };
    let nonce = "0123456789abcdef01234567".to_owned();
    let Ok(mut exchange) = client::Exchange::new(mechanism, credentials, nonce, None) else { return };
    let hides = matches!(
        mechanism,
        Mechanism::CramMd5 | Mechanism::ScramSha1 | Mechanism::ScramSha256 | Mechanism::External
    );
    let mut said: Vec<Secret> = exchange.initial().into_iter().collect();
    for challenge in data.split(|byte| *byte == 0xff).take(20) {
        match exchange.respond(challenge) {
            Ok(answer) => said.push(answer),
            Err(_) => break,
        }
    }
    let shows = |secret: &Secret| secret.windows(15).any(|part| part == b"hidden-password");
    assert!(!hides || !said.iter().any(shows), "the password went out");
    if matches!(mechanism, Mechanism::ScramSha1 | Mechanism::ScramSha256) {
        assert!(exchange.succeeded().is_err(), "a server that proved nothing is believed");
    }
}
