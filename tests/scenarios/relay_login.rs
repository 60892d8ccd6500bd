//! All mail through a provider that wants a login: real Postfix with Dovecot, and servers with scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use scenarios::{Authority, Builder, Host, Instance, Network, Postfix, Scripted, is_root, run, wait_for};

const PASSWORD: &str = "s3cr3t+/word";

/// How passwords may show: as they are, and in what is sent for PLAIN and LOGIN.
fn assert_secret(text: &str) {
    for shown in [PASSWORD, "s3cr3t", "czNjcjN0Ky93b3Jk", "AGphbmVAcHJvdmlkZXIuZXhhbXBsZQBzM2NyM3QrL3dvcmQ="]
    {
        assert!(!text.contains(shown), "{shown} is told in\n{text}");
    }
}

/// Postfix that relays for whoever logs in at Dovecot, at the ports 587 and 465.
struct Provider {
    postfix: Postfix,
    dovecot: Child,
    folder: tempfile::TempDir,
}

const DOVECOT: &str = "base_dir = ROOT/run\nstate_dir = ROOT/state\nlog_path = ROOT/log\nprotocols =\nssl = no\n\
    auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256\ndisable_plaintext_auth = no\n\
    auth_failure_delay = 0\npassdb {\n  driver = passwd-file\n  args = ROOT/users\n}\n\
    userdb {\n  driver = static\n  args = uid=nobody gid=nogroup home=/nonexistent\n}\n\
    service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}\n\
    service auth {\n  unix_listener ROOT/auth {\n    mode = 0666\n  }\n}\n";

impl Provider {
    fn start(host: &Host, authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = folder.path().display().to_string();
        fs::write(folder.path().join("dovecot.conf"), DOVECOT.replace("ROOT", &root)).unwrap();
        let users = ["jane@provider.example", "ann@provider.example"]
            .map(|user| format!("{user}:{{PLAIN}}{PASSWORD}::::::\n"));
        fs::write(folder.path().join("users"), users.concat()).unwrap();
        let mut dovecot = host.command("dovecot");
        dovecot.args(["-F", "-c", &format!("{root}/dovecot.conf")]).stdin(Stdio::null());
        let dovecot = dovecot.spawn().unwrap();
        wait_for("Dovecot to listen", || folder.path().join("auth").exists().then_some(()));
        let chain = authority.path("smtp.chain").display().to_string();
        let options = format!(
            "-o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_sasl_path={root}/auth \
             -o smtpd_relay_restrictions=permit_sasl_authenticated,reject -o smtpd_tls_auth_only=yes \
             -o smtpd_tls_chain_files={chain}"
        );
        let mut services = format!(
            "587 inet n - n - - smtpd -o smtpd_tls_security_level=encrypt {options}\n\
             465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes {options}\n"
        );
        for (number, mechanism) in MECHANISMS.iter().enumerate() {
            let filter = format!("-o smtpd_sasl_mechanism_filter={mechanism}");
            services += &format!(
                "{} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt {options} {filter}\n",
                2600 + number
            );
        }
        let lines =
            ["mydestination =", "default_transport = discard:", "smtpd_sasl_authenticated_header = yes"];
        Self { postfix: Postfix::start_on_with(host, &lines, &services), dovecot, folder }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(self.dovecot.id()).unwrap_or(0)),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.dovecot.wait();
        let _ = self.folder.path();
    }
}

const MECHANISMS: [&str; 5] = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"];

/// The lines of README.md: of main.cf, and of the table.
fn readme() -> (Vec<String>, String) {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, section) = text.split_once("## All mail through a provider\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines: Vec<String> =
        section.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
    let (table, main) = lines.split_last().unwrap();
    (main.to_vec(), table.replace(":secret", &format!(":{PASSWORD}")) + "\n")
}

/// A network with a provider, and a host for its customer.
fn place(network: &mut Network) -> (Authority, Provider, Host) {
    let authority = Authority::new();
    authority.issue("smtp", &["smtp.provider.example"]);
    network.zone("provider.example", "");
    network.zone("customer.example", "");
    let provider = network.host("smtp.provider.example");
    let provider = Provider::start(&provider, &authority);
    (authority, provider, network.host("mail.customer.example"))
}

/// The customer: his lines, and the provider's authority in place of those that the system knows.
fn customer(host: &Host, authority: &Authority, lines: &[String], passwords: &str) -> Instance {
    let anchors = format!("smtp_tls_CAfile = {}", authority.path("ca.pem").display());
    let builder =
        Builder::new().on(host).main("mynetworks = 192.0.2.0/24").main("mydestination =").main(&anchors);
    let builder = lines
        .iter()
        .fold(builder, |builder, line| builder.main(&line.replace("/etc/postroad/", "$root/etc/")));
    let site = builder
        .main("smtp_tls_loglevel = 1")
        .main("inet_protocols = ipv4")
        .main("minimal_backoff_time = 1s")
        .main("queue_run_delay = 1s")
        .file("passwords", passwords)
        .master("smtp unix - - n - - smtp -v")
        .prepare();
    fs::set_permissions(site.path("etc/passwords"), fs::Permissions::from_mode(0o600)).unwrap();
    site.start();
    site
}

fn send(host: &Host, sender: &str, recipient: &str) {
    let mut smtp = host.smtp(host.ip);
    smtp.expect("EHLO client.example", 250);
    assert_eq!(smtp.message(sender, &[recipient], "Subject: x\r\n\r\nbody\r\n").code, 250);
}

#[test]
fn five_lines_send_all_mail_through_a_provider() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let (authority, provider, host) = place(&mut network);
    let (lines, table) = readme();
    assert_eq!(lines.len(), 5, "{lines:?}");
    for port in ["587", "465"] {
        let lines: Vec<String> = lines.iter().map(|line| line.replace("587", port)).collect();
        let site = customer(&host, &authority, &lines, &table.replace("587", port));
        send(&host, "jane@customer.example", &format!("anybody-{port}@elsewhere.example"));
        let relay = format!("relay=smtp.provider.example[192.0.2.10]:{port}");
        site.wait_for_log(&[
            &format!("to=<anybody-{port}@elsewhere.example>"),
            &relay,
            "status=sent (250 2.0.0",
        ]);
        site.wait_for_log(&["Verified TLS connection established to smtp.provider.example"]);
        assert_secret(&site.log());
    }
    let logins = || provider.postfix.log().matches("sasl_username=jane@provider.example").count();
    wait_for("both logins in the log of the provider", || (logins() == 2).then_some(()));
}

#[test]
fn a_wrong_password_delays_mail_and_is_told_to_nobody() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let (authority, provider, host) = place(&mut network);
    let (lines, table) = readme();
    let wrong = table.replace(PASSWORD, "s3cr3t-but-wrong");
    let site =
        customer(&host, &authority, &[&lines[..], &["delay_warning_time = 1s".to_owned()]].concat(), &wrong);
    send(&host, "jane@customer.example", "anybody@elsewhere.example");
    let line = site.wait_for_log(&["to=<anybody@elsewhere.example>", "dsn=4.7.8, status=deferred (SASL authentication failed; server smtp.provider.example[192.0.2.10] said: 535 5.7.8 "]);
    assert!(!line.contains("bounced"));
    // The sender is told of the delay, and not of the password: that report waits for the provider as well.
    site.wait_for_log(&["to=<jane@customer.example>", "status=deferred"]);
    for id in site.queue_ids() {
        assert_secret(&site.run("postcat", &["-q", &id], "").stdout);
    }
    assert_secret(&site.log());
    // Put right, it goes out.
    site.write("etc/passwords", &table);
    site.postroad(&["reload"]).ok();
    site.try_all();
    site.wait_for_log(&["to=<anybody@elsewhere.example>", "status=sent"]);
    assert_secret(&site.log());
    assert!(!site.log().contains("status=bounced"), "{}", site.log());
    drop(provider);
}

#[test]
fn every_mechanism_and_the_senders_own_login_serve() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let mut network = Network::new();
    let (authority, provider, host) = place(&mut network);
    let routes: Vec<String> = (0..MECHANISMS.len())
        .map(|number| format!("{{ m{number}.example = smtp:[smtp.provider.example]:{} }}", 2600 + number))
        .collect();
    let lines = [
        "smtp_tls_security_level = secure".to_owned(),
        "smtp_sasl_auth_enable = yes".to_owned(),
        "smtp_sasl_password_maps = texthash:$root/etc/passwords".to_owned(),
        "smtp_sasl_tls_security_options = noanonymous".to_owned(),
        "smtp_sender_dependent_authentication = yes".to_owned(),
        format!("transport_maps = inline:{{ {} }}", routes.join(", ")),
    ];
    let table = format!(
        "smtp.provider.example jane@provider.example:{PASSWORD}\nann@customer.example ann@provider.example:{PASSWORD}\n"
    );
    let site = customer(&host, &authority, &lines, &table);
    for (number, mechanism) in MECHANISMS.iter().enumerate() {
        for (sender, user) in [("joe", "jane"), ("ann", "ann")] {
            send(&host, &format!("{sender}@customer.example"), &format!("{sender}@m{number}.example"));
            site.wait_for_log(&[&format!("to=<{sender}@m{number}.example>"), "status=sent"]);
            let says = format!("sasl_method={mechanism}, sasl_username={user}@provider.example");
            wait_for(&says, || provider.postfix.log().contains(&says).then_some(()));
        }
    }
    assert_secret(&site.log());
}

/// A server that knows OAuth and takes one token alone.
fn token_server(mechanisms: &str, says: &[(&str, &str)]) -> Scripted {
    let ehlo = format!("250-s.example\n250 AUTH {mechanisms}");
    Scripted::start(&[&[("EHLO", ehlo.as_str())], says].concat())
}

fn base64(text: &str) -> String {
    let mut command = scenarios::peer("base64");
    command.args(["-w0"]);
    run(command, text.as_bytes()).ok().stdout
}

#[test]
fn tokens_come_from_files_and_commands() {
    let good = base64("user=jane@x.example\x01auth=Bearer token-1\x01\x01");
    let bearer = base64("n,a=jane@x.example,\x01auth=Bearer token-file\x01\x01");
    let (xoauth, oauth) = (format!("AUTH XOAUTH2 {good}"), format!("AUTH OAUTHBEARER {bearer}"));
    let problem = base64("{\"status\":\"401\",\"schemes\":\"bearer\"}");
    let refused = format!("334 {problem}");
    let by_command = token_server(
        "PLAIN XOAUTH2",
        &[("AUTH", &refused), ("+", "535 5.7.8 token expired"), (&xoauth, "235 2.7.0 fine")],
    );
    let by_file = token_server(
        "OAUTHBEARER LOGIN",
        &[("AUTH", &refused), ("+", "535 5.7.8 no"), (&oauth, "235 2.7.0 fine")],
    );
    let (command_at, file_at) = (by_command.address.port(), by_file.address.port());
    let site = Builder::new()
        .main("smtp_sasl_auth_enable = yes")
        .main("smtp_sasl_password_maps = texthash:$root/etc/passwords")
        .main("smtp_sasl_security_options = noanonymous")
        .main("smtp_connection_cache_on_demand = no")
        .main(&format!(
            "transport_maps = inline:{{ {{ command.test = smtp:[127.0.0.1]:{command_at} }}, {{ file.test = smtp:[127.0.0.1]:{file_at} }} }}"
        ))
        .master("smtp unix - - n - - smtp -v")
        // Each run gives another token.
        .file("refresh", "echo x >> $root/runs\necho \"{\\\"access_token\\\": \\\"token-$(wc -l < $root/runs)\\\", \\\"expires_in\\\": 3600}\"\n")
        .file("token", "token-file\n")
        .file(
            "passwords",
            &format!(
                "[127.0.0.1]:{command_at} jane@x.example:token-command:/bin/sh $root/etc/refresh\n\
                 [127.0.0.1]:{file_at} jane@x.example:token-file:$root/etc/token\n"
            ),
        )
        .start();
    let send = |recipient: &str| {
        let mut smtp = site.smtp();
        smtp.expect("EHLO client.example", 250);
        assert_eq!(smtp.message("joe@example.com", &[recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
    };
    // A command runs when its token has expired, not for each session.
    for recipient in ["one@command.test", "two@command.test"] {
        send(recipient);
        site.wait_for_log(&[&format!("to=<{recipient}>"), "status=sent"]);
    }
    assert_eq!(by_command.count(&xoauth), 2);
    send("user@file.test");
    site.wait_for_log(&["to=<user@file.test>", "status=sent"]);
    assert_eq!(by_file.count(&oauth), 1);
    // A file is read anew for each session.
    site.write("etc/token", "another\n");
    send("late@file.test");
    site.wait_for_log(&["to=<late@file.test>", "status=deferred (SASL authentication failed"]);
    site.write("etc/token", "token-file\n");
    site.try_all();
    site.wait_for_log(&["to=<late@file.test>", "status=sent"]);
    for token in ["token-1", "token-file", &bearer, &good] {
        assert!(
            !site.log().lines().any(|line| line.contains("smtp[") && line.contains(token)),
            "{}",
            site.log()
        );
    }
}

/// A token that has served and is refused one day is asked for anew at once; so is one whose time is over.
#[test]
fn a_token_that_is_refused_or_expires_is_replaced_at_once() {
    let login = |number: u8| {
        let said = base64(&format!("user=jane@x.example\x01auth=Bearer token-{number}\x01\x01"));
        format!("AUTH XOAUTH2 {said}")
    };
    let refused = format!("334 {}", base64("{\"status\":\"401\"}"));
    for (lifetime, withdrawn) in [(3600, true), (2, false)] {
        let server = token_server("XOAUTH2", &[]);
        let at = server.address.port();
        let site = Builder::new()
            .main("smtp_sasl_auth_enable = yes")
            .main(&format!("smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{at} = jane@x.example:token-command:/bin/sh $config_directory/refresh }} }}"))
            .main("smtp_sasl_security_options = noanonymous")
            .main("smtp_connection_cache_on_demand = no")
            .main(&format!("relayhost = [127.0.0.1]:{at}"))
            .master("smtp unix - - n - - smtp")
            .file("refresh", &format!("echo x >> $root/runs\necho \"{{\\\"access_token\\\": \\\"token-$(wc -l < $root/runs)\\\", \\\"expires_in\\\": {lifetime}}}\"\n"))
            .start();
        let send = |recipient: &str| {
            let mut smtp = site.smtp();
            smtp.expect("EHLO client.example", 250);
            assert_eq!(smtp.message("joe@example.com", &[recipient], "Subject: x\r\n\r\nx\r\n").code, 250);
            site.wait_for_log(&[&format!("to=<{recipient}>"), "status="])
        };
        assert!(send("one@far.test").contains("status=sent"), "{}", site.log());
        if withdrawn {
            let ehlo = ("EHLO", "250-s.example\n250 AUTH XOAUTH2");
            server.say(&[
                ehlo,
                ("AUTH", &refused),
                ("+", "535 5.7.8 expired"),
                (&login(2), "235 2.7.0 fine"),
            ]);
            assert!(send("two@far.test").contains("status=sent"), "{}", site.log());
        } else {
            let mut number = 0;
            wait_for("another token", || {
                number += 1;
                send(&format!("user{number}@far.test"));
                (server.count(&login(2)) > 0).then_some(())
            });
        }
        assert!(server.count(&login(1)) > 0 && server.count(&login(2)) > 0);
        assert!(!site.log().contains("token-1"), "{}", site.log());
    }
}
