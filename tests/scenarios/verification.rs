//! Address verification: what a probe finds out at the next mail system decides about mail here.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use scenarios::{Builder, Postfix, Smtp, is_root};

const SERVICES: &str = "verify unix - - n - 1 verify\nsmtp unix - - n - - smtp";

/// A mail server that knows `good`, refuses `bad` for good and `later` for now, and never answers about `slow`. It keeps
/// what it was told.
fn remote() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = Arc::clone(&shared);
            std::thread::spawn(move || drop(answer(&stream, &heard)));
        }
    });
    (port, heard)
}

fn answer(stream: &TcpStream, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut out = stream;
    out.write_all(b"220 remote.example ESMTP\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        heard.lock().unwrap().push(line.clone());
        let reply = match line.to_ascii_lowercase() {
            line if line.starts_with("rcpt") && line.contains("bad") => "550 5.1.1 <bad> nobody here\r\n",
            line if line.starts_with("rcpt") && line.contains("later") => "451 4.2.1 come again\r\n",
            line if line.starts_with("rcpt") && line.contains("slow") => continue,
            line if line.starts_with("data") => "354 go\r\n",
            line if line.starts_with("quit") => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        out.write_all(reply.as_bytes())?;
    }
    Ok(())
}

fn settings(port: u16) -> [String; 8] {
    [
        "myhostname = mail.example.com".to_owned(),
        format!(
            "address_verify_transport_maps = inline:{{ {{ remote.example = smtp:[127.0.0.1]:{port} }} }}"
        ),
        "relay_domains = remote.example".to_owned(),
        "local_recipient_maps = inline:{ anyone=x }".to_owned(),
        "smtpd_recipient_restrictions = reject_unverified_sender, check_recipient_access \
         inline:{ anyone@mail.example.com=OK }, reject_unverified_recipient"
            .to_owned(),
        "unverified_recipient_reject_code = 550".to_owned(),
        "unverified_sender_reject_code = 553".to_owned(),
        "address_verify_poll_delay = 1s".to_owned(),
    ]
}

/// The replies to RCPT about each address: as recipient, then as sender.
fn replies(mut smtp: Smtp) -> Vec<String> {
    let mut replies = Vec::new();
    let shown = |reply: scenarios::Reply| format!("{} {}", reply.code, reply.text());
    smtp.expect("EHLO client.example", 250);
    for name in ["good", "bad", "later", "slow"] {
        smtp.expect("MAIL FROM:<>", 250);
        replies.push(shown(smtp.command(&format!("RCPT TO:<{name}@remote.example>"))));
        smtp.expect("RSET", 250);
        smtp.expect(&format!("MAIL FROM:<{name}-sender@remote.example>"), 250);
        replies.push(shown(smtp.command("RCPT TO:<anyone@mail.example.com>")));
        smtp.expect("RSET", 250);
    }
    replies
}

#[test]
fn unverified_addresses_are_refused_in_postfix_words() {
    let (port, heard) = remote();
    let lines = settings(port);
    let builder = lines.iter().fold(Builder::new().master(SERVICES), |builder, line| builder.main(line));
    let site = builder.main("address_verify_map = btree:$data_directory/verify_cache").start();
    let ours = replies(site.smtp());
    assert!(ours[0].starts_with("250 "), "{ours:?}");
    let reason = "host 127.0.0.1[127.0.0.1] said: 550 5.1.1 <bad> nobody here (in reply to RCPT TO command)";
    assert_eq!(
        ours[2],
        format!(
            "550 5.1.1 <bad@remote.example>: Recipient address rejected: undeliverable address: {reason}"
        )
    );
    assert!(ours[3].starts_with(
        "553 5.1.7 <bad-sender@remote.example>: Sender address rejected: undeliverable address: host"
    ));
    assert!(ours[4].starts_with(
        "450 4.1.1 <later@remote.example>: Recipient address rejected: unverified address: host"
    ));
    let progress = "unverified address: Address verification in progress";
    assert_eq!(ours[6], format!("450 4.1.1 <slow@remote.example>: Recipient address rejected: {progress}"));
    site.wait_for_log(&["to=<good@remote.example>", "status=deliverable (250 ok)"]);
    site.wait_for_log(&["to=<bad@remote.example>", "status=undeliverable (host"]);
    assert!(!heard.lock().unwrap().iter().any(|line| line.to_ascii_lowercase().starts_with("data")));
    assert!(heard.lock().unwrap().iter().any(|line| line.contains("MAIL FROM:<double-bounce@")));
    if is_root("the comparison with Postfix") {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let theirs = replies(Postfix::start(&lines).smtp());
        assert_eq!(ours, theirs);
    }
}

#[test]
fn what_was_found_out_outlives_a_restart() {
    let (port, heard) = remote();
    let lines = settings(port);
    let builder = lines.iter().fold(Builder::new().master(SERVICES), |builder, line| builder.main(line));
    let site = builder.start();
    let ask = || {
        let mut smtp = site.smtp();
        smtp.expect("EHLO client.example", 250);
        smtp.expect("MAIL FROM:<>", 250);
        smtp.expect("RCPT TO:<bad@remote.example>", 550);
        smtp.expect("QUIT", 221);
    };
    let asked = || heard.lock().unwrap().iter().filter(|line| line.starts_with("RCPT")).count();
    ask();
    ask();
    assert_eq!(asked(), 1);
    site.postroad(&["reload"]).ok();
    ask();
    site.postroad(&["stop"]).ok();
    site.start();
    ask();
    assert_eq!(asked(), 1);
    site.wait_for_empty_queue();
}

#[test]
fn the_sender_of_probes_is_taken_and_goes_nowhere_and_aliases_count_as_one() {
    let (port, _) = remote();
    let lines = settings(port);
    let builder = lines.iter().fold(Builder::new().master(SERVICES), |builder, line| builder.main(line));
    let site = builder
        .main("virtual_alias_maps = inline:{ { both@mail.example.com = good@remote.example, bad@remote.example } }")
        .start();
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    assert_eq!(
        smtp.message("", &["double-bounce@mail.example.com", "both@mail.example.com"], "Subject: x\r\n\r\n")
            .code,
        250
    );
    site.wait_for_log(&[
        "to=<double-bounce@mail.example.com>",
        "status=sent (undeliverable postmaster notification discarded)",
    ]);
}

#[test]
fn without_the_service_mail_is_put_off() {
    let (port, _) = remote();
    let lines = settings(port);
    let site = lines.iter().fold(Builder::new(), |builder, line| builder.main(line)).start();
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    smtp.expect("MAIL FROM:<>", 250);
    assert_eq!(
        smtp.expect("RCPT TO:<good@remote.example>", 450).text(),
        "4.1.1 <good@remote.example>: Recipient address rejected: address verification problem"
    );
    site.wait_for_log(&["smtpd[", "verify service failure"]);
}
