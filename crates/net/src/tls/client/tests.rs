use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::tls::dane::Tlsa;
use crate::tls::testing::{Authority, NEW_KEY, Server, config};
use crate::wait_until;

impl Server {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    fn shake(&self, context: &Context, policy: &Policy) -> Result<TlsStream<TcpStream>, TlsError> {
        let address = "127.0.0.1".parse().ok();
        let peer = Peer { host: "mail.example.com", address, port: self.port, nexthop: "example.com" };
        context.handshake(self.connect(), policy, &peer, Instant::now() + Duration::from_secs(20))
    }

    fn trust(&self, context: &Context, policy: &Policy) -> Result<Trust, TlsError> {
        self.shake(context, policy).map(|stream| stream.info().trust)
    }
}

fn context(main_cf: &str) -> Context {
    Context::new(&config(main_cf), "smtp", None).unwrap()
}

fn level(context: &Context, level: Level) -> Policy {
    context.policy_of_level(level).unwrap()
}

#[test]
fn levels_and_certificates() {
    let authority = Authority::new();
    authority.issue("good", "mail.example.com", NEW_KEY);
    authority.issue("wrong", "other.example.org", NEW_KEY);
    authority.openssl(&format!(
        "req -x509 {NEW_KEY} -nodes -keyout self.key -out self.pem -subj /CN=mail.example.com -days 30"
    ));
    authority.issue("old", "mail.example.com", NEW_KEY);
    authority.openssl(
        "x509 -req -in old.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -copy_extensions copy -out old.pem",
    );
    let context =
        context(&format!("smtp_tls_CAfile = {}\nsmtp_tls_loglevel = 1\n", authority.path("ca.pem")));
    let not_verified = |reason: &str| Err(TlsError::NotVerified(reason.to_owned()));
    let rows: [(&str, Trust, Result<Trust, TlsError>); 4] = [
        ("good", Trust::Trusted, Ok(Trust::Verified)),
        ("wrong", Trust::Trusted, not_verified("hostname mismatch")),
        ("self", Trust::Untrusted, not_verified("self-signed certificate")),
        ("old", Trust::Untrusted, not_verified("certificate has expired")),
    ];
    for (name, opportunistic, verified) in rows {
        let server = authority.serve(&format!("-cert {name}.pem -key {name}.key"));
        for lenient in [Level::May, Level::Encrypt] {
            assert_eq!(server.trust(&context, &level(&context, lenient)), Ok(opportunistic), "{name}");
        }
        let found = server.trust(&context, &level(&context, Level::Verify));
        assert_eq!(found, verified, "{name}");
        // `secure` looks at the next hop, not at the host's name; here one lies below the other.
        assert_eq!(server.trust(&context, &level(&context, Level::Secure)).is_ok(), name == "good", "{name}");
    }
}

#[test]
fn a_host_that_is_told_by_its_address_is_certified_by_that() {
    let authority = Authority::new();
    authority.issue("address", "mail.example.com,IP:192.0.2.1,IP:2001:db8::1", NEW_KEY);
    let context = context(&format!("smtp_tls_CAfile = {}\n", authority.path("ca.pem")));
    let server = authority.serve("-cert address.pem -key address.key");
    for (name, certified) in
        [("192.0.2.1", true), ("2001:DB8:0::1", true), ("192.0.2.2", false), ("mail.example.com", true)]
    {
        let names = vec![Match::Name(name.to_owned())];
        let policy = Policy { names, ..level(&context, Level::Verify) };
        assert_eq!(server.trust(&context, &policy).is_ok(), certified, "{name}");
    }
}

#[test]
fn the_summary_has_postfix_words() {
    let authority = Authority::new();
    authority.issue("rsa", "mail.example.com", "-newkey rsa:2048");
    authority.issue("ec", "mail.example.com", NEW_KEY);
    let context = context("");
    let may = level(&context, Level::May);
    let rows = [
        (
            "-cert rsa.pem -key rsa.key",
            "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256",
        ),
        (
            "-cert ec.pem -key ec.key -groups P-256",
            "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange ECDHE (P-256) server-signature ECDSA (prime256v1) server-digest SHA256",
        ),
        (
            "-cert rsa.pem -key rsa.key -no_tls1_3",
            "TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)",
        ),
        (
            "-cert ec.pem -key ec.key -no_tls1_3 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLSv1.2 with cipher ECDHE-ECDSA-AES128-GCM-SHA256 (128/128 bits)",
        ),
    ];
    for (arguments, expected) in rows {
        let server = authority.serve(arguments);
        assert_eq!(server.shake(&context, &may).unwrap().info().summary(), expected);
    }
}

#[test]
fn odd_certificates_do_for_opportunistic_connections_only() {
    let authority = Authority::new();
    // Version 1, without any extension.
    authority
        .openssl("req -new -newkey rsa:2048 -nodes -keyout v1.key -out v1.csr -subj /CN=mail.example.com");
    authority.openssl("x509 -req -in v1.csr -signkey v1.key -days 30 -out v1.pem");
    // Keys that rustls cannot check: too small, or on another curve.
    authority.openssl("req -x509 -newkey rsa:1024 -nodes -keyout small.key -out small.pem -subj /CN=mail.example.com -days 30");
    authority.issue("p521", "mail.example.com", "-newkey ec -pkeyopt ec_paramgen_curve:secp521r1");
    let context = context(&format!("smtp_tls_CAfile = {}\n", authority.path("ca.pem")));
    for (name, more) in
        [("v1", ""), ("v1", "-no_tls1_3"), ("small", "-cipher DEFAULT@SECLEVEL=0"), ("p521", "")]
    {
        let server = authority.serve(&format!("-cert {name}.pem -key {name}.key {more}"));
        assert_eq!(
            server.trust(&context, &level(&context, Level::May)),
            Ok(Trust::Untrusted),
            "{name} {more}"
        );
        assert!(server.trust(&context, &level(&context, Level::Verify)).is_err(), "{name} {more}");
    }
}

#[test]
fn fingerprints_of_certificates_and_keys() {
    let authority = Authority::new();
    authority.issue("good", "elsewhere.example", NEW_KEY);
    let certificate = Certificate::read(&CertificateDer::from(authority.der("good.pem")));
    let server = authority.serve("-cert good.pem -key good.key");
    for print in
        [certificate.fingerprint(Digest::Sha256), certificate.key_fingerprint(Digest::Sha256).to_lowercase()]
    {
        let context = context(&format!(
            "smtp_tls_fingerprint_digest = sha256\nsmtp_tls_policy_maps = inline:{{ {{ example.com = fingerprint match=00:11|{print} }} }}\n"
        ));
        assert_eq!(server.trust(&context, &context.policy("example.com").unwrap()), Ok(Trust::Verified));
    }
    let context = context("smtp_tls_policy_maps = inline:{ { example.com = fingerprint match=00:11 } }\n");
    let found = server.trust(&context, &context.policy("example.com").unwrap());
    assert_eq!(found, Err(TlsError::NotVerified("fingerprint mismatch".into())));
}

#[test]
fn tlsa_records() {
    let authority = Authority::new();
    authority.issue("good", "mail.example.com", NEW_KEY);
    authority.issue("wrong", "other.example.org", NEW_KEY);
    let (ca, good) = (authority.der("ca.pem"), authority.der("good.pem"));
    let spki = |der: &[u8]| Certificate::read(&CertificateDer::from(der.to_vec())).spki;
    let record = |usage, selector, matching, data: &[u8]| Tlsa {
        usage,
        selector,
        matching,
        data: match matching {
            0 => data.to_vec(),
            1 => Digest::Sha256.of(data),
            _ => Digest::Sha512.of(data),
        },
    };
    let context = context("");
    let good_server = authority.serve("-cert good.pem -key good.key -cert_chain ca.pem");
    let wrong_server = authority.serve("-cert wrong.pem -key wrong.key -cert_chain ca.pem");
    let bare_server = authority.serve("-cert good.pem -key good.key");
    let rows = [
        (record(3, 1, 1, &spki(&good)), &good_server, true),
        (record(3, 0, 2, &good), &good_server, true),
        (record(3, 0, 0, &good), &good_server, true),
        (record(3, 1, 0, &spki(&good)), &good_server, true),
        (record(3, 1, 1, &spki(&ca)), &good_server, false),
        (record(3, 1, 1, &spki(&good)), &wrong_server, false),
        (record(2, 0, 1, &ca), &good_server, true),
        (record(2, 1, 2, &spki(&ca)), &good_server, true),
        // A trust anchor vouches for names, too.
        (record(2, 0, 1, &ca), &wrong_server, false),
        // The anchor is not in the chain: only what holds it whole can work.
        (record(2, 0, 1, &ca), &bare_server, false),
        (record(2, 0, 0, &ca), &bare_server, true),
        (record(2, 1, 0, &spki(&ca)), &bare_server, true),
        (record(2, 1, 0, &spki(&good)), &bare_server, false),
    ];
    for (record, server, expected) in rows {
        let mut policy = level(&context, Level::Dane);
        policy.tlsa = context.dane().usable(std::slice::from_ref(&record));
        assert_eq!(policy.tlsa.len(), 1, "{record:?}");
        policy.tlsa_base = Some("mail.example.com".into());
        let found = server.trust(&context, &policy);
        assert_eq!(found.clone().ok(), expected.then_some(Trust::Verified), "{record:?} {found:?}");
        policy.level = Level::HalfDane;
        let found = server.trust(&context, &policy);
        assert_eq!(found.ok(), expected.then_some(Trust::Trusted), "half {record:?}");
    }
}

#[test]
fn sessions_are_resumed_under_the_same_policy_only() {
    let authority = Authority::new();
    authority.issue("good", "mail.example.com", NEW_KEY);
    for version in ["-tls1_3", "-tls1_2"] {
        let server = authority.serve(&format!("-cert good.pem -key good.key {version} -rev"));
        let context = context(&format!("smtp_tls_CAfile = {}\n", authority.path("ca.pem")));
        let session = |policy: &Policy| {
            let mut stream = server.shake(&context, policy).unwrap();
            // What comes back brings the tickets of TLS 1.3 along.
            stream.write_all(b"abc\n").unwrap();
            stream.flush().unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"cba\n");
            let found = (stream.info().reused, stream.info().trust);
            stream.close();
            found
        };
        let (may, verify) = (level(&context, Level::May), level(&context, Level::Verify));
        assert_eq!(session(&may), (false, Trust::Trusted), "{version}");
        assert_eq!(session(&may), (true, Trust::Trusted), "{version}");
        assert_eq!(session(&verify), (false, Trust::Verified), "{version}");
        assert_eq!(session(&verify), (true, Trust::Verified), "{version}");
    }
}

#[test]
fn handshakes_that_fail_say_why() {
    let authority = Authority::new();
    authority.issue("good", "mail.example.com", NEW_KEY);
    let context = context("smtp_tls_protocols = >=TLSv1.3\n");
    let server = authority.serve("-cert good.pem -key good.key -no_tls1_3");
    let error = server.shake(&context, &level(&context, Level::May)).unwrap_err();
    assert_eq!(error.to_string(), "Cannot start TLS: handshake failure");
    assert!(matches!(error, TlsError::Handshake(_)));
    // Silence, and an end.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = Peer { host: "h", address: None, port: 25, nexthop: "n" };
    let policy = level(&context, Level::May);
    let silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let error =
        context.handshake(silent, &policy, &peer, Instant::now() + Duration::from_millis(300)).unwrap_err();
    assert_eq!(error, TlsError::Handshake("timeout".into()));
    let gone = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(listener);
    let error =
        context.handshake(gone, &policy, &peer, Instant::now() + Duration::from_secs(20)).unwrap_err();
    assert_eq!(error, TlsError::Handshake("lost connection".into()));
}

#[test]
fn a_server_that_asks_gets_the_certificate_that_fits() {
    let authority = Authority::new();
    authority.issue("good", "mail.example.com", NEW_KEY);
    authority.issue("mine", "client.example.net", NEW_KEY);
    let server =
        authority.serve("-cert good.pem -key good.key -CAfile ca.pem -Verify 2 -verify_return_error -rev");
    let speak = |context: &Context| {
        let mut stream = server.shake(context, &level(context, Level::May)).ok()?;
        stream.write_all(b"ab\n").ok()?;
        stream.flush().ok()?;
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).ok()?;
        Some(answer)
    };
    let with = context(&format!(
        "smtp_tls_cert_file = {}\nsmtp_tls_key_file = {}\n",
        authority.path("mine.pem"),
        authority.path("mine.key")
    ));
    assert_eq!(speak(&with), Some(*b"ba\n"));
    assert_eq!(speak(&context("")), None);
}

#[test]
fn a_renewed_certificate_of_ours_is_shown_and_begins_sessions_of_its_own() {
    let authority = Authority::new();
    authority.issue("good", "mail.example.com", NEW_KEY);
    for name in ["mine", "renewed"] {
        authority.issue(name, "client.example.net", NEW_KEY);
    }
    let context = context(&format!(
        "smtp_tls_cert_file = {}\nsmtp_tls_key_file = {}\n",
        authority.path("mine.pem"),
        authority.path("mine.key")
    ));
    let server =
        authority.serve("-cert good.pem -key good.key -CAfile ca.pem -Verify 2 -verify_return_error -rev");
    let session = || {
        let mut stream = server.shake(&context, &level(&context, Level::May)).unwrap();
        stream.write_all(b"ab\n").unwrap();
        stream.flush().unwrap();
        stream.read_exact(&mut [0; 3]).unwrap();
        let info = stream.info();
        (info.reused, info.client_signature.is_some())
    };
    assert_eq!(session(), (false, true));
    assert_eq!(session(), (true, false));
    // Without its key yet: the pair of before goes on.
    std::fs::rename(authority.path("renewed.pem"), authority.path("mine.pem")).unwrap();
    context.own.lock().unwrap().doubt();
    assert_eq!(session(), (true, false));
    std::fs::rename(authority.path("renewed.key"), authority.path("mine.key")).unwrap();
    wait_until(|| session() == (false, true));
    assert_eq!(session(), (true, false));
}

#[test]
fn chains_are_as_long_as_they_may_be() {
    let authority = Authority::new();
    authority.issue_deep("deep", "mail.example.com");
    authority.issue("good", "mail.example.com", NEW_KEY);
    let trust = |depth: &str, arguments: &str| {
        let ca = authority.path("ca.pem");
        let context = context(&format!("smtp_tls_CAfile = {ca}\nsmtp_tls_scert_verifydepth = {depth}\n"));
        let server = authority.serve(arguments);
        server.trust(&context, &level(&context, Level::Verify))
    };
    let too_long = Err(TlsError::NotVerified("certificate chain too long".into()));
    let deep = "-cert deep.pem -key deep.key -cert_chain middle.pem";
    for (depth, arguments, expected) in [
        ("9", deep, Ok(Trust::Verified)),
        ("2", deep, Ok(Trust::Verified)),
        ("1", deep, too_long.clone()),
        ("1", "-cert good.pem -key good.key", Ok(Trust::Verified)),
        ("0", "-cert good.pem -key good.key", too_long),
    ] {
        assert_eq!(trust(depth, arguments), expected, "{depth} {arguments}");
    }
}

#[test]
fn policies_are_found_as_in_postfix() {
    let context = context(
        "smtp_tls_security_level = may\nsmtp_tls_mandatory_protocols = >=TLSv1.3\n\
         smtp_tls_policy_maps = inline:{ { example.com = encrypt }, { .example.com = secure match=.x.example:nexthop },\
         { [mail.example.com]:587 = verify ciphers=high, protocols=TLSv1.2 },\
         { a.test = none match=x }, { b.test = encrypt enable_rpk=yes }, { c.test = sure }, { d.test = may protocols=TLSv1 },\
         { e.test = fingerprint }, { f.test = may servername=hostname connection_reuse=yes policy_type=sts } }\n",
    );
    let policy = |nexthop: &str| context.policy(nexthop).unwrap();
    assert_eq!(policy("other.test").level, Level::May);
    assert_eq!(policy("EXAMPLE.com").level, Level::Encrypt);
    assert!(!policy("example.com").protocols.has_tls12());
    let below = policy("a.b.example.com");
    assert_eq!(
        (below.level, below.names),
        (Level::Secure, vec![Match::Name(".x.example".into()), Match::Nexthop])
    );
    assert_eq!(policy("[mail.example.com]:587").level, Level::Verify);
    assert!(!policy("[mail.example.com]:587").protocols.has_tls13());
    assert_eq!(policy("[mail.example.com]").level, Level::May);
    assert_eq!(policy("mail.example.com:25").level, Level::May);
    assert!(policy("f.test").connection_reuse);
    for (nexthop, words) in [
        ("a.test", "with security level none"),
        ("b.test", "raw public keys"),
        ("c.test", "\"sure\" is no TLS security level"),
        ("d.test", "leaves neither"),
        ("e.test", "without any fingerprint"),
    ] {
        let text = context.policy(nexthop).unwrap_err().to_string();
        assert!(text.contains(words) && text.contains(nexthop), "{text}");
    }
}

#[test]
fn former_parameters_still_make_a_level() {
    for (main_cf, expected) in [
        ("", Level::None),
        ("smtp_use_tls = yes\n", Level::May),
        ("smtp_enforce_tls = yes\n", Level::Verify),
        ("smtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no\n", Level::Encrypt),
        ("smtp_enforce_tls = yes\nsmtp_tls_security_level = none\n", Level::None),
    ] {
        assert_eq!(context(main_cf).policy("x").unwrap().level, expected, "{main_cf}");
    }
}
