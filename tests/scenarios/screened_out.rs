//! Clients that postscreen refuses: what they are offered and told, in clear and encrypted, and who is let through.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use scenarios::{Authority, Builder, Host, Instance, Network, Postfix, Smtp, free_port, is_root, peer, run};

use crate::screening::services;

const SCREENED: u16 = 2525;

/// What is said to everybody who is refused.
const REFUSING: &str = "postscreen_access_list = static:reject\npostscreen_denylist_action = enforce\n\
                        postscreen_greet_wait = 1s\npostscreen_client_connection_count_limit = 0";

fn refusing(authority: &Authority, more: &str) -> (Instance, u16) {
    let port = free_port();
    let site = Builder::new()
        .main(REFUSING)
        .main(&format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display()))
        .main(more)
        .master(&services(&format!("127.0.0.1:{port}")))
        .start();
    (site, port)
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("server", &["mail.example.com"]);
    authority
}

/// Dialogues that end with their last command, or before.
const DIALOGUES: [&[&str]; 8] = [
    &[
        "HELO",
        "EHLO",
        "NOOP",
        "VRFY",
        "VRFY x",
        "ETRN",
        "ETRN a.example",
        "AUTH PLAIN",
        "FOO",
        "MAIL",
        "MAIL FROM:",
        "RCPT TO:<a@b>",
        "RSET x",
        "DATA",
    ],
    &[
        "EHLO x",
        "RCPT TO:<a@b>",
        "MAIL FROM",
        "MAIL FROM:<>",
        "MAIL FROM:<>",
        "RCPT",
        "RCPT TO:<>",
        "RCPT TO:x",
        "RCPT TO:<a@b",
        "RCPT TO:<a@b> NOTIFY=NEVER",
        "RSET",
        "BDAT 10 LAST",
        "QUIT",
    ],
    &["HELO x", "MAIL FROM:<a@b>", "BDAT 10 LAST"],
    &["HELO x", "MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA"],
    &["DATA x", "QUIT"],
    &["BDAT", "QUIT"],
    &["EHLO changed", "change me", "QUIT x"],
    &["EHLO mapped", "QUIT"],
];

/// What a client hears in these dialogues, without its port and the time.
fn heard(client: &Host, server: IpAddr) -> Vec<String> {
    let mut all = Vec::new();
    for dialogue in DIALOGUES {
        let mut smtp = Smtp::over(client.connect(SocketAddr::new(server, SCREENED)).unwrap());
        all.push(smtp.read_reply().text());
        for line in dialogue {
            let Some(reply) = smtp.try_command(line) else { break };
            let text = reply.lines.join("|");
            let text = text.split(" port ").next().unwrap_or_default().to_owned();
            all.push(format!("{line}: {} {text}", reply.code));
        }
    }
    all
}

#[test]
fn who_is_refused_hears_what_postfix_says() {
    if !is_root("screening in a network") {
        return;
    }
    let authority = authority();
    let mut network = Network::new();
    let [ours, theirs, client, other] =
        ["mail.example.com", "theirs.example", "client.example", "other.example"]
            .map(|name| network.host(name));
    let chain = format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display());
    let mapped = format!(
        "postscreen_discard_ehlo_keyword_address_maps = inline:{{ {{ {} = starttls, vrfy }} }}",
        other.ip
    );
    let lines = [
        REFUSING,
        "myhostname = mail.example.com",
        "smtpd_tls_security_level = may",
        &chain,
        "postscreen_discard_ehlo_keywords = dsn",
        &mapped,
        "postscreen_command_filter = regexp:{{/^change/ NOOP}}",
        "smtpd_banner = $myhostname ESMTP",
        "postscreen_reject_footer = \\c. Ask $server_name, $client_address port $client_port at $localtime",
    ];
    let master = services(&SCREENED.to_string());
    let builder = Builder::new().on(&ours).master(&master);
    let _site = lines.iter().fold(builder, |builder, line| builder.main(line)).start();
    let _postfix = Postfix::start_on_with(&theirs, &lines, &master);
    for host in [&client, &other] {
        assert_eq!(heard(host, ours.ip), heard(host, theirs.ip));
    }
}

/// What `openssl s_client` shows and reads behind STARTTLS.
fn s_client(port: u16, input: &str) -> String {
    let mut command = peer("openssl");
    command.args(["s_client", "-starttls", "smtp", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
    let output = run(command, input.as_bytes());
    output.stdout + &output.stderr
}

#[test]
fn who_is_refused_may_be_so_encrypted() {
    let authority = authority();
    let (site, port) = refusing(
        &authority,
        "postscreen_tls_security_level = encrypt\nsmtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\n\
         postscreen_reject_footer = call us",
    );
    let mut bot = Smtp::connect(port);
    assert!(bot.expect("EHLO bot", 250).text().contains("STARTTLS"));
    assert_eq!(
        bot.command("MAIL FROM:<a@b>").text(),
        "5.7.0 Must issue a STARTTLS command first\n5.7.0 call us"
    );
    drop(bot);
    let mut swaks = peer("swaks");
    swaks.args([
        "-s",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-tls",
        "-f",
        "a@b.example",
        "-t",
        "c@example.com",
    ]);
    let said = run(swaks, b"").stdout;
    assert!(said.contains("<~* 550 5.3.2 call us") || said.contains("550-5.3.2 Service currently"), "{said}");
    site.wait_for_log(&["tlsproxy[", "CONNECT from [127.0.0.1]:"]);
    site.wait_for_log(&["tlsproxy[", "Anonymous TLS connection established from [127.0.0.1]:", ": TLSv1.3"]);
    site.wait_for_log(&[
        "postscreen[",
        "NOQUEUE: reject: RCPT from [127.0.0.1]:",
        "550 5.3.2",
        "proto=ESMTP",
    ]);
    site.wait_for_log(&["tlsproxy[", "DISCONNECT [127.0.0.1]:"]);
    // Whoever hangs in TLS, or speaks no TLS, is got rid of; and counts no more then.
    let said = s_client(port, "EHLO x\r\nSTARTTLS\r\nQUIT\r\n");
    assert!(said.contains("554 5.5.1 Error: TLS already active") || said.contains("554-5.5.1"), "{said}");
    assert!(!site.log().contains("smtpd["), "{}", site.log());
}

#[test]
fn nothing_that_comes_along_with_starttls_is_obeyed_here_either() {
    let authority = authority();
    let (site, port) = refusing(&authority, "smtpd_tls_security_level = may");
    let mut bot = Smtp::connect(port);
    bot.expect("EHLO bot", 250);
    bot.send_raw(b"STARTTLS\r\nRSET\r\nMAIL FROM:<injected@b.example>\r\n");
    assert_eq!(bot.read_reply().code, 220);
    bot.send_raw(b"this is no TLS\r\n");
    assert!(bot.try_read_reply().is_none_or(|reply| reply.code == 0));
    site.wait_for_log(&["postscreen[", "HANGUP after", "in tests after SMTP handshake"]);
    site.wait_for_log(&["postscreen[", "DISCONNECT [127.0.0.1]:"]);
    assert!(!site.log().contains("from=<injected@"), "{}", site.log());
}

#[test]
fn former_names_and_ipv6_clients() {
    let port = free_port();
    let site = Builder::new()
        .main("postscreen_access_list = inline:{ {::1 = reject} }\npostscreen_blacklist_action = drop")
        .main(
            "postscreen_greet_wait = 1s\npostscreen_dnsbl_ttl = 5\npostscreen_dnsbl_whitelist_threshold = -3",
        )
        .main("inet_protocols = all")
        .master(&services(&format!("[::1]:{port}")))
        .start();
    let mut stream = std::net::TcpStream::connect(("::1", port)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "521 5.3.2 Service currently unavailable\r\n");
    site.wait_for_log(&["postscreen[", "DENYLISTED [::1]:"]);
    for (name, value) in [
        ("postscreen_denylist_action", "drop"),
        ("postscreen_dnsbl_allowlist_threshold", "-3"),
        ("postscreen_dnsbl_max_ttl", "5h"),
    ] {
        let said = site.run("postconf", &["-x", name], "").ok().stdout;
        assert_eq!(said.trim(), format!("{name} = {value}"));
    }
}

#[test]
fn who_is_on_good_lists_need_not_wait() {
    if !is_root("screening in a network") {
        return;
    }
    let mut network = Network::new();
    let [ours, good, stranger] =
        ["ours.example", "good.example", "stranger.example"].map(|name| network.host(name));
    good.add_address("2001:db8::77".parse().unwrap());
    ours.add_address("2001:db8::25".parse().unwrap());
    let reversed: Vec<String> = good.ip.to_string().split('.').rev().map(str::to_owned).collect();
    let nibbles = "7.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
    network.zone("wl.example", &format!("{} A 127.0.0.2\n{nibbles} A 127.0.0.3", reversed.join(".")));
    let site = Builder::new()
        .on(&ours)
        .main("mynetworks = 127.0.0.0/8\npostscreen_access_list =\npostscreen_greet_wait = 100s\ninet_protocols = all")
        .main("postscreen_dnsbl_sites = wl.example=127.0.0.[2..3]*-2\npostscreen_dnsbl_whitelist_threshold = -2")
        .main("postscreen_dnsbl_action = enforce")
        .master(&services(&SCREENED.to_string()))
        .start();
    for to in [SocketAddr::new(ours.ip, SCREENED), SocketAddr::new("2001:db8::25".parse().unwrap(), SCREENED)]
    {
        let began = Instant::now();
        let mut smtp = Smtp::over(good.connect(to).unwrap());
        assert_eq!(smtp.read_reply().code, 220);
        smtp.expect("NOOP", 250);
        assert!(began.elapsed() < Duration::from_secs(60), "{}", site.log());
    }
    site.wait_for_log(&["PASS NEW [2001:db8::77]:"]);
    let mut waits = stranger.connect(SocketAddr::new(ours.ip, SCREENED)).unwrap();
    waits.write_all(b"EHLO early\r\n").unwrap();
    site.wait_for_log(&["PREGREET 12 after", &format!("from [{}]:", stranger.ip)]);
}
