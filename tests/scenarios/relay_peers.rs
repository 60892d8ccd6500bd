//! Mail to servers of other makes: Exim, Postfix, Dovecot over LMTP, and one that goes wrong in every way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Stdio};

use scenarios::{
    Builder, Host, Instance, Network, Postfix, Running, Scripted, free_port, is_root, peer, peer_package,
    wait_for,
};

/// Mail for any address, over one connection; the reply to its end must be 250.
fn send(mut smtp: scenarios::Smtp, recipients: &[&str], content: &str) {
    smtp.expect("EHLO client.example", 250);
    assert_eq!(smtp.message("joe@example.com", recipients, content).code, 250);
}

const NOTE: &str = "Subject: x\r\n\r\nbody\r\n";

/// Exim keeps what it takes in its queue, so that its log and spool tell.
const EXIM: &str = "primary_hostname = exim.example.net\nspool_directory = ROOT/spool\nlog_file_path = ROOT/log-%slog\n\
    pid_file_path = ROOT/pid\ndaemon_smtp_ports = 25\nlocal_interfaces = <; 0.0.0.0 ; ::0\nqueue_only = true\nkeep_environment =\n\
    tls_advertise_hosts =\npipelining_connect_advertise_hosts =\nsmtputf8_advertise_hosts = *\n\
    acl_smtp_rcpt = rcpt\nacl_smtp_data = data\nbegin acl\n\
    rcpt:\n  deny local_parts = nobody\n    message = no such user here\n  defer local_parts = later\n    message = come again\n  accept\n\
    data:\n  deny condition = ${if match{$h_subject:}{unwanted}}\n    message = unwanted\n  accept\n\
    begin routers\nall:\n  driver = redirect\n  data = :blackhole:\n";

/// Exim in a host, from a folder of its own. Its user exists in that host alone.
fn exim(host: &Host, root: &Path) -> Running {
    for (file, line) in
        [("passwd", "Debian-exim:x:13:13::/nonexistent:/bin/false\n"), ("group", "Debian-exim:x:13:\n")]
    {
        host.write_etc(file, &(fs::read_to_string(Path::new("/etc").join(file)).unwrap() + line));
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("spool")).unwrap();
    for path in [root.to_owned(), root.join("spool")] {
        chown(path, Some(13), Some(13)).unwrap();
    }
    let conf = root.join("exim.conf");
    fs::write(&conf, EXIM.replace("ROOT", &root.display().to_string())).unwrap();
    let program = peer_package("exim4-daemon-light").join("usr/sbin/exim4");
    let running = host.start(&program.display().to_string(), &["-bdf", "-C", &conf.display().to_string()]);
    wait_for("Exim to listen", || host.connect((host.ip, 25).into()).ok());
    running
}

#[test]
fn exim_takes_refuses_and_defers_by_recipient() {
    if !is_root("hosts with a DNS") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut network = Network::new();
    let host = network.host("exim.example.net");
    network.zone("example.net", "@ MX 10 exim");
    network.zone("example.org", "");
    let _exim = exim(&host, folder.path());
    let client = network.host("mail.example.org");
    let site = Builder::new()
        .on(&client)
        .main("mynetworks = 192.0.2.0/24")
        .main("mydestination =")
        .main("smtp_connection_cache_destinations = example.net")
        .main("smtp_destination_recipient_limit = 50")
        .master("smtp unix - - n - - smtp")
        .start();
    let log = || fs::read_to_string(folder.path().join("log-mainlog")).unwrap_or_default();
    let recipients = ["ann@example.net", "nobody@example.net", "later@example.net", "bob@example.net"];
    send(client.smtp(client.ip), &recipients, NOTE);
    site.wait_for_log(&[
        "to=<ann@example.net>, relay=exim.example.net[",
        "dsn=2.0.0, status=sent (250 OK id=",
    ]);
    site.wait_for_log(&["to=<bob@example.net>", "status=sent (250 OK id="]);
    site.wait_for_log(&[
        "to=<nobody@example.net>",
        "dsn=5.0.0, status=bounced (host exim.example.net[",
        "said: 550 no such user here (in reply to RCPT TO command))",
    ]);
    site.wait_for_log(&[
        "to=<later@example.net>",
        "dsn=4.0.0, status=deferred (host exim.example.net[",
        "said: 451 come again (in reply to RCPT TO command))",
    ]);
    assert_eq!(log().matches("<= joe@example.com").count(), 1, "{}", log());
    // What it refuses after the content; and an address and header in UTF-8.
    send(client.smtp(client.ip), &["ann@example.net"], "Subject: unwanted\r\n\r\nx\r\n");
    site.wait_for_log(&[
        "status=bounced (host exim.example.net",
        "said: 550 unwanted (in reply to end of DATA command))",
    ]);
    let mut smtp = client.smtp(client.ip);
    smtp.expect("EHLO client.example", 250);
    smtp.expect("MAIL FROM:<jürgen@example.com> SMTPUTF8 BODY=8BITMIME", 250);
    smtp.expect("RCPT TO:<grüße@example.net>", 250);
    smtp.expect("DATA", 354);
    smtp.expect("Subject: ü\r\n\r\nö\r\n.", 250);
    site.wait_for_log(&["to=<grüße@example.net>", "status=sent (250 OK id="]);
    assert!(log().contains("<= jürgen@example.com"), "{}", log());
    // The same session serves again; what the sender of a bounce gets goes elsewhere.
    site.wait_for_log(&["relay=exim.example.net", "conn_use=2"]);
}

#[test]
fn postfix_takes_what_it_offers_to_take() {
    if !is_root("real Postfix") {
        return;
    }
    let theirs = Postfix::start(&[
        "mydestination =",
        "mynetworks = 127.0.0.0/8",
        "virtual_mailbox_domains = box.example",
        "virtual_mailbox_maps = inline:{ { ann@box.example = ann/ }, { bob@box.example = bob/ } }",
        "virtual_mailbox_base = $root/mail",
        "virtual_uid_maps = static:65534",
        "virtual_gid_maps = static:65534",
        "message_size_limit = 20000",
    ]);
    let site = Builder::new()
        .main(&format!("relayhost = [127.0.0.1]:{}", theirs.port))
        .main("relay_domains = box.example")
        .master("smtp unix - - n - - smtp")
        .master("relay unix - - n - - smtp")
        .start();
    send(
        site.smtp(),
        &["ann@box.example", "nobody@box.example", "bob@box.example"],
        "Subject: x\r\n\r\n..dots\r\n",
    );
    site.wait_for_log(&["to=<ann@box.example>", "status=sent (250 2.0.0 Ok: queued as "]);
    let mail = theirs.wait_for_mail("ann", 1);
    assert!(String::from_utf8_lossy(&mail[0]).ends_with("\n.dots\n"));
    let _ = theirs.wait_for_mail("bob", 1);
    site.wait_for_log(&["to=<nobody@box.example>", "dsn=5.1.1, status=bounced"]);
    // It is too large: refused here, before anything is said.
    let large = "Subject: x\r\n\r\n".to_owned() + &"0123456789 0123456789\r\n".repeat(1500);
    send(site.smtp(), &["ann@box.example"], &large);
    site.wait_for_log(&[
        "to=<ann@box.example>",
        "dsn=5.3.4, status=bounced (message size ",
        " exceeds size limit 20000 of server ",
    ]);
    assert!(!theirs.log().contains("size limit"), "{}", theirs.log());
}

/// A site whose relay says strange things.
fn site_with(server: &Scripted, lines: &[&str]) -> Instance {
    let builder = lines.iter().fold(Builder::new(), |builder, line| builder.main(line));
    builder
        .main(&format!("relayhost = [127.0.0.1]:{}", server.address.port()))
        .main("smtp_connection_cache_on_demand = no")
        .main("minimal_backoff_time = 1s")
        .main("maximal_backoff_time = 2s")
        .main("queue_run_delay = 1s")
        .master("smtp unix - - n - - smtp")
        .start()
}

#[test]
fn what_a_server_has_taken_is_not_sent_again() {
    let taken = "250 2.0.0 taken";
    for odd in [
        &[(".", "250 2.0.0 taken!")][..],
        &[("QUIT", "!")],
        &[("QUIT", "garbage")],
        &[("QUIT", "...")],
        &[("QUIT", "421 4.3.0 no")],
        // Replies that belong to nothing, and one of many lines.
        &[(".", "250 2.0.0 taken\n250 2.0.0 once more")],
        &[
            ("EHLO", "250-s.example\n250-PIPELINING\n250 DSN"),
            (".", "250-2.0.0 a\n250-2.0.0 b\n250 2.0.0 taken!"),
        ],
    ] {
        let server = Scripted::start(odd);
        let site = site_with(&server, &["smtp_quit_timeout = 1s", "smtp_skip_quit_response = no"]);
        send(site.smtp(), &["one@box.example", "two@box.example"], NOTE);
        site.wait_for_empty_queue();
        wait_for("both results", || (site.log().matches("status=sent (").count() == 2).then_some(()));
        assert!(site.log().contains(taken), "{}", site.log());
        assert_eq!((server.count("\r\n.\r\n"), server.sessions().len()), (1, 1), "{odd:?}");
    }
}

#[test]
fn nothing_that_a_server_says_ends_the_client_or_loses_mail() {
    let huge = "250-5.5.5 ".to_owned() + &"x".repeat(500) + "\n";
    let (many, long) = (huge.repeat(2000) + "250 end", "250 ".to_owned() + &"y".repeat(1_000_000));
    for (to, reply) in [
        ("CONNECT", "SSH-2.0-OpenSSH_9.2"),
        ("CONNECT", "\u{0}\u{1}\u{2}"),
        ("CONNECT", "999 high"),
        ("CONNECT", "22 short"),
        ("EHLO", "250-mixed\n550 codes"),
        ("EHLO", "250 a\u{0}b"),
        ("MAIL", "354 what?"),
        ("RCPT", "-1"),
        ("DATA", "250 done"),
        (".", "354 more"),
        (".", "xyz"),
        ("EHLO", &many),
        (".", &many),
        ("MAIL", &long),
        ("CONNECT", "421 4.3.2 not now!"),
        ("EHLO", "421 4.3.2 not now!"),
        ("MAIL", "421 4.3.2 not now!"),
        ("RCPT", "421 4.3.2 not now!"),
        ("DATA", "421 4.3.2 not now!"),
        (".", "421 4.3.2 not now!"),
        (".", "!"),
    ] {
        let server = Scripted::start(&[(to, reply)]);
        // What is no reply is read over, until the time for one has passed.
        let stages = ["helo", "mail", "rcpt", "data_init", "data_done"];
        let limits = stages.map(|stage| format!("smtp_{stage}_timeout = 5s"));
        let site = site_with(&server, &limits.each_ref().map(String::as_str));
        send(site.smtp(), &["one@box.example"], NOTE);
        let shown: String = reply.chars().take(40).collect();
        let line = site.wait_for_log(&["to=<one@box.example>", "status="]);
        assert!(line.len() < 6000, "{to} {shown}: a line of {} bytes", line.len());
        let decided =
            ["status=sent", "status=deferred", "status=bounced"].iter().any(|word| line.contains(word));
        assert!(decided, "{line}");
        if reply.starts_with("421") || reply == "!" {
            assert!(line.contains("status=deferred"), "{line}");
        }
        if line.contains("deferred") {
            // Where it recovers, the mail arrives.
            server.say(&[]);
            site.try_all();
            site.wait_for_log(&["to=<one@box.example>", "status=sent"]);
        }
        assert!(!site.log().contains("panic"), "{to} {shown}: {}", site.log());
    }
}

#[test]
fn content_goes_in_chunks_where_that_saves_a_round_trip() {
    let server = Scripted::start(&[("EHLO", "250-s.example\n250-8BITMIME\n250 CHUNKING")]);
    let site = site_with(&server, &[]);
    let body = ".dots stay\r\n0123456789 0123456789 0123456789 0123456789\r\n".repeat(20_000);
    let stuffed = format!("first\r\n{body}").replace("\r\n.", "\r\n..");
    send(site.smtp(), &["one@box.example"], &format!("Subject: x\r\n\r\n{stuffed}"));
    site.wait_for_log(&["to=<one@box.example>", "status=sent"]);
    let session = server.sessions().remove(0);
    assert!(session.contains("BDAT ") && session.contains(" LAST\r\n") && !session.contains("DATA\r\n"));
    let content = unchunked(&session);
    let (_, content) = content.split_once("\r\n\r\nfirst\r\n").unwrap();
    assert!(content == body, "{} bytes of {}", content.len(), body.len());
}

/// The content that went by BDAT.
fn unchunked(session: &str) -> String {
    let mut content = String::new();
    let mut rest = session;
    while let Some((_, after)) = rest.split_once("BDAT ") {
        let (command, after) = after.split_once("\r\n").unwrap();
        let size: usize = command.split(' ').next().unwrap().parse().unwrap();
        content += &after[..size];
        rest = &after[size..];
    }
    content
}

const DOVECOT: &str = "base_dir = $root/dovecot/run\nstate_dir = $root/dovecot/state\nlog_path = $root/dovecot/log\n\
    protocols = lmtp\nssl = no\nmail_location = maildir:$root/dovecot/mail/%n\nfirst_valid_uid = 1\nmail_plugins = quota\n\
    plugin {\n  quota = count:User quota\n  quota_vsizes = yes\n  quota_rule = *:storage=100M\n  quota_grace = 0\n}\n\
    passdb {\n  driver = static\n  args = nopassword=y\n}\n\
    userdb {\n  driver = passwd-file\n  args = $root/etc/dovecot.users\n}\n\
    service lmtp {\n  unix_listener $root/dovecot/lmtp {\n    mode = 0666\n  }\n\
      inet_listener lmtp {\n    address = 127.0.0.1\n    port = PORT\n  }\n}\n";

struct Dovecot(Child);

impl Drop for Dovecot {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn dovecot_answers_for_each_recipient_over_either_socket() {
    if !is_root("Dovecot") {
        return;
    }
    let port = free_port();
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("nobody");
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let user = |name: &str, more: &str| format!("{name}@box.example::{uid}:{gid}::/nonexistent::{more}\n");
    let users = user("ann", "") + &user("full", "userdb_quota_rule=*:bytes=1") + &user("bob", "");
    let site = Builder::new()
        .as_root()
        .main(&format!(
            "transport_maps = inline:{{ {{ tcp.example = lmtp:inet:127.0.0.1:{port} }}, {{ box.example = lmtp:unix:$root/dovecot/lmtp }} }}"
        ))
        .main("virtual_alias_maps = regexp:{{/^(.*)@over-tcp\\.example$$/ $$1@tcp.example}}")
        .main("lmtp_generic_maps = regexp:{{/^(.*)@tcp\\.example$$/ $$1@box.example}}")
        .main("lmtp_destination_recipient_limit = 50")
        .master("lmtp unix - - n - - lmtp")
        .file("dovecot.conf", &DOVECOT.replace("PORT", &port.to_string()))
        .file("dovecot.users", &users)
        .start();
    for folder in ["dovecot", "dovecot/run", "dovecot/state", "dovecot/mail"] {
        fs::create_dir(site.path(folder)).unwrap();
    }
    chown(site.path("dovecot/mail"), Some(uid), Some(gid)).unwrap();
    let mut dovecot = peer("dovecot");
    dovecot.args(["-F", "-c", &site.path("etc/dovecot.conf").display().to_string()]);
    let _dovecot = Dovecot(dovecot.stdin(Stdio::null()).spawn().unwrap());
    wait_for("Dovecot to listen", || site.path("dovecot/lmtp").exists().then_some(()));
    for (domain, relay) in [("box.example", "dovecot/lmtp]"), ("tcp.example", "relay=127.0.0.1[127.0.0.1]:")]
    {
        let all = ["ann", "full", "bob", "gone"].map(|name| format!("{name}@{domain}"));
        send(site.smtp(), &all.each_ref().map(String::as_str), NOTE);
        for name in ["ann", "bob"] {
            site.wait_for_log(&[&format!("to=<{name}@{domain}>"), relay, "status=sent (250 2.0.0 "]);
        }
        site.wait_for_log(&[
            &format!("to=<full@{domain}>"),
            relay,
            "dsn=5.2.2, status=bounced",
            "uota exceeded",
        ]);
        site.wait_for_log(&[
            &format!("to=<gone@{domain}>"),
            relay,
            "dsn=5.1.1, status=bounced",
            "(in reply to RCPT TO command)",
        ]);
    }
    let count =
        |name: &str| fs::read_dir(site.path(&format!("dovecot/mail/{name}/new"))).map_or(0, Iterator::count);
    assert_eq!([count("ann"), count("bob"), count("full")], [2, 2, 0]);
}
