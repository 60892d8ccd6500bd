//! What stands at the front door: policy services of others, bans, limits of users, load balancers.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use scenarios::{Builder, Instance, Smtp, free_port, is_root, peer, wait_for};

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const POLICYD_SPF: &str = "/usr/bin/policyd-spf";

const ANVIL: &str = "anvil unix - - n - 1 anvil";

fn refused_recipients(site: &Instance, count: usize) {
    let mut client = site.smtp();
    client.expect("EHLO client.example", 250);
    client.expect("MAIL FROM:<a@b.example>", 250);
    for n in 0..count {
        client.expect(&format!("RCPT TO:<nobody{n}@example.com>"), 550);
    }
    client.expect("QUIT", 221);
}

fn first_reply(site: &Instance) -> u16 {
    Smtp::connect_silently(site.port).read_reply().code
}

#[test]
fn a_client_that_guesses_recipients_is_banned_until_the_operator_lifts_it() {
    let site = Builder::new()
        .main("smtpd_client_ban_unknown_recipients = 3")
        .main("smtpd_client_ban_exceptions =")
        .main("smtpd_error_sleep_time = 0")
        .master(ANVIL)
        .start();
    refused_recipients(&site, 3);
    site.wait_for_log(&["anvil[", "ban 127.0.0.1 for 3600 seconds: 3 unknown recipients within 600 seconds"]);
    wait_for("the ban to be known", || (first_reply(&site) == 421).then_some(()));
    site.wait_for_log(&["reject: CONNECT from unknown[127.0.0.1]: 421 4.7.0"]);
    assert!(site.postroad(&["ban", "list"]).ok().stdout.starts_with("127.0.0.1 "));
    site.postroad(&["reload"]).ok();
    assert_eq!(first_reply(&site), 421);
    site.postroad(&["stop"]).ok();
    site.start();
    assert_eq!(first_reply(&site), 421);
    site.postroad(&["ban", "remove", "127.0.0.1"]).ok();
    wait_for("the ban to be lifted", || (first_reply(&site) == 220).then_some(()));
    assert_ne!(site.postroad(&["ban", "remove", "127.0.0.1"]).status, 0);
    site.postroad(&["ban", "add", "127.0.0.0/8", "--for", "2h", "as", "a", "test"]).ok();
    wait_for("the ban to be known", || (first_reply(&site) == 421).then_some(()));
    assert!(site.postroad(&["ban", "list"]).ok().stdout.contains("as a test"));
}

#[test]
fn a_user_has_limits_and_the_postmaster_is_told_once() {
    let site = Builder::new()
        .main("smtpd_authorized_xclient_hosts = 127.0.0.1")
        .main("smtpd_user_messages_per_hour = 2")
        .main("smtpd_user_limit_notice_recipient = $user@example.com")
        .main("smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination")
        .master(ANVIL)
        .start();
    let mut client = site.smtp();
    client.expect("EHLO proxy.example", 250);
    client.expect("XCLIENT ADDR=192.0.2.1 NAME=client.example LOGIN=joe", 220);
    client.expect("EHLO client.example", 250);
    for _ in 0..2 {
        client.expect("MAIL FROM:<joe@example.com>", 250);
        client.expect("RSET", 250);
    }
    for _ in 0..3 {
        let reply = client.expect("MAIL FROM:<joe@example.com>", 450);
        assert_eq!(reply.lines, ["4.7.1 Error: the limit of 2 messages per hour of user joe is used up"]);
    }
    let mail = site.wait_for_mail(site.user(), 1);
    assert!(
        String::from_utf8_lossy(&mail[0])
            .contains("The user joe has used up the limit of 2 messages per hour")
    );
    site.wait_for_lines(&["postmaster notice about the limits"], 1);
}

#[test]
fn rates_hold_and_are_in_the_statistics() {
    let site = Builder::new()
        .main("smtpd_client_connection_rate_limit = 3")
        .main("smtpd_client_event_limit_exceptions =")
        .master(ANVIL)
        .start();
    let codes: Vec<u16> = (0..5).map(|_| first_reply(&site)).collect();
    assert_eq!(codes, [220, 220, 220, 421, 421]);
    site.wait_for_log(&["warning: Connection rate limit exceeded: 4 from", "for service 127.0.0.1:"]);
    // There is nothing that it would have to count.
    assert!(!site.postroad(&["status"]).stdout.contains("anvil pid"));
    site.postroad(&["stop"]).ok();
    site.wait_for_log(&["anvil[", "statistics: max connection rate 5/60s for (127.0.0.1:"]);
}

#[test]
fn a_load_balancer_says_whose_connection_it_is() {
    let site = Builder::new().main("smtpd_upstream_proxy_protocol = haproxy").start();
    let mut client = Smtp::connect_silently(site.port);
    client.send_raw(b"PROXY TCP4 192.0.2.7 192.0.2.9 4000 25\r\n");
    assert_eq!(client.read_reply().code, 220);
    client.expect("EHLO client.example", 250);
    site.wait_for_log(&["connect from unknown[192.0.2.7]"]);
    let mut stranger = TcpStream::connect(("127.0.0.1", site.port)).expect("connect");
    stranger.write_all(b"EHLO client.example\r\n").expect("write");
    site.wait_for_log(&["PROXY protocol: unexpected protocol header"]);
}

#[test]
fn postgrey_has_a_stranger_come_again() {
    if !is_root("postgrey") {
        return;
    }
    let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
    let mut postgrey: Command = peer("postgrey");
    postgrey.arg(format!("--inet=127.0.0.1:{port}")).arg(format!("--dbdir={}", folder.path().display()));
    postgrey.args(["--delay=1", "--user=root", "--group=root"]);
    let _running =
        Running(postgrey.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run postgrey"));
    wait_for("postgrey", || TcpStream::connect(("127.0.0.1", port)).ok());
    let site = Builder::new()
        .main("smtpd_authorized_xclient_hosts = 127.0.0.1")
        .main(&format!("smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service inet:127.0.0.1:{port}"))
        .start();
    let recipient = format!("{}@example.com", site.user());
    let knock = || {
        let mut client = site.smtp();
        client.expect("EHLO proxy.example", 250);
        client.expect("XCLIENT ADDR=192.0.2.1 NAME=client.example", 220);
        client.expect("EHLO client.example", 250);
        client.expect("MAIL FROM:<a@b.example>", 250);
        client.command(&format!("RCPT TO:<{recipient}>"))
    };
    let first = knock();
    assert_eq!(first.code, 450, "{first:?}");
    assert!(first.text().contains("Greylisted"), "{first:?}");
    wait_for("postgrey to be content", || (knock().code == 250).then_some(()));
}

#[test]
fn policyd_spf_adds_its_header_once() {
    if !is_root("policyd-spf") {
        return;
    }
    // Its package brings a mail system along, which nobody should get for a test.
    if !Path::new(POLICYD_SPF).exists() {
        println!("policyd-spf was skipped: there is no {POLICYD_SPF}");
        return;
    }
    let site = Builder::new()
        .as_root()
        .main("smtpd_authorized_xclient_hosts = 127.0.0.1")
        .main("smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service unix:private/policyd-spf")
        .master(&format!("policyd-spf unix - n n - 0 spawn user=nobody argv={POLICYD_SPF}"))
        .start();
    let mut client = site.smtp();
    client.expect("EHLO proxy.example", 250);
    client.expect("XCLIENT ADDR=192.0.2.1 NAME=client.example", 220);
    client.expect("EHLO client.example", 250);
    assert_eq!(
        client
            .message("a@b.invalid", &["games@example.com", "games@example.com"], "Subject: x\r\n\r\nx\r\n")
            .code,
        250
    );
    let mail = site.wait_for_mail("games", 1);
    let mail = String::from_utf8_lossy(&mail[0]).into_owned();
    let headers =
        mail.matches("\nReceived-SPF: ").count() + mail.matches("\nAuthentication-Results: ").count();
    assert_eq!(headers, 1, "{mail}");
}
