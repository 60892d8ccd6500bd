//! Limits, patience, and clients who try to smuggle.

use std::net::TcpStream;

use scenarios::{Instance, Postfix, Reply, Smtp, is_root, messages};

use crate::site::{NOTE, greeted, only_mail, usual};

const ANN: &str = "ann@box.example.com";

/// A client whose mail to Ann may begin: everything up to 354 is said.
fn in_data(site: &Instance) -> Smtp {
    let mut client = greeted(site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect(&format!("RCPT TO:<{ANN}>"), 250);
    client.expect("DATA", 354);
    client
}

fn assert_starts(reply: &Reply, text: &str) {
    assert!(reply.text().starts_with(text), "{reply:?} instead of {text}");
}

#[test]
fn a_message_that_is_too_big_is_refused_early_and_late() {
    let site = usual().main("message_size_limit = 20000").start();
    let mut client = site.smtp();
    assert!(client.expect("EHLO client.example", 250).lines.contains(&"SIZE 20000".to_owned()));
    assert_starts(&client.expect("MAIL FROM:<jane@client.example> SIZE=20001", 552), "5.3.4 ");
    let mut client = in_data(&site);
    client.send_raw(&b"0123456789\r\n".repeat(5000));
    assert_starts(&client.expect(".", 552), "5.3.4 ");
    assert_eq!(client.message("jane@client.example", &[ANN], NOTE).code, 250);
    only_mail(&site, "ann");
    let output = site.run("sendmail", &[site.user()], &"0123456789\n".repeat(5000));
    assert!(output.status != 0 && output.stderr.contains("message file too big"), "{output:?}");
    site.wait_for_empty_queue();
}

#[test]
fn too_many_recipients_are_refused_and_the_others_served() {
    let site = usual().main("smtpd_recipient_limit = 3").main("smtpd_recipient_overshoot_limit = 2").start();
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    (0..3).for_each(|_| drop(client.expect(&format!("RCPT TO:<{ANN}>"), 250)));
    (0..3).for_each(|_| assert_starts(&client.expect("RCPT TO:<admin@lists.example.com>", 452), "4.5.3 "));
    client.expect("DATA", 354);
    client.send_raw(NOTE.as_bytes());
    client.expect(".", 250);
    only_mail(&site, "ann");
    assert!(messages(&site.maildir(site.user())).is_empty());
}

#[test]
fn a_client_that_only_makes_mistakes_is_sent_away() {
    let site = usual().main("smtpd_hard_error_limit = 5").main("smtpd_soft_error_limit = 3").start();
    let mut client = greeted(&site);
    let codes: Vec<u16> = (0..6).map_while(|_| Some(client.try_command("NONSENSE")?.code)).collect();
    assert_eq!(codes, [500, 500, 500, 500, 500, 421]);
    site.wait_for_log(&["too many errors after UNKNOWN from localhost[127.0.0.1]"]);
}

#[test]
fn a_client_that_only_chats_is_sent_away() {
    let site = usual().main("smtpd_junk_command_limit = 3").main("smtpd_hard_error_limit = 3").start();
    let mut client = greeted(&site);
    let codes: Vec<u16> = (0..20).map_while(|_| Some(client.try_command("NOOP")?.code)).collect();
    assert_eq!(codes.last(), Some(&421), "{codes:?}");
}

#[test]
fn a_silent_client_is_sent_away() {
    let site = usual().main("smtpd_timeout = 5s").start();
    let mut client = greeted(&site);
    assert_starts(&client.read_reply(), "4.4.2 ");
    assert_eq!(client.try_read_reply(), None);
    site.wait_for_log(&["timeout after EHLO from localhost[127.0.0.1]"]);
}

#[test]
fn a_client_that_falls_silent_within_a_message_leaves_nothing() {
    let site = usual().main("smtpd_timeout = 5s").start();
    let mut client = in_data(&site);
    client.send_raw(b"Subject: half\r\n\r\nThe first");
    assert_eq!(client.read_reply().code, 421);
    site.wait_for_log(&["timeout after DATA"]);
    site.wait_for_empty_queue();
    assert!(messages(&site.maildir("ann")).is_empty());
}

#[test]
fn a_command_without_end_is_no_danger() {
    let site = usual().main("smtpd_timeout = 5s").start();
    let mut client = greeted(&site);
    for _ in 0..2000 {
        if !client.try_send_raw(&[b'a'; 1000]) {
            break;
        }
    }
    client.try_send_raw(b"\r\n");
    assert!(client.try_read_reply().is_none_or(|reply| reply.code >= 500 || reply.code == 421));
    greeted(&site).expect("NOOP", 250);
}

#[test]
fn so_many_clients_of_one_address_and_no_more() {
    let site = usual()
        .main("smtpd_client_connection_count_limit = 2")
        .main("smtpd_client_event_limit_exceptions =")
        .start();
    let first = greeted(&site);
    let _second = greeted(&site);
    let mut third = Smtp::connect_silently(site.port);
    assert_starts(&third.read_reply(), "4.7.0 mail.example.com Error: too many connections");
    drop(first);
    scenarios::wait_for("a place to become free", || {
        (Smtp::connect_silently(site.port).try_read_reply()?.code == 220).then_some(())
    });
}

/// Every end of content that some mail system was found to take for one; each is followed by a second message.
const SMUGGLED: [&str; 12] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\n.\r",
    "\r\r\n.\r\r\n",
    "\r\n\x00.\r\n",
    "\r\n.\x00\r\n",
    "\n\n.\n\n",
    "\r\n\x0b.\r\n",
];

#[test]
fn no_second_message_is_smuggled_in() {
    // This client would be excepted: it is in mynetworks.
    let site = usual().main("smtpd_forbid_bare_newline_exclusions =").start();
    for end in SMUGGLED {
        let mut client = in_data(&site);
        let second = format!(
            "MAIL FROM:<admin@example.com>\r\nRCPT TO:<{ANN}>\r\nDATA\r\nSubject: smuggled\r\n\r\nBoo."
        );
        client.send_raw(format!("Subject: outer\r\n\r\nHello.{end}{second}\r\n.\r\n").as_bytes());
        assert_eq!(client.read_reply().code, 250, "{end:?}");
        client.expect("QUIT", 221);
    }
    let mails = site.wait_for_mail("ann", SMUGGLED.len());
    site.wait_for_empty_queue();
    assert_eq!(messages(&site.maildir("ann")).len(), SMUGGLED.len());
    for mail in mails {
        let text = String::from_utf8_lossy(&mail).into_owned();
        assert!(
            text.contains("\nSubject: outer\n")
                && text.contains("\n\nHello.")
                && text.starts_with("Return-Path: <jane@"),
            "{text}"
        );
    }
}

#[test]
fn bare_newlines_can_be_refused_altogether() {
    let site = usual()
        .main("smtpd_forbid_bare_newline_exclusions =")
        .main("smtpd_forbid_bare_newline = reject")
        .start();
    let mut client = in_data(&site);
    client.send_raw(b"Subject: outer\n\nHello.\r\n");
    assert_starts(&client.expect(".", 550), "5.5.2 ");
    site.wait_for_empty_queue();
}

#[test]
fn commands_that_come_too_early_are_refused() {
    let site = usual().main("smtpd_forbid_unauth_pipelining = yes").start();
    let mut early = Smtp::connect_silently(site.port);
    early.send_raw(b"EHLO client.example\r\nMAIL FROM:<jane@client.example>\r\n");
    let codes: Vec<u16> = std::iter::from_fn(|| Some(early.try_read_reply()?.code)).take(3).collect();
    assert!(codes.contains(&554), "{codes:?}");
    site.wait_for_log(&["improper command pipelining after "]);
    let mut client = greeted(&site);
    client.send_raw(format!("MAIL FROM:<jane@client.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n").as_bytes());
    assert_eq!([250, 250, 354].map(|_| client.read_reply().code), [250, 250, 354]);
}

#[test]
fn mail_that_goes_in_circles_is_ended() {
    let site = usual().main("hopcount_limit = 5").start();
    let hops = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n".repeat(6);
    let reply = greeted(&site).message("jane@client.example", &[ANN], &format!("{hops}{NOTE}"));
    assert_eq!(reply.code, 554, "{reply:?}");
    assert_starts(&reply, "5.4.0 Error: too many hops");
    let local = format!("{}@example.com", site.user());
    let again = format!("Delivered-To: {local}\r\n{NOTE}");
    assert_eq!(greeted(&site).message("", &[&local], &again).code, 250);
    site.wait_for_log(&["dsn=5.4.6, status=bounced (mail forwarding loop for "]);
    site.wait_for_empty_queue();
}

/// A second message that hides behind an end of content which only one of two mail systems might see.
fn smuggle(client: &mut Smtp, end: &str) {
    client.expect("EHLO client.example", 250);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect(&format!("RCPT TO:<{ANN}>"), 250);
    client.expect("DATA", 354);
    let second =
        format!("MAIL FROM:<admin@example.com>\r\nRCPT TO:<{ANN}>\r\nDATA\r\nSubject: smuggled\r\n\r\nBoo.");
    client.send_raw(format!("Subject: outer\r\n\r\nHello.{end}{second}\r\n.\r\n").as_bytes());
    assert_eq!(client.read_reply().code, 250, "{end:?}");
    client.expect("QUIT", 221);
}

fn assert_only_outer(mails: &[Vec<u8>]) {
    assert_eq!(mails.len(), SMUGGLED.len());
    for mail in mails {
        let text = String::from_utf8_lossy(mail).into_owned();
        assert!(text.contains("\nSubject: outer\n") && text.starts_with("Return-Path: <jane@"), "{text}");
    }
}

/// Postroad sends to Postfix, and Postfix to Postroad; who receives is as lax as its parameter allows, for a careful sender must
/// be enough.
#[test]
fn nothing_is_smuggled_through_two_mail_systems() {
    if !is_root("nothing_is_smuggled_through_two_mail_systems") {
        return;
    }
    let lax = "smtpd_forbid_bare_newline = no";
    let strict = ["smtpd_forbid_bare_newline = normalize", "smtpd_forbid_bare_newline_exclusions ="];
    let mailbox = [
        "mydestination =",
        "virtual_mailbox_domains = box.example.com",
        "virtual_mailbox_base = $root/mail",
        "virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ } }",
        "virtual_uid_maps = static:65534",
        "virtual_gid_maps = static:65534",
        "virtual_minimum_uid = 1",
    ];
    let theirs = Postfix::start(&[&mailbox[..], &["myhostname = peer.example", lax]].concat());
    let relay = scenarios::Builder::new()
        .main(&strict.join("\n"))
        .main(&format!("mydestination =\nrelayhost = [127.0.0.1]:{}", theirs.port))
        .master("smtp unix - - n - - smtp")
        .start();
    let ours = usual().main(lax).start();
    let relayhost = format!("relayhost = [127.0.0.1]:{}", ours.port);
    let sending = ["myhostname = relay.example", "mydestination =", &relayhost];
    let their_relay = Postfix::start(&[&sending[..], &strict].concat());
    for end in SMUGGLED {
        smuggle(&mut relay.smtp(), end);
        smuggle(&mut their_relay.smtp(), end);
    }
    ours.wait_for_mail("ann", SMUGGLED.len());
    relay.wait_for_empty_queue();
    ours.wait_for_empty_queue();
    assert_only_outer(&theirs.wait_for_mail("ann", SMUGGLED.len()));
    assert_only_outer(&messages(&ours.maildir("ann")));
}

#[test]
fn mail_passes_where_the_system_allows_few_open_files() {
    for (limit, is_final) in [("-Sn 64", false), ("-n 128", true)] {
        let unlimited = "smtpd_client_connection_count_limit = 0\ndefault_process_limit = 300";
        let site = usual().main(unlimited).prepare();
        let under = |command: &str| {
            let mut shell = site.command("bash");
            let program = site.path("sbin/postroad");
            shell.args(["-c", &format!("ulimit {limit}; exec {} {command}", program.display())]);
            scenarios::run(shell, b"").ok()
        };
        // The soft limit is raised to the hard one, and so is no reason for a word.
        let said = under("check");
        let said = said.stdout + &said.stderr;
        assert_eq!(
            said.contains("open files, and the system allows a process 128: raise"),
            is_final,
            "{said}"
        );
        under("start");
        let held: Vec<_> =
            (0..150).map_while(|_| TcpStream::connect(("127.0.0.1", site.port)).ok()).collect();
        if is_final {
            site.wait_for_log(&["smtpd[", "sessions need up to", "open files"]);
            site.wait_for_log(&[
                "smtpd[",
                &format!(
                    "warning: accept connection at 127.0.0.1:{}: Too many open files; trying again",
                    site.port
                ),
            ]);
        }
        drop(held);
        assert_eq!(greeted(&site).message("jane@client.example", &[ANN], NOTE).code, 250);
        only_mail(&site, "ann");
    }
}
