//! postscreen's work: who is let to a session, what the others are told, and what the log says of them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use scenarios::{Builder, Host, Instance, Network, Postfix, Smtp, free_port, is_root, wait_for};

/// The port that is screened, in the test network.
const SCREENED: u16 = 2525;

/// master.cf as existing configurations have it.
pub(crate) fn services(listener: &str) -> String {
    format!(
        "{listener} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n\
         dnsblog unix - - n - 0 dnsblog\ntlsproxy unix - - n - 0 tlsproxy\n"
    )
}

/// A screened port of this host, for whose clients nothing is known.
fn screened(settings: &[&str]) -> (Instance, u16) {
    let port = free_port();
    let builder = Builder::new().main("postscreen_access_list =").main("postscreen_greet_wait = 5s");
    let builder =
        builder.master(&services(&format!("127.0.0.1:{port}"))).master("anvil unix - - n - 1 anvil");
    (settings.iter().fold(builder, |builder, line| builder.main(line)).start(), port)
}

fn connect(port: u16) -> Smtp {
    Smtp::connect_silently(port)
}

/// A whole session, with one message.
fn deliver(port: u16) {
    let mut smtp = Smtp::connect(port);
    smtp.expect("EHLO client.example", 250);
    assert_eq!(smtp.message("a@b.example", &["nobody@example.com"], "Subject: x\r\n\r\nx\r\n").code, 250);
    smtp.expect("QUIT", 221);
}

#[test]
fn a_client_waits_once_and_is_known_then() {
    let (site, port) = screened(&[]);
    let began = Instant::now();
    deliver(port);
    assert!(began.elapsed() >= Duration::from_secs(5));
    site.wait_for_log(&["postscreen[", "CONNECT from [127.0.0.1]:", &format!("to [127.0.0.1]:{port}")]);
    site.wait_for_log(&["postscreen[", "PASS NEW [127.0.0.1]:"]);
    site.wait_for_log(&["smtpd[", "connect from localhost[127.0.0.1]"]);
    let mut smtp = connect(port);
    // There is no first half of the greeting.
    assert_eq!(smtp.read_reply().lines.len(), 1);
    site.wait_for_log(&["postscreen[", "PASS OLD [127.0.0.1]:"]);
    drop(smtp);
    site.postroad(&["stop"]).ok();
    site.start();
    assert_eq!(connect(port).read_reply().lines.len(), 1);
}

#[test]
fn who_speaks_too_early_is_told_at_each_recipient_and_never_gets_a_session() {
    let (site, port) = screened(&["postscreen_greet_action = enforce"]);
    let mut bot = connect(port);
    bot.send_raw(b"EHLO bot\r\n");
    assert_eq!(bot.read_reply().code, 220);
    assert_eq!(bot.read_reply().code, 250);
    bot.expect("MAIL FROM:<a@b.example>", 250);
    let refused = bot.expect("RCPT TO:<nobody@example.com>", 550);
    assert_eq!(refused.text(), "5.5.1 Protocol error");
    assert_eq!(bot.command("DATA").code, 554);
    site.wait_for_log(&["postscreen[", "PREGREET 10 after ", "from [127.0.0.1]:", ": EHLO bot\\r\\n"]);
    site.wait_for_log(&[
        "NOQUEUE: reject: RCPT from [127.0.0.1]:",
        ": 550 5.5.1 Protocol error; from=<a@b.example>, to=<nobody@example.com>, proto=ESMTP, helo=<bot>",
    ]);
    site.wait_for_log(&["postscreen[", "DISCONNECT [127.0.0.1]:"]);
    assert!(!site.log().contains("smtpd["), "{}", site.log());
}

#[test]
fn who_speaks_too_early_can_be_dropped_or_let_through() {
    let (site, port) = screened(&["postscreen_greet_action = drop"]);
    let mut bot = connect(port);
    bot.send_raw(b"EHLO bot\r\n");
    // One reply of two lines, of which the first said 220.
    assert!(bot.try_read_reply().is_some_and(|reply| reply.text().contains("5.5.1 Protocol error")));
    drop(site);
    let (site, port) = screened(&["postscreen_greet_action = ignore"]);
    let mut bot = connect(port);
    bot.send_raw(b"EHLO bot\r\n");
    assert_eq!(bot.read_reply().code, 220);
    site.wait_for_log(&["smtpd[", "connect from"]);
    assert!(!site.log().contains("PASS "));
}

#[test]
fn five_hundred_that_hang_keep_nobody_out() {
    let limits = [
        "postscreen_pre_queue_limit = 600",
        "postscreen_client_connection_count_limit = 0",
        "postscreen_greet_wait = 20s",
        "postscreen_access_list = inline:{127.0.0.2=permit}",
    ];
    let (site, port) = screened(&limits);
    let bots: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    wait_for("all bots to be seen", || (site.log().matches("CONNECT from").count() >= 500).then_some(()));
    let pid = site.pids("postscreen")[0];
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert!(threads < 20, "{threads} threads for {} clients under test", bots.len());
    // A client that is known comes in at once: from another address of this host.
    let mut good = Smtp::try_connect_from([127, 0, 0, 2].into(), port).unwrap();
    assert_eq!(good.read_reply().code, 220);
    good.expect("EHLO client.example", 250);
    site.wait_for_log(&["ALLOWLISTED [127.0.0.2]:"]);
    drop(bots);
}

#[test]
fn too_many_are_sent_away_at_once() {
    let (site, port) =
        screened(&["postscreen_client_connection_count_limit = 2", "postscreen_greet_wait = 20s"]);
    let _bots: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert_eq!(connect(port).read_reply().text(), "4.7.0 Error: too many connections");
    site.wait_for_log(&["NOQUEUE: reject: CONNECT from [127.0.0.1]:", ": too many connections"]);
    drop(site);
    let (site, port) = screened(&["postscreen_pre_queue_limit = 2", "postscreen_greet_wait = 20s"]);
    let _bots: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert_eq!(connect(port).read_reply().text(), "4.3.2 All screening ports are busy");
    site.wait_for_log(&["entering STRESS mode with 2 connections"]);
}

#[test]
fn who_is_banned_is_sent_away_before_any_test() {
    let (site, port) = screened(&[
        "postscreen_greet_wait = 20s",
        "postscreen_upstream_proxy_protocol = haproxy",
        "postscreen_access_list = inline:{192.0.2.7=permit}",
    ]);
    let began = Instant::now();
    let first_reply = |client: &str| {
        let mut smtp = connect(port);
        smtp.send_raw(format!("PROXY TCP4 {client} 192.0.2.1 1234 25\r\n").as_bytes());
        smtp.read_reply()
    };
    assert_eq!(first_reply("192.0.2.7").code, 220);
    site.postroad(&["ban", "add", "192.0.2.0/24", "a", "test"]).ok();
    for client in ["192.0.2.7", "192.0.2.8"] {
        wait_for("the ban to be known", || (first_reply(client).code == 421).then_some(()));
    }
    let said = first_reply("192.0.2.8").text();
    assert_eq!(said, "4.7.0 mail.example.com Error: 192.0.2.8 is refused for a time: a test");
    site.wait_for_log(&["postscreen[", "NOQUEUE: reject: CONNECT from [192.0.2.8]:1234: banned"]);
    assert!(!site.log().contains("PASS "), "{}", site.log());
    site.postroad(&["ban", "remove", "192.0.2.0/24"]).ok();
    wait_for("the ban to be lifted", || (first_reply("192.0.2.7").code == 220).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waited for a test");
}

#[test]
fn behind_a_proxy_the_clients_address_counts() {
    let (site, port) = screened(&[
        "postscreen_upstream_proxy_protocol = haproxy",
        "postscreen_access_list = inline:{192.0.2.7=permit, 192.0.2.8=reject}",
        "postscreen_denylist_action = drop",
    ]);
    let speak = |header: &str| {
        let mut smtp = connect(port);
        smtp.send_raw(header.as_bytes());
        smtp.try_read_reply().map(|reply| reply.code)
    };
    assert_eq!(speak("PROXY TCP4 192.0.2.7 192.0.2.1 1234 25\r\n"), Some(220));
    site.wait_for_log(&["CONNECT from [192.0.2.7]:1234 to [192.0.2.1]:25"]);
    site.wait_for_log(&["smtpd[", "connect from", "[192.0.2.7]"]);
    assert_eq!(speak("PROXY TCP4 192.0.2.8 192.0.2.1 1234 25\r\n"), Some(521));
    site.wait_for_log(&["DENYLISTED [192.0.2.8]:1234"]);
    assert_eq!(speak("EHLO client\r\n"), None);
}

#[test]
fn a_reload_lets_those_under_test_finish() {
    let (site, port) = screened(&[]);
    let mut client = connect(port);
    site.wait_for_log(&["CONNECT from"]);
    site.postroad(&["reload"]).ok();
    assert_eq!(client.read_reply().code, 220);
    client.expect("NOOP", 250);
    client.expect("QUIT", 221);
}

/// The lines of postscreen and dnsblog about each client, without what differs from one connection to the next.
fn told(log: &str, server: IpAddr) -> Vec<String> {
    let mut lines = Vec::new();
    for line in log.lines() {
        let Some((head, text)) = line.split_once("]: ") else { continue };
        let Some(program) = ["postscreen", "dnsblog"].iter().find(|p| head.contains(&format!("/{p}[")))
        else {
            continue;
        };
        if text.starts_with("warning:") || text.starts_with("cache ") {
            continue;
        }
        let mut shown = String::new();
        for word in text.split(' ') {
            let word = word.replace(&server.to_string(), "SERVER");
            let word = match word.split_once("]:") {
                Some((address, rest)) => {
                    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                    format!("{address}]:PORT{rest}")
                }
                None => word,
            };
            let after = shown.ends_with("after ");
            shown.push_str(if after && word.starts_with(|c: char| c.is_ascii_digit()) {
                "TIME"
            } else {
                &word
            });
            shown.push(' ');
        }
        lines.push(format!("{program}: {}", shown.trim_end()));
    }
    lines.sort();
    lines
}

/// What a client of each kind does, and hears.
fn visits(server: IpAddr, good: &Host, listed: &Host, denied: &Host) -> Vec<String> {
    let to = SocketAddr::new(server, SCREENED);
    let mut heard = Vec::new();
    for _ in 0..2 {
        let mut smtp = Smtp::over(good.connect(to).unwrap());
        smtp.read_reply();
        heard.push(smtp.expect("NOOP", 250).text());
        smtp.expect("QUIT", 221);
    }
    for bot in [listed, denied] {
        let mut smtp = Smtp::over(bot.connect(to).unwrap());
        smtp.read_reply();
        smtp.expect("EHLO bot.example", 250);
        smtp.expect("MAIL FROM:<a@b.example>", 250);
        let refused = smtp.expect("RCPT TO:<c@d.example>", 550);
        heard.push(refused.text());
        smtp.expect("QUIT", 221);
    }
    // One that speaks too early, and one that does not stay; both are under test until then.
    let mut early = denied.connect(to).unwrap();
    early.write_all(b"\x00GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = early.shutdown(std::net::Shutdown::Write);
    let _ = early.read_to_string(&mut text);
    drop(listed.connect(to).unwrap());
    heard
}

#[test]
fn block_lists_decide_and_the_log_is_postfix_own() {
    if !is_root("screening in a network") {
        return;
    }
    let mut network = Network::new();
    let [ours, theirs, good, listed, denied] =
        ["ours.example", "theirs.example", "good.example", "listed.example", "denied.example"]
            .map(|name| network.host(name));
    let reversed = |host: &Host| {
        let text = host.ip.to_string();
        text.split('.').rev().collect::<Vec<_>>().join(".")
    };
    network
        .zone("bl.example", &format!("{} A 127.0.0.4\n{} A 127.0.0.9", reversed(&listed), reversed(&good)));
    network.zone("wl.example", &format!("{} A 127.0.0.2", reversed(&good)));
    let access = format!("postscreen_access_list = inline:{{ {}=reject }}", denied.ip);
    let lines = [
        access.as_str(),
        "mynetworks = 127.0.0.0/8",
        "postscreen_greet_wait = 5s",
        "postscreen_greet_action = enforce",
        "postscreen_denylist_action = enforce",
        "postscreen_dnsbl_sites = bl.example=127.0.0.[4..5]*2, bl.example=127.0.0.9, wl.example*-1",
        "postscreen_dnsbl_threshold = 2",
        "postscreen_dnsbl_action = enforce",
        "postscreen_dnsbl_reply_map = inline:{ { bl.example = public.example } }",
    ];
    let master = services(&SCREENED.to_string());
    let builder = Builder::new().on(&ours).master(&master);
    let site = lines.iter().fold(builder, |builder, line| builder.main(line)).start();
    let postfix = Postfix::start_on_with(&theirs, &lines, &master);
    let (heard, heard_there) =
        (visits(ours.ip, &good, &listed, &denied), visits(theirs.ip, &good, &listed, &denied));
    assert_eq!(
        heard[2],
        format!("5.7.1 Service unavailable; client [{}] blocked using public.example", listed.ip)
    );
    assert_eq!(heard, heard_there);
    // The last client's end is the last line.
    let done = |log: &str| (log.matches("HANGUP").count() >= 2).then_some(());
    wait_for("our last line", || done(&site.log()));
    wait_for("Postfix' last line", || done(&postfix.log()));
    // How often a list is asked depends on when its answer was forgotten.
    let once = |mut lines: Vec<_>| {
        lines.dedup();
        lines
    };
    assert_eq!(once(told(&site.log(), ours.ip)), once(told(&postfix.log(), theirs.ip)));
}
