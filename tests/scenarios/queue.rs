//! The queue under its operator's hands, while the mail system runs.

use crate::site::{entry, only_mail, send, send_deferred, state_of, usual, wait_for_state};

#[test]
fn the_queue_is_listed_with_the_reason_of_each_delay() {
    let site = usual().start();
    let id = send_deferred(&site);
    let list = site.run("mailq", &[], "").ok().stdout;
    assert!(
        list.starts_with("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"),
        "{list}"
    );
    assert!(
        list.contains(&id) && list.contains("later@example.com") && list.contains("temporary failure"),
        "{list}"
    );
    assert!(list.ends_with("in 1 Request.\n"), "{list}");
    let entry = entry(&site, &id).expect("the message in the list");
    assert_eq!(entry["queue_name"], "deferred");
    assert_eq!(entry["sender"], format!("{}@example.com", site.user()));
    assert_eq!(entry["recipients"][0]["address"], "later@example.com");
    assert!(
        entry["recipients"][0]["delay_reason"].as_str().unwrap().contains("temporary failure"),
        "{entry}"
    );
}

#[test]
fn an_empty_queue_says_so() {
    let site = usual().start();
    assert_eq!(site.run("mailq", &[], "").ok().stdout, "Mail queue is empty\n");
    assert_eq!(site.run("postqueue", &["-j"], "").ok().stdout, "");
}

#[test]
fn postcat_shows_a_message_that_waits() {
    let site = usual().start();
    let id = send_deferred(&site);
    let all = site.run("postcat", &["-q", &id], "").ok().stdout;
    assert!(all.contains("later@example.com") && all.contains("Subject: note\n"), "{all}");
    assert_eq!(site.run("postcat", &["-bq", &id], "").ok().stdout.trim_start(), "Hello.\n");
}

#[test]
fn postsuper_deletes_a_message() {
    let site = usual().start();
    let (first, second) = (send_deferred(&site), send_deferred(&site));
    site.run("postsuper", &["-d", &first], "").ok();
    assert_eq!((state_of(&site, &first), site.queue_ids()), (None, vec![second]));
    site.run("postsuper", &["-d", "ALL"], "").ok();
    assert!(site.queue_ids().is_empty());
}

#[test]
fn a_message_on_hold_waits_until_it_is_released() {
    let site = usual().start();
    let id = send_deferred(&site);
    site.run("postsuper", &["-h", &id], "").ok();
    assert_eq!(state_of(&site, &id).as_deref(), Some("hold"));
    // Mended meanwhile: held mail is not tried all the same.
    site.write("etc/aliases", &format!("later: {}\n", site.user()));
    site.run("postalias", &["etc/aliases"], "").ok();
    site.run("postqueue", &["-f"], "").ok();
    send(&site, "jane@client.example", &["ann@box.example.com"], crate::site::NOTE);
    site.wait_for_mail("ann", 1);
    assert_eq!(state_of(&site, &id).as_deref(), Some("hold"));
    site.run("postsuper", &["-H", &id], "").ok();
    only_mail(&site, site.user());
}

#[test]
fn postsuper_requeues_a_message() {
    let site = usual().start();
    let id = send_deferred(&site);
    site.write("etc/aliases", &format!("later: {}\n", site.user()));
    site.run("postalias", &["etc/aliases"], "").ok();
    site.run("postsuper", &["-r", &id], "").ok();
    assert!(only_mail(&site, site.user()).contains("Hello."));
}

#[test]
fn one_message_or_all_are_tried_again_at_once() {
    let site = usual().start();
    let (first, second) = (send_deferred(&site), send_deferred(&site));
    site.write("etc/aliases", &format!("later: {}\n", site.user()));
    site.run("postalias", &["etc/aliases"], "").ok();
    site.run("postqueue", &["-i", &first], "").ok();
    site.wait_for_mail(site.user(), 1);
    assert_eq!(state_of(&site, &second).as_deref(), Some("deferred"));
    site.run("postqueue", &["-f"], "").ok();
    site.wait_for_mail(site.user(), 2);
    site.wait_for_empty_queue();
}

#[test]
fn mail_stays_in_the_queue_over_a_stop_and_a_start() {
    let site = usual().start();
    let id = send_deferred(&site);
    site.postroad(&["stop"]).ok();
    assert_eq!(site.queue_ids(), std::slice::from_ref(&id));
    site.start();
    wait_for_state(&site, &id, "deferred");
    site.run("postqueue", &["-f"], "").ok();
    let again = |log: &str| log.matches(&format!("{id}: to=<later@example.com>")).count();
    scenarios::wait_for("a second attempt", || (again(&site.log()) >= 2).then_some(()));
}

#[test]
fn sendmail_takes_mail_while_the_mail_system_is_down() {
    let site = usual().prepare();
    site.postroad(&["start"]).ok();
    site.postroad(&["stop"]).ok();
    site.run("sendmail", &[site.user()], "Subject: early\n\nHello.\n").ok();
    site.start();
    assert!(only_mail(&site, site.user()).contains("Subject: early"));
}
