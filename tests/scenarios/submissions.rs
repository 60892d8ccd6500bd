//! Who logs in to send: TLS from the first byte on, logins that need TLS, certificates that must be shown, bans after
//! failed logins, and what the log says of TLS, beside real Postfix.

use std::fs;
use std::process::Command;

use scenarios::{Authority, Builder, Instance, Postfix, Smtp, free_port, is_root, peer, run, wait_for};

use crate::site::usual;

const PASSWORD: &str = "tanstaafl";
const ANN: &str = "ann@box.example.com";

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("server", &["localhost", "mail.example.com"]);
    authority
}

/// A mail system with a port for TLS from the first byte on, where Ann may log in.
fn submissions(authority: &Authority, more: &str) -> (Instance, u16) {
    let port = free_port();
    let site = usual()
        .main("smtpd_sasl_type = postroad\nsmtpd_sasl_path = passwords\nmynetworks = 192.0.2.0/24")
        .main(&format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display()))
        .main("smtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes")
        .main(
            "smtpd_recipient_restrictions = permit_sasl_authenticated, reject\nsmtpd_client_ban_exceptions =",
        )
        .main(more)
        .master("anvil unix - - n - 1 anvil")
        .master(&format!("127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes"))
        .file("passwords", "")
        .prepare();
    let added = site.run("postpasswd", &["add", "ann"], &format!("{PASSWORD}\n"));
    assert!(added.status == 0, "{added:?}");
    site.start();
    (site, port)
}

/// A client program that trusts nobody but the authority.
fn client(program: &str, arguments: &[&str], port: u16, authority: &Authority) -> Command {
    let mut command = peer(program);
    let ca = authority.path("ca.pem").display().to_string();
    let fill = |text: &&str| text.replace("$port", &port.to_string()).replace("$ca", &ca);
    command.args(arguments.iter().map(fill));
    command
}

#[test]
fn real_clients_speak_tls_from_the_first_byte_on() {
    let authority = authority();
    let (site, port) = submissions(&authority, "");
    let note = site.path("note.eml");
    fs::write(&note, "Subject: note\r\n\r\nHello.\r\n").unwrap();
    let note = note.display().to_string();
    let user = format!("ann:{PASSWORD}");
    let asks = format!("--passwordeval=echo {PASSWORD}");
    let curl = [
        "-sS",
        "--url",
        "smtps://localhost:$port",
        "--cacert",
        "$ca",
        "--user",
        &user,
        "--mail-from",
        "a@b.example",
        "--mail-rcpt",
        ANN,
        "--upload-file",
        &note,
    ];
    let swaks = [
        "-s",
        "localhost",
        "-p",
        "$port",
        "--tls-on-connect",
        "--tls-verify",
        "--tls-ca-path",
        "$ca",
        "-a",
        "PLAIN",
        "-au",
        "ann",
        "-ap",
        PASSWORD,
        "-f",
        "a@b.example",
        "-t",
        ANN,
    ];
    let msmtp = [
        "--host=localhost",
        "--port=$port",
        "--tls=on",
        "--tls-starttls=off",
        "--tls-trust-file=$ca",
        "--auth=plain",
        "--user=ann",
        &asks,
        "--from=a@b.example",
        ANN,
    ];
    let python = [
        "-c",
        "import smtplib, ssl, sys; s = smtplib.SMTP_SSL('localhost', int(sys.argv[1]), \
         context=ssl.create_default_context(cafile=sys.argv[2])); s.login('ann', sys.argv[3]); \
         s.sendmail('a@b.example', [sys.argv[4]], 'Subject: x\\r\\n\\r\\nHello.\\r\\n'); s.quit()",
        "$port",
        "$ca",
        PASSWORD,
        ANN,
    ];
    for (program, arguments) in
        [("curl", &curl[..]), ("swaks", &swaks), ("msmtp", &msmtp), ("python3", &python)]
    {
        let mut command = client(program, arguments, port, &authority);
        command.env("HOME", site.root());
        run(command, b"Subject: note\n\nHello.\n").ok();
    }
    let openssl = ["s_client", "-brief", "-connect", "localhost:$port", "-CAfile", "$ca"];
    let said = run(client("openssl", &openssl, port, &authority), b"");
    assert!(said.stderr.contains("Verification: OK") || said.stdout.contains("Verification: OK"), "{said:?}");
    site.wait_for_mail("ann", 4);
    // Who speaks in clear there gets no reply at all.
    let mut plain = Smtp::connect_silently(port);
    plain.send_raw(b"EHLO c.example\r\n");
    assert!(plain.try_read_reply().is_none_or(|reply| reply.code == 0));
}

#[test]
fn logins_need_tls_where_the_site_says_so() {
    let authority = authority();
    let (site, _) = submissions(&authority, "");
    let mut smtp = site.smtp();
    assert!(!smtp.expect("EHLO c.example", 250).text().contains("AUTH"));
    let plain = "AUTH PLAIN AGFubgB0YW5zdGFhZmw=";
    assert_eq!(
        smtp.command(plain).text(),
        "5.5.4 Encryption required for requested authentication mechanism"
    );
    let mut swaks = client("swaks", &["-s", "localhost", "-p", "$port", "-tls"], site.port, &authority);
    swaks.args(["-a", "PLAIN", "-au", "ann", "-ap", PASSWORD, "-f", "a@b.example", "-t", ANN]);
    run(swaks, b"").ok();
}

#[test]
fn who_has_no_certificate_of_the_authority_is_sent_away_where_one_is_required() {
    let authority = authority();
    authority.issue("known", &["client.example.com"]);
    authority.issue_for("expired", &["expired.example.com"], "rsa:2048", -1);
    authority.self_signed("own", "client.example.com");
    let more = format!(
        "smtpd_tls_security_level = encrypt\nsmtpd_tls_req_ccert = yes\nsmtpd_tls_ask_ccert = yes\n\
         smtpd_tls_CAfile = {}",
        authority.path("ca.pem").display()
    );
    let lines = format!("{more}\nsmtpd_tls_chain_files = {}", authority.path("server.chain").display());
    let (site, _) = submissions(&authority, &more);
    let postfix = is_root("what Postfix says of certificates").then(|| Postfix::start(&[&lines]));
    for port in std::iter::once(site.port).chain(postfix.iter().map(|postfix| postfix.port)) {
        for (name, passes) in [("known", true), ("expired", false), ("own", false), ("", false)] {
            let mut swaks = client("swaks", &["-s", "localhost", "-p", "$port", "-tls"], port, &authority);
            swaks.args(["--quit-after", "EHLO"]);
            if !name.is_empty() {
                let path = |end: &str| authority.path(&format!("{name}.{end}")).display().to_string();
                swaks.args(["--tls-cert", &path("pem"), "--tls-key", &path("key")]);
            }
            let said = run(swaks, b"").stdout;
            assert_eq!(said.contains("<~  250"), passes, "{name} at {port}: {said}\n{}", site.log());
        }
    }
    site.wait_for_log(&["NOQUEUE: abort: TLS from", "No client certificate presented"]);
    site.wait_for_log(&["NOQUEUE: abort: TLS from", "Client certificate not trusted"]);
}

#[test]
fn who_guesses_passwords_or_speaks_no_smtp_is_banned() {
    let authority = authority();
    let more =
        "smtpd_client_ban_failed_logins = 3\nsmtpd_client_ban_protocol_errors = 3\nsmtpd_tls_auth_only = no";
    let (site, _) = submissions(&authority, more);
    let banned = || Smtp::connect_silently(site.port).read_reply().code == 421;
    let mut guesser = site.smtp();
    guesser.expect("EHLO c.example", 250);
    for _ in 0..3 {
        guesser.expect("AUTH PLAIN AGFubgB3cm9uZw==", 535);
    }
    site.wait_for_log(&["anvil[", "ban 127.0.0.1 for 3600 seconds: 3 failed logins within 600 seconds"]);
    wait_for("the ban to be known", || banned().then_some(()));
    site.postroad(&["ban", "remove", "127.0.0.1"]).ok();
    wait_for("the ban to be lifted", || (!banned()).then_some(()));
    for _ in 0..3 {
        let mut browser = site.smtp();
        browser.expect("GET / HTTP/1.0", 221);
    }
    site.wait_for_log(&["anvil[", "3 protocol errors within 600 seconds"]);
    wait_for("the ban to be known", || banned().then_some(()));
}

#[test]
fn the_log_shows_sessions_with_peers_in_debug_peer_list() {
    let authority = authority();
    let more = "debug_peer_list = 127.0.0.0/8\nsmtpd_tls_auth_only = no";
    let (site, _) = submissions(&authority, more);
    let mut smtp = site.smtp();
    smtp.expect("EHLO c.example", 250);
    smtp.expect("AUTH PLAIN AGFubgB0YW5zdGFhZmw=", 235);
    smtp.expect("MAIL FROM:<a@b.example>", 250);
    smtp.expect(&format!("RCPT TO:<{ANN}>"), 250);
    smtp.expect("QUIT", 221);
    site.wait_for_log(&["> localhost[127.0.0.1]: 221 2.0.0 Bye"]);
    let log = site.log();
    for line in [
        "< localhost[127.0.0.1]: EHLO c.example",
        "> localhost[127.0.0.1]: 250-mail.example.com",
        "< localhost[127.0.0.1]: AUTH PLAIN ...",
        ">>> START Recipient address RESTRICTIONS <<<",
        "generic_checks: name=permit_sasl_authenticated status=1",
        "< localhost[127.0.0.1]: QUIT",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains("AGFubgB0"), "{log}");
}

/// The lines about TLS, without names of hosts and ports.
fn about_tls(log: &str) -> Vec<String> {
    let about = |line: &&str| line.contains("TLS connection established") || line.contains("abort: TLS");
    let text = |line: &str| line.split_once("]: ").map(|(_, text)| text.to_owned()).unwrap_or_default();
    log.lines().filter(about).map(text).collect()
}

#[test]
fn the_log_says_of_tls_what_postfix_says() {
    if !is_root("what Postfix logs of TLS") {
        return;
    }
    let authority = authority();
    authority.issue("known", &["client.example.com"]);
    authority.self_signed("own", "client.example.com");
    let lines = format!(
        "smtpd_tls_chain_files = {}\nsmtpd_tls_CAfile = {}\nsmtpd_tls_security_level = may\nsmtpd_tls_ask_ccert = yes\n\
         smtpd_tls_loglevel = 1",
        authority.path("server.chain").display(),
        authority.path("ca.pem").display()
    );
    let site = Builder::new().main(&lines).start();
    let postfix = Postfix::start(&[&lines]);
    let visit = |port: u16| {
        for (name, version) in [("", "-tls1_2"), ("", "-tls1_3"), ("known", "-tls1_3"), ("own", "-tls1_3")] {
            let mut openssl = peer("openssl");
            openssl.args(["s_client", "-starttls", "smtp", version, "-quiet", "-groups", "X25519"]);
            openssl.args([
                "-connect",
                &format!("127.0.0.1:{port}"),
                "-cipher",
                "ECDHE-RSA-AES256-GCM-SHA384",
            ]);
            openssl.args(["-sigalgs", "RSA-PSS+SHA256", "-ciphersuites", "TLS_AES_256_GCM_SHA384"]);
            if !name.is_empty() {
                openssl.args(["-cert", &authority.path(&format!("{name}.pem")).display().to_string()]);
                openssl.args(["-key", &authority.path(&format!("{name}.key")).display().to_string()]);
            }
            let _ = run(openssl, b"EHLO c.example\r\nQUIT\r\n");
        }
    };
    visit(site.port);
    visit(postfix.port);
    wait_for("the last line", || (about_tls(&site.log()).len() >= 4).then_some(()));
    wait_for("Postfix' last line", || (about_tls(&postfix.log()).len() >= 4).then_some(()));
    assert_eq!(about_tls(&site.log()), about_tls(&postfix.log()));
}
