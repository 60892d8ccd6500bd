//! Logins: every mechanism that real clients know, against a table of passwords and against Dovecot.

use std::fs;
use std::process::{Child, Command, Stdio};

use scenarios::{Builder, Instance, Output, free_port, is_root, peer, run, wait_for};

use crate::site::{greeted, usual};

const PASSWORD: &str = "tanstaaf l";

struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mail system that takes mail for anywhere from those only who have logged in.
fn with_logins(port: u16, kind: &str, path: &str) -> Builder {
    usual()
        .main("smtpd_sasl_auth_enable = yes")
        .main(&format!("smtpd_sasl_type = {kind}"))
        .main(&format!("smtpd_sasl_path = {path}"))
        .main("smtpd_sasl_authenticated_header = yes")
        .main("mynetworks = 192.0.2.0/24")
        .main("smtpd_recipient_restrictions = permit_sasl_authenticated, reject")
        .master(&format!("127.0.0.1:{port} inet n - n - - smtpd"))
}

fn swaks(port: u16, mechanism: &str, user: &str, password: &str) -> Output {
    let mut swaks = peer("swaks");
    swaks.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--auth", mechanism]);
    swaks.args(["--auth-user", user, "--auth-password", password, "--from", "jane@client.example"]);
    swaks.args(["--to", "ann@box.example.com"]);
    run(swaks, b"")
}

fn msmtp(site: &Instance, port: u16, mechanism: &str) -> Output {
    let password = format!("echo '{PASSWORD}'");
    let mut msmtp = peer("msmtp");
    msmtp.env("HOME", site.root()).args([
        "--host=127.0.0.1",
        &format!("--port={port}"),
        "--tls=off",
        "--user=ann",
    ]);
    msmtp.args([&format!("--auth={mechanism}"), &format!("--passwordeval={password}")]);
    msmtp.args(["--from=jane@client.example", "ann@box.example.com"]);
    run(msmtp, b"Subject: login\n\nHello.\n")
}

const PYTHON: &str = "import smtplib, sys\n\
    s = smtplib.SMTP('127.0.0.1', int(sys.argv[1])); s.ehlo()\n\
    s.user, s.password = 'ann', sys.argv[3]\n\
    m = {'PLAIN': s.auth_plain, 'LOGIN': s.auth_login, 'CRAM-MD5': s.auth_cram_md5}[sys.argv[2]]\n\
    print(s.auth(sys.argv[2], m)[0])\n\
    s.sendmail('jane@client.example', ['ann@box.example.com'], 'Subject: x\\r\\n\\r\\nHello.\\r\\n'); s.quit()\n";

fn python(port: u16, mechanism: &str) -> Output {
    let mut python = peer("python3");
    python.args(["-c", PYTHON, &port.to_string(), mechanism, PASSWORD]);
    run(python, b"")
}

fn curl(site: &Instance, port: u16, mechanism: &str) -> Output {
    site.write("note", "Subject: x\r\n\r\nHello.\r\n");
    let mut curl = peer("curl");
    curl.args(["-sS", "--url", &format!("smtp://127.0.0.1:{port}/c"), "--user", &format!("ann:{PASSWORD}")]);
    curl.args(["--login-options", &format!("AUTH={mechanism}"), "--mail-from", "jane@client.example"]);
    curl.args(["--mail-rcpt", "ann@box.example.com", "-T", &site.path("note").display().to_string()]);
    run(curl, b"")
}

/// Every client with every mechanism it knows of those that are offered; gives how many messages that makes.
fn all_clients(site: &Instance, port: u16, offered: &[&str]) -> usize {
    let mut sent = 0;
    let mut expect = |client: &str, mechanism: &str, output: Output| {
        assert!(output.status == 0, "{client} {mechanism}: {output:?}\n{}", site.log());
        sent += 1;
    };
    for mechanism in offered {
        if ["PLAIN", "LOGIN", "CRAM-MD5"].contains(mechanism) {
            expect("swaks", mechanism, swaks(port, mechanism, "ann", PASSWORD));
            expect("python", mechanism, python(port, mechanism));
            expect("curl", mechanism, curl(site, port, mechanism));
        }
        expect("msmtp", mechanism, msmtp(site, port, &mechanism.to_lowercase()));
        site.wait_for_log(&[&format!("sasl_method={mechanism}, sasl_username=ann")]);
    }
    sent
}

/// A wrong password is refused, and logged in the words that fail2ban looks for.
fn a_wrong_password_is_refused(site: &Instance, port: u16) {
    let output = swaks(port, "LOGIN", "ann", "wrong");
    assert_eq!(output.status, 28, "{output:?}");
    site.wait_for_log(&[
        "warning: ",
        "[127.0.0.1]: SASL LOGIN authentication failed: ",
        ", sasl_username=ann",
    ]);
    assert!(!site.log().contains(PASSWORD), "{}", site.log());
}

#[test]
fn real_clients_log_in_against_the_table_of_passwords() {
    let port = free_port();
    let site = with_logins(port, "postroad", "passwords").file("passwords", "").prepare();
    fs::set_permissions(site.path("etc/passwords"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let schemes = ["-s", "argon2id", "-s", "scram-sha-256", "-s", "scram-sha-1"];
    let added = site.run("postpasswd", &[&["add", "ann"][..], &schemes].concat(), &format!("{PASSWORD}\n"));
    assert!(added.status == 0, "{added:?}");
    site.start();
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect("RCPT TO:<ann@box.example.com>", 554);
    let sent = all_clients(&site, port, &["PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256"]);
    let mails = site.wait_for_mail("ann", sent);
    let header = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(header.contains("(Authenticated sender: ann)") && header.contains("with ESMTPA id"), "{header}");
    a_wrong_password_is_refused(&site, port);
    assert!(site.run("postpasswd", &["lock", "ann"], "").status == 0);
    wait_for("the lock to be noticed", || (swaks(port, "PLAIN", "ann", PASSWORD).status != 0).then_some(()));
}

const DOVECOT: &str = "base_dir = $root/dovecot/run\nstate_dir = $root/dovecot/state\nlog_path = $root/dovecot/log\n\
    protocols =\nssl = no\nauth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256\n\
    disable_plaintext_auth = no\nauth_failure_delay = 0\n\
    passdb {\n  driver = passwd-file\n  args = $root/etc/dovecot.users\n}\n\
    userdb {\n  driver = static\n  args = uid=nobody gid=nogroup home=/nonexistent\n}\n\
    service auth {\n  unix_listener $root/dovecot/auth {\n    mode = 0666\n  }\n\
      inet_listener {\n    address = 127.0.0.1\n    port = PORT\n  }\n}\n";

fn start_dovecot(site: &Instance) -> Beside {
    let _ = fs::remove_file(site.path("dovecot/auth"));
    let mut dovecot: Command = peer("dovecot");
    dovecot.args(["-F", "-c", &site.path("etc/dovecot.conf").display().to_string()]);
    let child = dovecot.stdin(Stdio::null()).spawn().expect("start Dovecot");
    wait_for("Dovecot to listen", || site.path("dovecot/auth").exists().then_some(()));
    Beside(child)
}

#[test]
fn real_clients_log_in_against_dovecot() {
    if !is_root("real_clients_log_in_against_dovecot") {
        return;
    }
    let (port, second, auth) = (free_port(), free_port(), free_port());
    let site = with_logins(port, "dovecot", "$root/dovecot/auth")
        .master(&format!("127.0.0.1:{second} inet n - n - - smtpd -o smtpd_sasl_path=inet:127.0.0.1:{auth}"))
        .file("dovecot.conf", &DOVECOT.replace("PORT", &auth.to_string()))
        .file("dovecot.users", &format!("ann:{{PLAIN}}{PASSWORD}::::::\n"))
        .start();
    for folder in ["dovecot", "dovecot/run", "dovecot/state"] {
        fs::create_dir(site.path(folder)).expect("make a folder for Dovecot");
    }
    // Without Dovecot nobody is let in, and nothing is offered.
    let mut client = greeted(&site);
    client.expect("AUTH PLAIN AGFubgB4", 535);
    site.wait_for_log(&["SASL: Connect to Dovecot auth socket", "failed: "]);
    let dovecot = start_dovecot(&site);
    let mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"];
    let sent = all_clients(&site, port, &mechanisms) + all_clients(&site, second, &["PLAIN"]);
    site.wait_for_mail("ann", sent);
    a_wrong_password_is_refused(&site, port);
    // Another Dovecot: the connection is made again.
    drop(dovecot);
    let _dovecot = start_dovecot(&site);
    wait_for("logins to work again", || (swaks(port, "PLAIN", "ann", PASSWORD).status == 0).then_some(()));
}
