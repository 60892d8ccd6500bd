use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::tls::testing::{Authority, NEW_KEY, config};
use crate::wait_until;

/// What one client of `openssl s_client` saw, and what the server knew of it.
fn meet(authority: &Authority, context: &Context, arguments: &str) -> (String, Result<Info, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (output, info) = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut session = context.handshake(&mut stream, &"client[127.0.0.1]", deadline)?;
            session.write_all(&mut stream, b"220 hello\r\n").map_err(|e| e.to_string())?;
            let mut buffer = [0; 100];
            // Of the two, one ends it.
            let ends = arguments.contains("-ign_eof");
            while !ends && session.read(&mut stream, &mut buffer).is_ok_and(|count| count > 0) {}
            session.close(&mut stream);
            Ok(session.info().clone())
        });
        let client = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
            .args(arguments.split_ascii_whitespace())
            .current_dir(authority.folder())
            .stdin(Stdio::null())
            .output();
        (client.unwrap(), server.join().unwrap())
    });
    let Output { stdout, stderr, .. } = output;
    (format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)), info)
}

fn context(main_cf: &str) -> Context {
    Context::new(&config(&format!("smtpd_tls_security_level = may\n{main_cf}")), None).unwrap()
}

/// An authority with `rsa` and `ec` of mail.example.net, and the lines that serve both.
fn both() -> (Authority, String) {
    let authority = Authority::new();
    authority.issue("rsa", "mail.example.net", "-newkey rsa:2048");
    authority.issue("ec", "mail.example.net", NEW_KEY);
    let lines = format!(
        "smtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\nsmtpd_tls_eccert_file = {}\nsmtpd_tls_eckey_file = {}\n",
        authority.path("rsa.pem"),
        authority.path("rsa.key"),
        authority.path("ec.pem"),
        authority.path("ec.key"),
    );
    (authority, lines)
}

#[test]
fn each_client_gets_the_key_that_it_can_verify() {
    let (authority, lines) = both();
    let context = context(&lines);
    for (arguments, signature) in [
        ("-tls1_3", Some("ECDSA (prime256v1)")),
        ("-tls1_3 -sigalgs rsa_pss_rsae_sha256", Some("RSA-PSS (2048 bits)")),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", None),
        ("-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", None),
    ] {
        let (said, info) = meet(&authority, &context, arguments);
        let info = info.unwrap();
        assert_eq!(
            info.server_signature.as_ref().map(ToString::to_string).as_deref(),
            signature,
            "{arguments}"
        );
        assert_eq!(info.trust, Trust::Anonymous);
        let cipher = arguments.split("-cipher ").nth(1).unwrap_or("TLS_AES_256_GCM_SHA384");
        assert_eq!(info.cipher, cipher);
        assert!(said.contains(cipher), "{said}");
    }
    // Nothing older, and nothing that the client may not have.
    for arguments in [
        "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1_2 -cipher AES256-SHA",
        "-tls1_2 -cipher DHE-RSA-AES256-GCM-SHA384",
    ] {
        assert!(meet(&authority, &context, arguments).1.is_err(), "{arguments}");
    }
}

#[test]
fn chain_files_hold_several_keys() {
    let (authority, _) = both();
    let mut text = String::new();
    for name in ["rsa.key", "rsa.pem", "ca.pem", "ec.key", "ec.pem", "ca.pem"] {
        text += &std::fs::read_to_string(authority.path(name)).unwrap();
    }
    std::fs::write(authority.path("chain"), text).unwrap();
    let context = context(&format!("smtpd_tls_chain_files = {}\n", authority.path("chain")));
    for (arguments, subject) in [
        ("-CAfile ca.pem", "id-ecPublicKey"),
        ("-CAfile ca.pem -sigalgs rsa_pss_rsae_sha256", "rsaEncryption"),
    ] {
        let (said, _) = meet(&authority, &context, arguments);
        assert!(said.contains("Verification: OK") && said.contains(subject), "{said}");
    }
}

#[test]
fn a_renewed_pair_is_served_and_a_broken_one_is_not() {
    let (authority, lines) = both();
    let context = context(&lines);
    let serial = |said: &str| {
        said.split("-----BEGIN CERTIFICATE-----").nth(1)?.split("-----END").next().map(str::to_owned)
    };
    let fetch = || serial(&meet(&authority, &context, "-tls1_3").0);
    let first = fetch();
    assert!(first.is_some());
    // A certificate without its key yet: the old pair stays.
    authority.issue("ec2", "mail.example.net", NEW_KEY);
    std::fs::rename(authority.path("ec2.pem"), authority.path("ec.pem")).unwrap();
    context.store.lock().unwrap().doubt();
    assert_eq!(fetch(), first);
    std::fs::rename(authority.path("ec2.key"), authority.path("ec.key")).unwrap();
    let mut second = None;
    wait_until(|| {
        second = fetch();
        second.is_some() && second != first
    });
    std::fs::remove_file(authority.path("ec.pem")).unwrap();
    context.store.lock().unwrap().doubt();
    assert_eq!(fetch(), second);
}

#[test]
fn a_key_that_only_the_opener_may_open_is_renewed_as_well() {
    // root may open everything, so this needs somebody else.
    if nix::unistd::Uid::effective().is_root() {
        return;
    }
    let (authority, lines) = both();
    let closed = authority.folder().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::rename(authority.path("ec.key"), closed.join("ec.key")).unwrap();
    let open_up = |mode| std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();
    open_up(0);
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let folder = closed.clone();
    let opener = move |path: &Path| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        let permit = |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode));
        permit(0o700)?;
        let file = File::open(path);
        permit(0)?;
        file
    };
    let lines = lines.replace("/ec.key", "/closed/ec.key") + "smtpd_tls_security_level = may\n";
    let context = Context::new(&config(&lines), Some(Box::new(opener))).unwrap();
    assert!(meet(&authority, &context, "-tls1_3").1.is_ok());
    assert!(ASKED.load(Ordering::Relaxed) >= 2);
    open_up(0o700);
}

#[test]
fn names_lead_to_certificates() {
    let (authority, lines) = both();
    authority.issue("other", "other.example.org", NEW_KEY);
    let read = |name: &str| std::fs::read_to_string(authority.path(name)).unwrap();
    std::fs::write(authority.path("other.chain"), read("other.key") + &read("other.pem")).unwrap();
    std::fs::write(authority.path("broken.chain"), read("other.pem")).unwrap();
    let context = context(&format!(
        "{lines}tls_server_sni_maps = inline:{{ {{ other.example.org = {0} }}, {{ .below.example = {0} }}, {{ broken.example = {1} }} }}\n",
        authority.path("other.chain"),
        authority.path("broken.chain"),
    ));
    for (name, subject) in [
        ("other.example.org", "CN = other.example.org"),
        ("OTHER.example.org", "CN = other.example.org"),
        ("a.b.below.example", "CN = other.example.org"),
        ("below.example", "CN = mail.example.net"),
        ("elsewhere.example", "CN = mail.example.net"),
        ("broken.example", "CN = mail.example.net"),
    ] {
        let (said, info) = meet(&authority, &context, &format!("-servername {name}"));
        assert!(said.contains(&format!("subject={subject}")), "{name}: {said}");
        assert_eq!(info.unwrap().server_name, Some(name.to_lowercase()));
    }
    let (said, _) = meet(&authority, &context, "-noservername");
    assert!(said.contains("subject=CN = mail.example.net"), "{said}");
}

#[test]
fn clients_show_certificates() {
    let (authority, lines) = both();
    authority.issue("client", "client.example.org", NEW_KEY);
    authority.openssl(&format!(
        "req -x509 {NEW_KEY} -nodes -keyout self.key -out self.pem -subj /CN=self -days 30"
    ));
    let trusting =
        format!("{lines}smtpd_tls_CAfile = {}\nsmtpd_tls_ask_ccert = yes\n", authority.path("ca.pem"));
    let asked = context(&trusting);
    for version in ["-tls1_3", "-tls1_2"] {
        for (arguments, trust, name) in [
            ("", Trust::Anonymous, ""),
            ("-cert client.pem -key client.key", Trust::Trusted, "client.example.org"),
            ("-cert self.pem -key self.key", Trust::Untrusted, "self"),
        ] {
            let info = meet(&authority, &asked, &format!("{version} {arguments}")).1.unwrap();
            assert_eq!((info.trust, info.peer_name()), (trust, name), "{version} {arguments}");
        }
    }
    authority.issue_deep("deep", "client.example.org");
    for (depth, trust) in [(1, Trust::Untrusted), (2, Trust::Trusted)] {
        let bounded = context(&format!("{trusting}smtpd_tls_ccert_verifydepth = {depth}\n"));
        let info =
            meet(&authority, &bounded, "-cert deep.pem -key deep.key -cert_chain middle.pem").1.unwrap();
        assert_eq!(info.trust, trust, "{depth}: {:?}", info.reason);
    }
    let unasked = context(&lines);
    let info = meet(&authority, &unasked, "-cert client.pem -key client.key").1.unwrap();
    assert_eq!(info.trust, Trust::Anonymous);
}

#[test]
fn sessions_are_resumed_by_tickets() {
    let (authority, lines) = both();
    let resuming = context(&lines);
    for version in ["-tls1_3", "-tls1_2"] {
        assert!(
            !meet(&authority, &resuming, &format!("{version} -sess_out s -ign_eof")).1.unwrap().reused,
            "{version}"
        );
        assert!(meet(&authority, &resuming, &format!("{version} -sess_in s")).1.unwrap().reused, "{version}");
    }
    let forgetful = context(&format!("{lines}smtpd_tls_session_cache_timeout = 0\n"));
    meet(&authority, &forgetful, "-tls1_2 -sess_out s").1.unwrap();
    assert!(!meet(&authority, &forgetful, "-tls1_2 -sess_in s").1.unwrap().reused);
}

#[test]
fn what_cannot_work_is_told_with_its_parameter() {
    let (authority, lines) = both();
    for (main_cf, words) in [
        (
            "smtpd_tls_security_level = may\n".to_owned(),
            "smtpd_tls_chain_files: TLS is on, but no certificate is named",
        ),
        (
            format!("{lines}smtpd_tls_protocols = TLSv1\nsmtpd_tls_security_level = may\n"),
            "smtpd_tls_protocols: \"TLSv1\" leaves neither",
        ),
        (
            format!("{lines}smtpd_tls_key_file = {}\n", authority.path("ec.key")),
            "the private key is not that of the certificate",
        ),
        (
            format!("{lines}smtpd_tls_key_file = /nowhere/k\n"),
            "smtpd_tls_cert_file: open /nowhere/k: No such file",
        ),
        (
            format!("{lines}smtpd_tls_CAfile = /nowhere/ca\n"),
            "smtpd_tls_CAfile: open /nowhere/ca: No such file",
        ),
        (format!("{lines}smtpd_tls_security_level = most\n"), "there is no such level"),
    ] {
        let error = Context::new(&config(&main_cf), None).err().unwrap_or_default();
        assert!(error.contains(words), "{main_cf} {error}");
    }
}

#[test]
fn garbage_and_silence_end_a_handshake() {
    let (_authority, lines) = both();
    let context = context(&lines);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let soon = || Instant::now() + Duration::from_millis(300);
    assert_eq!(context.handshake(&mut stream, &"c", soon()).unwrap_err(), "timeout");
    client.write_all(b"EHLO me\r\n").unwrap();
    assert!(context.handshake(&mut stream, &"c", soon()).is_err());
}
