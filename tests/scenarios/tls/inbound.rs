//! TLS as a server: what testers of TLS look for, and nothing that came in clear is obeyed after the handshake.

use std::io::{Read, Write};
use std::net::TcpStream;

use scenarios::{Authority, Builder, Instance, Postfix, is_root, peer, run};

fn site(authority: &Authority, more: &str) -> Instance {
    let chain = |name: &str| authority.path(&format!("{name}.chain")).display().to_string();
    Builder::new()
        .main(&format!("smtpd_tls_chain_files = {} {}", chain("rsa"), chain("ec")))
        .main("smtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\nsmtpd_tls_received_header = yes")
        .main(more)
        .start()
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("rsa", &["mail.example.com"]);
    authority.issue_for("ec", &["mail.example.com"], "ec -pkeyopt ec_paramgen_curve:prime256v1", 30);
    authority
}

/// What `openssl s_client` shows and reads, with this input.
fn s_client(site: &Instance, arguments: &str, input: &str) -> String {
    let mut command = peer("openssl");
    command.args(["s_client", "-starttls", "smtp", "-connect", &format!("127.0.0.1:{}", site.port)]);
    command.args(arguments.split_ascii_whitespace());
    let output = run(command, input.as_bytes());
    output.stdout + &output.stderr
}

#[test]
fn only_what_is_safe_is_spoken() {
    let authority = authority();
    let site = site(&authority, "");
    let trusting = format!("-CAfile {}", authority.path("ca.pem").display());
    for (arguments, cipher) in [
        ("-tls1_3", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_2 -sigalgs RSA-PSS+SHA256:RSA+SHA256", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        let said = s_client(&site, &format!("{trusting} {arguments}"), "QUIT\r\n");
        assert!(said.contains("Verify return code: 0") && said.contains(cipher), "{arguments}: {said}");
        assert!(said.contains("Compression: NONE"), "{said}");
    }
    for arguments in [
        "-tls1_1 -cipher ALL@SECLEVEL=0",
        "-tls1 -cipher ALL@SECLEVEL=0",
        "-tls1_2 -cipher aNULL@SECLEVEL=0",
        "-tls1_2 -cipher AES256-SHA",
        "-tls1_2 -cipher DHE-RSA-AES256-GCM-SHA384",
    ] {
        let said = s_client(&site, arguments, "QUIT\r\n");
        assert!(said.contains("Cipher is (NONE)"), "{arguments}: {said}");
    }
    // `R` asks for a renegotiation.
    let said = s_client(&site, "-tls1_2", "R\nNOOP\r\n");
    assert!(said.contains("RENEGOTIATING") && !said.contains("250 2.0.0"), "{said}");
}

/// What is sent together with STARTTLS, or right after it.
const INJECTIONS: [&str; 6] = [
    "NOOP\r\n",
    "EHLO injected.example\r\n",
    "MAIL FROM:<injected@example.com>\r\n",
    "RSET\r\nMAIL FROM:<injected@example.com>\r\nRCPT TO:<a@example.com>\r\n",
    "QUIT\r\n",
    "NOOP",
];

/// Reads until a line of a reply begins with this.
fn read_until(stream: &mut TcpStream, code: &str) {
    let mut said = String::new();
    let mut buffer = [0; 2000];
    while !said.contains(code) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "closed after {said:?}");
        said += &String::from_utf8_lossy(&buffer[..count]);
    }
}

/// Sends everything in pieces that end at this place.
fn send_in_pieces(stream: &mut TcpStream, text: &[u8], cut: usize) {
    let (first, rest) = text.split_at(cut);
    stream.set_nodelay(true).unwrap();
    stream.write_all(first).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    // The server may have hung up already.
    let _ = stream.write_all(rest);
}

#[test]
fn what_comes_along_with_starttls_is_never_obeyed() {
    let authority = authority();
    let site = site(&authority, "");
    for injection in INJECTIONS {
        let text = format!("STARTTLS\r\n{injection}");
        for cut in [1, 8, 9, 10, 11, text.len() - 1, text.len()] {
            let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
            stream.set_read_timeout(Some(scenarios::PATIENCE)).unwrap();
            read_until(&mut stream, "220 ");
            stream.write_all(b"EHLO client.example\r\n").unwrap();
            read_until(&mut stream, "250 ");
            send_in_pieces(&mut stream, text.as_bytes(), cut);
            // No handshake comes: whatever is answered beside the first reply would be an answer to what was injected.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            let rest = String::from_utf8_lossy(&rest).into_owned();
            let replies = rest.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
            assert!(replies <= 1, "{injection:?} at {cut}: {rest:?}");
        }
    }
    let log = site.log();
    let told = |line: &&str| !line.contains("improper command pipelining after STARTTLS");
    let obeyed = log.lines().filter(told).find(|line| line.contains("injected") || line.contains("mail="));
    assert_eq!(obeyed, None, "{log}");
}

#[test]
fn the_received_header_and_the_log_tell_of_it() {
    let authority = authority();
    let site = site(&authority, "");
    let user = site.user().to_owned();
    let mut swaks = peer("swaks");
    swaks.args(["-s", "127.0.0.1", "-p", &site.port.to_string(), "-tls", "-f", "a@client.example"]);
    swaks.args(["-t", &format!("{user}@example.com"), "--helo", "client.example"]);
    run(swaks, b"").ok();
    let mail = String::from_utf8_lossy(&site.wait_for_mail(&user, 1)[0]).into_owned();
    assert!(mail.contains("(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"), "{mail}");
    assert!(mail.contains("(No client certificate requested)") && mail.contains("with ESMTPS id"), "{mail}");
    site.wait_for_log(&["Anonymous TLS connection established from", "server-signature ECDSA (prime256v1)"]);
}

#[test]
fn certificates_open_the_relay() {
    let authority = authority();
    for name in ["listed", "vouched"] {
        authority.issue(name, &[&format!("{name}.example.org")]);
    }
    authority.self_signed("refused", "refused.example.org");
    let prints = ["listed", "refused"].map(|name| authority.fingerprint(name));
    let site = site(
        &authority,
        &format!(
            "smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {}\nsmtpd_tls_fingerprint_digest = sha256\n\
             mynetworks = 192.0.2.0/24\nrelay_clientcerts = inline:{{ {{ {} = yes }} }}\n\
             smtpd_client_restrictions = check_ccert_access inline:{{ {{ {} = REJECT lost key }} }}\n\
             smtpd_delay_reject = yes\nsmtpd_relay_restrictions = permit_tls_clientcerts, reject_unauth_destination",
            authority.path("ca.pem").display(),
            prints[0],
            prints[1],
        ),
    );
    for (name, code, word) in [
        ("listed", "250 2.1.5", "Ok"),
        ("vouched", "554 5.7.1", "Relay access denied"),
        ("refused", "554 5.7.1", "lost key"),
        ("", "554 5.7.1", "Relay access denied"),
    ] {
        let said = relay_with(site.port, &authority, name);
        assert!(said.contains(code) && said.contains(word), "{name}: {said}\n{}", site.log());
    }
}

/// What is said to one who would send mail elsewhere with this certificate.
fn relay_with(port: u16, authority: &Authority, name: &str) -> String {
    let mut swaks = peer("swaks");
    swaks.args(["-s", "127.0.0.1", "-p", &port.to_string(), "-tls", "--quit-after", "RCPT"]);
    swaks.args(["-f", "a@client.example", "-t", "b@elsewhere.example", "--helo", "client.example"]);
    if !name.is_empty() {
        let path = |end: &str| authority.path(&format!("{name}.{end}")).display().to_string();
        swaks.args(["--tls-cert", &path("pem"), "--tls-key", &path("key")]);
    }
    run(swaks, b"").stdout
}

#[test]
fn tables_are_asked_for_names_in_certificates_that_are_vouched_for() {
    let authority = authority();
    authority.issue("vouched", &["vouched.example.org"]);
    authority.issue("other", &["other.example.org"]);
    authority.self_signed("forged", "vouched.example.org");
    let site = site(
        &authority,
        &format!(
            "smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {}\nmynetworks = 192.0.2.0/24\n\
             smtpd_relay_restrictions = check_ccert_access {{ inline:{{ {{ vouched.example.org = OK }}, \
             {{ Test-Authority = REJECT of the authority }} }}, {{ search_order = pubkey_fingerprint, subject_cn, \
             issuer_cn }} }}, reject_unauth_destination",
            authority.path("ca.pem").display(),
        ),
    );
    for (name, reply) in [
        ("vouched", "250 2.1.5 Ok"),
        ("other", "rejected: of the authority"),
        ("forged", "Relay access denied"),
        ("", "Relay access denied"),
    ] {
        let said = relay_with(site.port, &authority, name);
        assert!(said.contains(reply), "{name}: {said}\n{}", site.log());
    }
}

#[test]
fn tables_are_asked_for_what_search_order_names_as_in_postfix() {
    let authority = authority();
    for name in ["first", "second"] {
        authority.issue(name, &[&format!("{name}.example.org")]);
    }
    let chain = authority.path("rsa.chain");
    let rules = format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {}\nsmtpd_tls_ask_ccert = yes\n\
         smtpd_tls_fingerprint_digest = sha256\nmynetworks = 192.0.2.0/24\nsmtpd_relay_restrictions = \
         check_ccert_access {{ inline:{{ {{ {} = OK }} }}, {{ search_order = pubkey_fingerprint }} }}, \
         check_ccert_access {{ inline:{{ {{ {} = REJECT by its print }} }} {{ search_order = pubkey_fingerprint \
         cert_fingerprint }} }}, reject_unauth_destination",
        chain.display(),
        authority.fingerprint("first"),
        authority.fingerprint("second"),
    );
    let site = Builder::new().main(&rules).start();
    let postfix = is_root("what Postfix says of certificates").then(|| Postfix::start(&[&rules]));
    for port in std::iter::once(site.port).chain(postfix.iter().map(|postfix| postfix.port)) {
        for (name, reply) in [("first", "Relay access denied"), ("second", "rejected: by its print")] {
            let said = relay_with(port, &authority, name);
            assert!(said.contains(reply), "{name} at port {port}: {said}\n{}", site.log());
        }
    }
}

#[test]
fn names_lead_to_certificates_and_a_renewed_one_is_shown() {
    let authority = authority();
    authority.issue("other", &["other.example.net"]);
    authority.issue("second", &["renewed.example.com"]);
    let other = authority.path("other.chain");
    let site = site(
        &authority,
        &format!("tls_server_sni_maps = inline:{{ {{ other.example.net = {} }} }}", other.display()),
    );
    let named =
        |name: &str| s_client(&site, &format!("-servername {name} -sigalgs RSA-PSS+SHA256"), "QUIT\r\n");
    assert!(named("other.example.net").contains("subject=CN = other.example.net"), "{}", site.log());
    assert!(named("unknown.example.net").contains("subject=CN = mail.example.com"), "{}", site.log());
    std::fs::rename(authority.path("second.chain"), authority.path("rsa.chain")).unwrap();
    scenarios::wait_for("the renewed certificate", || {
        named("unknown.example.net").contains("subject=CN = renewed.example.com").then_some(())
    });
    site.wait_for_log(&["certificates were renewed"]);
}

#[test]
fn no_session_without_a_certificate_where_one_is_required() {
    let authority = authority();
    let port = scenarios::free_port();
    let site = Builder::new()
        .main(&format!("smtpd_tls_chain_files = {}", authority.path("rsa.chain").display()))
        .master(&format!(
            "127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_tls_req_ccert=yes"
        ))
        .start();
    let mut command = peer("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
    let output = run(command, b"EHLO c\r\nMAIL FROM:<>\r\n");
    assert!(output.stdout.starts_with("421 4.7.1 "), "{}\n{}", output.stdout, site.log());
    assert_eq!(output.stdout.lines().count(), 1, "{}", output.stdout);
}

#[test]
fn a_name_that_no_certificate_is_for_gets_the_usual_one() {
    let authority = authority();
    authority.issue("other", &["*.example.net"]);
    let other = authority.path("other.chain");
    let site = site(
        &authority,
        &format!("tls_server_sni_maps = inline:{{ {{ .example.net = {} }} }}", other.display()),
    );
    let usual = "subject=CN = mail.example.com";
    for (arguments, subject) in [
        ("-servername a.example.net", "subject=CN = *.example.net"),
        ("-servername A.Example.NET", "subject=CN = *.example.net"),
        ("-servername example.net", usual),
        ("-servername example.net.evil.test", usual),
        ("-servername unknown.test", usual),
        ("-noservername", usual),
    ] {
        let said = s_client(&site, &format!("{arguments} -quiet -no_ign_eof"), "EHLO c\r\nQUIT\r\n");
        assert!(said.contains("250 CHUNKING"), "{arguments}: {said}\n{}", site.log());
        let shown = s_client(&site, arguments, "QUIT\r\n");
        assert!(shown.contains(subject), "{arguments}: {shown}\n{}", site.log());
    }
}

#[test]
fn a_renewal_that_is_broken_changes_nothing_and_is_told() {
    let authority = authority();
    authority.issue("third", &["renewed.example.com"]);
    let site = site(&authority, "");
    let shown = || s_client(&site, "-sigalgs RSA-PSS+SHA256", "QUIT\r\n");
    assert!(shown().contains("subject=CN = mail.example.com"), "{}", site.log());
    std::fs::write(authority.path("rsa.chain"), "-----BEGIN CERTIFICATE-----\nhalf of i").unwrap();
    scenarios::wait_for("a word about the broken file", || {
        assert!(shown().contains("subject=CN = mail.example.com"), "{}", site.log());
        site.log().contains("the certificates of before are used on").then_some(())
    });
    std::fs::rename(authority.path("third.chain"), authority.path("rsa.chain")).unwrap();
    scenarios::wait_for("the renewed certificate", || {
        shown().contains("subject=CN = renewed.example.com").then_some(())
    });
}
