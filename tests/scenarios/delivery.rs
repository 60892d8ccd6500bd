//! The main job: mail comes in over SMTP and with sendmail, and lands in Maildirs or comes back.

use scenarios::{Smtp, messages, peer, run};

use crate::site::{NOTE, greeted, only_mail, send, usual};

#[test]
fn a_virtual_alias_leads_from_smtp_to_a_maildir() {
    let site = usual().start();
    let id = send(&site, "jane@client.example", &["admin@lists.example.com"], NOTE);
    let mail = only_mail(&site, site.user());
    assert!(
        mail.starts_with("Return-Path: <jane@client.example>\nX-Original-To: admin@lists.example.com\n"),
        "{mail}"
    );
    assert!(
        mail.contains(&format!("Delivered-To: {}@example.com\nReceived: from client.example ", site.user())),
        "{mail}"
    );
    assert!(mail.contains(&format!("ESMTP id {id}\n")), "{mail}");
    assert!(mail.contains("\nFrom: jane@client.example\nSubject: note\n"), "{mail}");
    assert!(mail.ends_with("\n\nHello.\n"), "{mail}");
    site.wait_for_log(&[&id, "to=<", "orig_to=<admin@lists.example.com>, relay=local, ", "status=sent"]);
    site.wait_for_log(&[&id, ": removed"]);
}

#[test]
fn sendmail_leads_over_an_alias_to_maildirs() {
    let site = usual().start();
    site.run("sendmail", &["-f", "cron@example.com", "team"], "Subject: nightly\n\nDone.\n").ok();
    let mail = only_mail(&site, site.user());
    assert!(mail.starts_with("Return-Path: <cron@example.com>\nX-Original-To: team\n"), "{mail}");
    assert!(mail.contains("(Postroad, from userid ") && mail.ends_with("\n\nDone.\n"), "{mail}");
    assert!(only_mail(&site, "ann").contains("Subject: nightly"), "the second member of the list");
}

#[test]
fn virtual_aliases_lead_to_each_other_and_each_recipient_gets_one_copy() {
    let site = usual().start();
    send(&site, "jane@client.example", &["all@lists.example.com", "all@lists.example.com"], NOTE);
    assert!(only_mail(&site, "ann").contains("\nX-Original-To: all@lists.example.com\n"));
    only_mail(&site, site.user());
}

#[test]
fn a_catch_all_takes_what_has_no_entry_of_its_own() {
    let catch_all = "admin@lists.example.com ann@box.example.com\n@lists.example.com $user\n";
    let site = usual().table("virtual", catch_all).start();
    send(&site, "jane@client.example", &["whoever@lists.example.com"], NOTE);
    only_mail(&site, site.user());
    assert!(messages(&site.maildir("ann")).is_empty());
}

#[test]
fn unknown_users_are_refused_while_the_client_waits() {
    let site = usual().start();
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    for unknown in ["no-such-user@example.com", "nobody-here@lists.example.com", "bob@box.example.com"] {
        let reply = client.expect(&format!("RCPT TO:<{unknown}>"), 550);
        assert!(reply.text().starts_with("5.1.1 ") && reply.text().contains("User unknown"), "{reply:?}");
        site.wait_for_log(&["NOQUEUE: reject: RCPT from ", ": 550 5.1.1 ", unknown]);
    }
    client.expect("RCPT TO:<ann@box.example.com>", 250);
}

#[test]
fn relaying_is_refused_from_outside() {
    let refusal = |site, code| {
        let mut client: Smtp = greeted(site);
        client.expect("MAIL FROM:<jane@client.example>", 250);
        client.expect("RCPT TO:<ann@box.example.com>", 250);
        client.expect("RCPT TO:<bob@elsewhere.example>", code).text()
    };
    let site = usual().main("mynetworks = 192.0.2.0/24").start();
    assert!(refusal(&site, 454).starts_with("4.7.1 <bob@elsewhere.example>: Relay access denied"));
    let site = usual()
        .main("mynetworks = 192.0.2.0/24")
        .main("smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination")
        .start();
    assert!(refusal(&site, 554).starts_with("5.7.1 <bob@elsewhere.example>: Relay access denied"));
}

/// What Python's email package finds in a message.
fn parse(mail: &str) -> serde_json::Value {
    let mut python = peer("python3");
    python.args(["-c", include_str!("parse_report.py")]);
    serde_json::from_str(&run(python, mail.as_bytes()).ok().stdout).expect("JSON from Python")
}

#[test]
fn what_cannot_be_delivered_comes_back_as_a_report() {
    let site = usual().start();
    let sender = format!("{}@example.com", site.user());
    let id = send(&site, &sender, &["astray@example.com", "broken@example.com"], NOTE);
    let mail = only_mail(&site, site.user());
    assert!(mail.starts_with("Return-Path: <>\n"), "{mail}");
    let report = parse(&mail);
    assert_eq!(report["defects"], 0, "{report}\n{mail}");
    assert_eq!(report["report_type"], "delivery-status");
    assert_eq!(report["auto_submitted"], "auto-replied");
    assert_eq!(report["queue_id"], id);
    assert_eq!(report["returned"]["subject"], "note");
    assert_eq!(report["returned"]["body"], "Hello.\n");
    let recipients = report["recipients"].as_array().unwrap();
    assert_eq!(recipients.len(), 2, "{report}");
    for recipient in recipients {
        assert_eq!(recipient["action"], "failed");
        assert!(recipient["status"].as_str().unwrap().starts_with("5."), "{recipient}");
    }
    assert!(report.to_string().contains("out of order"), "what the command said: {report}");
    assert!(report.to_string().contains("5.1.1"), "an unknown user: {report}");
}

#[test]
fn a_report_that_cannot_be_delivered_is_not_answered_with_another() {
    let site = usual().start();
    let id = send(&site, "", &["astray@example.com"], NOTE);
    site.wait_for_log(&[&id, "status=bounced"]);
    site.wait_for_log(&[&id, ": removed"]);
    site.wait_for_empty_queue();
    site.wait_for_lines(&["from=<"], 1);
}

#[test]
fn the_postmaster_is_told_of_reports_that_go_astray_if_she_wishes() {
    let site = usual().main("notify_classes = 2bounce").start();
    // The sender cannot be reached, so the report cannot either.
    send(&site, "astray@example.com", &["astray@example.com"], NOTE);
    let mail = only_mail(&site, site.user());
    assert!(
        mail.contains("Subject: Postmaster notify: ") || mail.contains("Subject: Postmaster Copy"),
        "{mail}"
    );
    assert_eq!(parse(&mail)["defects"], 0, "{mail}");
}

#[test]
fn s_nail_reads_the_maildir() {
    let site = usual().start();
    send(&site, "jane@client.example", &[&format!("{}@example.com", site.user())], NOTE);
    only_mail(&site, site.user());
    let mut reader = site.command(&peer("s-nail").get_program().to_string_lossy());
    reader.args(["-n", "-R", "-f", &site.maildir(site.user()).display().to_string()]);
    let said = run(reader, b"print 1\nquit\n").ok().stdout;
    assert!(said.contains("Subject: note") && said.contains("Hello."), "{said}");
}
