//! Logins that lean on TLS: certificates, channel binding, and tokens that Dovecot has checked elsewhere.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use scenarios::{Authority, Builder, Instance, Output, is_root, peer, run, wait_for};

use crate::site::usual;

const PASSWORD: &str = "tanstaaf l";

/// A mail system with STARTTLS that takes mail for anywhere from those only who have logged in.
fn with_tls(authority: &Authority, kind: &str, path: &str) -> Builder {
    authority.issue("server", &["localhost", "mail.example.com"]);
    let path_of = |name: &str| authority.path(name).display().to_string();
    usual()
        .main("smtpd_sasl_auth_enable = yes")
        .main(&format!("smtpd_sasl_type = {kind}"))
        .main(&format!("smtpd_sasl_path = {path}"))
        .main("mynetworks = 192.0.2.0/24")
        .main("smtpd_recipient_restrictions = permit_sasl_authenticated, reject")
        .main("smtpd_tls_security_level = may")
        .main("smtpd_tls_auth_only = yes")
        .main("smtpd_tls_ask_ccert = yes")
        .main("smtpd_sasl_mechanism_filter = static:all")
        .main(&format!("smtpd_tls_chain_files = {}", path_of("server.chain")))
        .main(&format!("smtpd_tls_CAfile = {}", path_of("ca.pem")))
}

/// The same with a table of passwords in which Ann is.
fn with_table(authority: &Authority, more: &str) -> Instance {
    let site = with_tls(authority, "postroad", "passwords").main(more).file("passwords", "").prepare();
    fs::set_permissions(site.path("etc/passwords"), fs::Permissions::from_mode(0o600)).unwrap();
    let schemes = ["-s", "argon2id", "-s", "scram-sha-256", "-s", "scram-sha-1"];
    let added = site.run("postpasswd", &[&["add", "ann"][..], &schemes].concat(), &format!("{PASSWORD}\n"));
    assert!(added.status == 0, "{added:?}");
    site.start();
    site
}

/// Begins TLS with the certificate of that name, or none, and the version of TLS; gives what is offered for AUTH, the reply to each
/// `AUTH` line, and, after the first success, sends a message.
const CLIENT: &str = r"
import base64, hashlib, hmac, os, smtplib, ssl, sys
port, folder, name, version, *steps = sys.argv[1:]
context = ssl.create_default_context(cafile=folder + '/ca.pem')
context.check_hostname = False
context.maximum_version = getattr(ssl.TLSVersion, version)
if name:
    context.load_cert_chain(folder + '/' + name + '.pem', folder + '/' + name + '.key')
s = smtplib.SMTP('127.0.0.1', int(port)); s.ehlo()
print('in clear:', s.esmtp_features.get('auth', 'nothing'))
s.starttls(context=context); s.ehlo()
print('offered:', s.esmtp_features.get('auth', 'nothing'))

def scram(mechanism, binding, data, password):
    digest = 'sha256' if '256' in mechanism else 'sha1'
    mac = lambda key, text: hmac.new(key, text, digest).digest()
    gs2 = 'p=%s,,' % binding
    bare = 'n=ann,r=' + base64.b64encode(os.urandom(12)).decode()
    code, text = s.docmd('AUTH', mechanism + ' ' + base64.b64encode((gs2 + bare).encode()).decode())
    if code != 334: return code, text
    first = base64.b64decode(text).decode()
    fields = dict(field.split('=', 1) for field in first.split(','))
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), base64.b64decode(fields['s']), int(fields['i']))
    without = 'c=%s,r=%s' % (base64.b64encode(gs2.encode() + data).decode(), fields['r'])
    signed = ','.join([bare, first, without]).encode()
    key = mac(salted, b'Client Key')
    proof = bytes(a ^ b for a, b in zip(key, mac(hashlib.new(digest, key).digest(), signed)))
    code, text = s.docmd(base64.b64encode((without + ',p=' + base64.b64encode(proof).decode()).encode()).decode())
    if code != 334: return code, text
    right = base64.b64encode(mac(mac(salted, b'Server Key'), signed)).decode()
    assert base64.b64decode(text).decode() == 'v=' + right
    return s.docmd('')

for step in steps:
    words = step.split(' ', 2)
    if words[0].endswith('-PLUS'):
        certificate = s.sock.getpeercert(binary_form=True)
        data = hashlib.sha256(certificate).digest() if words[1] == 'right' else bytes(32)
        code, text = scram(words[0], 'tls-server-end-point', data, words[2])
    else:
        if words[0] == 'XOAUTH2':
            text = 'user=ann\1auth=Bearer %s\1\1' % words[1]
            step = words[0] + ' ' + base64.b64encode(text.encode()).decode()
        code, text = s.docmd('AUTH', step)
        while code == 334:
            code, text = s.docmd('')
    print(code)
    if code == 235:
        s.sendmail('jane@client.example', ['ann@box.example.com'], 'Subject: x\r\n\r\nHello.\r\n')
        break
s.quit()
";

fn client(
    site: &Instance,
    authority: &Authority,
    certificate: &str,
    version: &str,
    steps: &[&str],
) -> String {
    let mut python = peer("python3");
    let folder = authority.path("").display().to_string();
    python.args(["-c", CLIENT, &site.port.to_string(), &folder, certificate, version]).args(steps);
    run(python, b"").ok().stdout
}

#[test]
fn a_certificate_stands_for_a_user() {
    let authority = Authority::new();
    for name in ["ann", "bob", "stranger"] {
        authority.issue(name, &[&format!("{name}.example.com")]);
    }
    let users =
        ["ann", "bob"].map(|name| format!("{{ {} = {name} }}", authority.fingerprint(name))).join(", ");
    let site = with_table(&authority, &format!("smtpd_sasl_external_maps = inline:{{ {users} }}"));
    // As nobody else, and as oneself: `=` is an empty response.
    let said = client(&site, &authority, "ann", "TLSv1_3", &["EXTERNAL Ym9i", "EXTERNAL ="]);
    assert!(said.contains("in clear: nothing") && said.contains("EXTERNAL"), "{said}\n{}", site.log());
    assert!(said.ends_with("\n535\n235\n"), "{said}");
    site.wait_for_log(&["sasl_method=EXTERNAL, sasl_username=ann"]);
    let said = client(&site, &authority, "bob", "TLSv1_2", &["EXTERNAL"]);
    assert!(said.ends_with("\n235\n"), "{said}");
    for stranger in ["stranger", ""] {
        let said = client(&site, &authority, stranger, "TLSv1_3", &["EXTERNAL =", "EXTERNAL YW5u"]);
        assert!(!said.contains("EXTERNAL") && said.ends_with("\n535\n535\n"), "{said}");
    }
    assert!(site.run("postpasswd", &["lock", "ann"], "").status == 0);
    wait_for("the lock to be noticed", || {
        let said = client(&site, &authority, "ann", "TLSv1_3", &["EXTERNAL ="]);
        (!said.contains("EXTERNAL") && said.ends_with("\n535\n")).then_some(())
    });
}

fn gsasl(site: &Instance, authority: &Authority, mechanism: &str, priority: &str) -> Output {
    let mut gsasl = peer("gsasl");
    gsasl.args(["--client", "--smtp", "--quiet", "--mechanism", mechanism, "--authentication-id", "ann"]);
    gsasl.args([
        "--password",
        PASSWORD,
        "--priority",
        priority,
        "--hostname",
        "mail.example.com",
        "--service",
        "smtp",
    ]);
    gsasl.args(["--x509-ca-file", &authority.path("ca.pem").display().to_string()]);
    gsasl.args(["localhost", &site.port.to_string()]);
    run(gsasl, b"")
}

#[test]
fn scram_is_bound_to_the_channel_of_real_clients() {
    let authority = Authority::new();
    let site = with_table(&authority, "");
    for version in ["TLSv1_2", "TLSv1_3"] {
        let steps = [
            "SCRAM-SHA-256-PLUS wrong tanstaaf l",
            "SCRAM-SHA-256-PLUS right no",
            "SCRAM-SHA-256-PLUS right tanstaaf l",
        ];
        let said = client(&site, &authority, "", version, &steps);
        assert!(said.ends_with("\n535\n535\n235\n"), "{said}\n{}", site.log());
        let said = client(&site, &authority, "", version, &["SCRAM-SHA-1-PLUS right tanstaaf l"]);
        assert!(said.ends_with("\n235\n"), "{said}\n{}", site.log());
    }
    site.wait_for_log(&["channel binding does not match, sasl_username=ann"]);
    // What gsasl binds to in TLS 1.3 is the exporter (RFC 9266).
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        let output = gsasl(&site, &authority, mechanism, "NORMAL:-VERS-ALL:+VERS-TLS1.3");
        assert!(output.status == 0, "{mechanism}: {output:?}\n{}", site.log());
    }
    assert!(!site.log().contains(PASSWORD), "{}", site.log());
}

const DOVECOT: &str = "base_dir = $root/dovecot/run\nstate_dir = $root/dovecot/state\nlog_path = $root/dovecot/log\n\
    protocols =\nssl = no\nauth_mechanisms = plain oauthbearer xoauth2 external\nauth_failure_delay = 0\n\
    disable_plaintext_auth = yes\nauth_ssl_username_from_cert = yes\nauth_debug = yes\n\
    passdb {\n  driver = oauth2\n  mechanisms = oauthbearer xoauth2\n  args = $root/etc/oauth2\n}\n\
    passdb {\n  driver = static\n  mechanisms = external\n  args = user=ann nopassword=y\n}\n\
    userdb {\n  driver = static\n  args = uid=nobody gid=nogroup home=/nonexistent\n}\n\
    service auth {\n  unix_listener $root/dovecot/auth {\n    mode = 0666\n  }\n}\n";

struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_dovecot(site: &Instance) -> Beside {
    for folder in ["dovecot", "dovecot/run", "dovecot/state"] {
        fs::create_dir(site.path(folder)).expect("make a folder for Dovecot");
    }
    let mut dovecot = peer("dovecot");
    dovecot.args(["-F", "-c", &site.path("etc/dovecot.conf").display().to_string()]);
    let child = dovecot.stdin(Stdio::null()).spawn().expect("start Dovecot");
    wait_for("Dovecot to listen", || site.path("dovecot/auth").exists().then_some(()));
    Beside(child)
}

/// A server that knows one token, Ann's; gives its port.
fn token_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut buffer = [0; 2000];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let right = String::from_utf8_lossy(&request).contains("Bearer right-token");
            let (status, body) = match right {
                true => ("200 OK", r#"{"active": true, "username": "ann"}"#),
                false => ("401 Unauthorized", r#"{"error": "invalid_token"}"#),
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    port
}

fn curl(site: &Instance, authority: &Authority, token: &str) -> Output {
    site.write("note", "Subject: x\r\n\r\nHello.\r\n");
    let mut curl = peer("curl");
    curl.args(["-sS", "--url", &format!("smtp://127.0.0.1:{}/c", site.port), "--ssl-reqd", "--insecure"]);
    curl.args([
        "--cacert",
        &authority.path("ca.pem").display().to_string(),
        "--user",
        "ann",
        "--oauth2-bearer",
        token,
    ]);
    curl.args(["--login-options", "AUTH=OAUTHBEARER", "--mail-from", "jane@client.example"]);
    curl.args(["--mail-rcpt", "ann@box.example.com", "-T", &site.path("note").display().to_string()]);
    run(curl, b"")
}

#[test]
fn dovecot_checks_tokens_and_hears_of_certificates() {
    if !is_root("dovecot_checks_tokens_and_hears_of_certificates") {
        return;
    }
    let authority = Authority::new();
    authority.issue("ann", &["ann"]);
    authority.self_signed("stranger", "ann");
    let oauth2 = format!(
        "introspection_mode = auth\nintrospection_url = http://127.0.0.1:{}/\nusername_attribute = username\n\
         active_attribute = active\nactive_value = true\n",
        token_server()
    );
    let site = with_tls(&authority, "dovecot", "$root/dovecot/auth")
        .file("dovecot.conf", DOVECOT)
        .file("oauth2", &oauth2)
        .start();
    let _dovecot = start_dovecot(&site);
    let output = curl(&site, &authority, "right-token");
    assert!(output.status == 0, "{output:?}\n{}", site.log());
    site.wait_for_log(&["sasl_method=OAUTHBEARER, sasl_username=ann"]);
    assert!(curl(&site, &authority, "another-token").status != 0);
    site.wait_for_log(&["SASL OAUTHBEARER authentication failed: "]);
    let said = client(&site, &authority, "", "TLSv1_3", &["XOAUTH2 another-token", "XOAUTH2 right-token"]);
    assert!(said.ends_with("\n535\n235\n"), "{said}\n{}", site.log());
    site.wait_for_log(&["sasl_method=XOAUTH2, sasl_username=ann"]);
    // The certificate that an authority vouches for, and nobody else's.
    let said = client(&site, &authority, "ann", "TLSv1_3", &["EXTERNAL ="]);
    let dovecot = || fs::read_to_string(site.path("dovecot/log")).unwrap_or_default();
    assert!(said.ends_with("\n235\n"), "{said}\n{}\n{}", site.log(), dovecot());
    site.wait_for_log(&["sasl_method=EXTERNAL, sasl_username=ann"]);
    for other in ["stranger", ""] {
        let said = client(&site, &authority, other, "TLSv1_3", &["EXTERNAL ="]);
        assert!(said.ends_with("\n535\n"), "{other}: {said}\n{}\n{}", site.log(), dovecot());
    }
    let seen = dovecot();
    assert!(
        seen.contains("\tsecured\tvalid-client-cert\tcert_username=ann")
            && !site.log().contains("right-token"),
        "{seen}\n{}",
        site.log()
    );
}
