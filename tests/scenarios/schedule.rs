//! What the queue manager does with mail that waits: for a relay that is down, for its turn, for its rate, for somebody
//! who asks for it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use scenarios::{Builder, Instance, Sink, free_port, messages, wait_for};

use crate::site::{state_of, usual};

/// A site that sends all that is not its own to a relay on this port, which nobody listens at yet.
fn with_relay(port: u16) -> Builder {
    usual()
        .main(&format!("relayhost = [127.0.0.1]:{port}"))
        .main("smtp_tls_security_level = none")
        .main("minimal_backoff_time = 1s")
        .main("maximal_backoff_time = 1h")
        .master("smtp unix - - n - - smtp")
        .master("relay unix - - n - - smtp")
}

/// Submits a message with `sendmail`; it is taken as soon as pickup has seen it.
fn submit(site: &Instance, recipients: &[&str]) {
    site.run("sendmail", &[&["-f", "jane@example.com"], recipients].concat(), "Subject: note\n\nHello.\n")
        .ok();
}

/// The id of the message to this recipient, once the log tells of an outcome for it.
fn wait_for_outcome(site: &Instance, recipient: &str, status: &str) -> String {
    let line = site.wait_for_log(&[&format!("to=<{recipient}>"), &format!("status={status}")]);
    let id = line.split("]: ").nth(1).and_then(|rest| rest.split(':').next());
    id.unwrap_or_else(|| panic!("an id in {line}")).to_owned()
}

fn count(log: &str, parts: &[&str]) -> usize {
    log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[test]
fn mail_for_a_dead_relay_waits_with_the_reason_and_comes_once_when_it_is_back() {
    const MESSAGES: usize = 60;
    let port = free_port();
    let site = with_relay(port).start();
    for number in 0..MESSAGES {
        submit(&site, &[&format!("user{number}@far.example")]);
    }
    site.wait_for_log(&["delivery suspended for", "Connection refused"]);
    site.wait_for_log(&[
        "relay=none",
        "status=deferred (delivery temporarily suspended: connect to 127.0.0.1",
        "Connection refused)",
    ]);
    let sink = Sink::start(port, Duration::ZERO);
    // A probe finds it, and all the others are brought forward: nobody flushes the queue.
    site.wait_for_empty_queue();
    let recipients = sink.recipients();
    assert_eq!(recipients.len(), MESSAGES);
    assert_eq!(recipients.iter().collect::<HashSet<_>>().len(), MESSAGES);
}

#[test]
fn a_flush_tries_what_was_given_up() {
    let port = free_port();
    let site = with_relay(port).main("minimal_backoff_time = 1h").start();
    for number in 0..10 {
        submit(&site, &[&format!("user{number}@far.example")]);
    }
    wait_for("all to be put off", || (count(&site.log(), &["status=deferred"]) >= 10).then_some(()));
    let sink = Sink::start(port, Duration::ZERO);
    site.run("postqueue", &["-f"], "").ok();
    site.wait_for_empty_queue();
    assert_eq!(sink.recipients().len(), 10);
}

#[test]
fn a_rate_holds_over_a_stop_and_a_kill_and_leaves_other_destinations_alone() {
    let (slow, fast) = (free_port(), free_port());
    let (slow, fast) = (Sink::start(slow, Duration::ZERO), Sink::start(fast, Duration::ZERO));
    let site = with_relay(slow.port)
        .main("smtp_destination_rate = 30/m")
        .main(&format!("transport_maps = inline:{{ {{ fast.example = relay:[127.0.0.1]:{} }} }}", fast.port))
        .start();
    for number in 0..4 {
        submit(&site, &[&format!("user{number}@far.example")]);
    }
    (0..10).for_each(|number| submit(&site, &[&format!("user{number}@fast.example")]));
    wait_for("the other mail", || (fast.recipients().len() == 10).then_some(()));
    wait_for("the first of the slow", || (!slow.taken().is_empty()).then_some(()));
    assert!(slow.taken().len() < 4, "{:?}", slow.taken());
    site.kill("qmgr");
    wait_for("the second", || (slow.taken().len() >= 2).then_some(()));
    site.postroad(&["stop"]).ok();
    site.start();
    wait_for("all", || (slow.taken().len() == 4).then_some(()));
    let taken = slow.taken();
    for pair in taken.windows(2) {
        // What begins two seconds apart may end a little less apart.
        assert!(pair[1].at - pair[0].at > Duration::from_millis(1500), "{taken:?}");
    }
}

#[test]
fn a_rate_lets_several_deliveries_run_at_a_time() {
    let sink = Sink::start(free_port(), Duration::from_millis(1500));
    let site = with_relay(sink.port).main("smtp_destination_rate = 5/s").start();
    for number in 0..10 {
        submit(&site, &[&format!("user{number}@far.example")]);
    }
    site.wait_for_empty_queue();
    assert!(sink.most_at_once() > 1, "{}", sink.most_at_once());
    let taken = sink.taken();
    assert!(taken[9].at - taken[0].at >= Duration::from_millis(1600), "{taken:?}");
}

#[test]
fn a_small_message_overtakes_a_huge_one() {
    let sink = Sink::start(free_port(), Duration::from_millis(20));
    let site = with_relay(sink.port)
        .main("smtp_destination_recipient_limit = 2")
        .main("smtp_destination_concurrency_limit = 1")
        .start();
    let members: Vec<String> = (0..1000).map(|number| format!("member{number}@list.example")).collect();
    submit(&site, &members.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("the list to be on its way", || (sink.taken().len() > 5).then_some(()));
    submit(&site, &["small@far.example"]);
    let id_is_active = |log: &str| count(log, &["nrcpt=1 (queue active)"]) == 1;
    wait_for("the small message to be taken up", || id_is_active(&site.log()).then_some(()));
    let before = sink.taken().len();
    wait_for("the small message", || {
        sink.recipients().contains(&"small@far.example".to_owned()).then_some(())
    });
    let place = sink.taken().iter().position(|taken| taken.recipients[0] == "small@far.example");
    let place = place.expect("the place of the small message");
    assert!(place < before + 10, "{place} after {before}");
    site.wait_for_empty_queue();
    assert_eq!(sink.recipients().iter().collect::<HashSet<_>>().len(), 1001);
}

#[test]
fn a_slow_relay_does_not_slow_the_others() {
    let slow = Sink::start(free_port(), Duration::from_secs(20));
    let fast = Sink::start(free_port(), Duration::ZERO);
    let site = with_relay(slow.port)
        .main(&format!("transport_maps = inline:{{ {{ fast.example = smtp:[127.0.0.1]:{} }} }}", fast.port))
        .start();
    for number in 0..40 {
        submit(&site, &[&format!("user{number}@far.example")]);
    }
    wait_for("the slow relay to be busy", || (slow.most_at_once() >= 5).then_some(()));
    let began = Instant::now();
    (0..20).for_each(|number| submit(&site, &[&format!("user{number}@fast.example")]));
    wait_for("the other mail", || (fast.recipients().len() == 20).then_some(()));
    println!("20 messages beside a slow relay took {:?}", began.elapsed());
    assert!(slow.taken().len() < 40);
}

#[test]
fn only_the_mail_for_a_site_is_tried_when_it_is_asked_for() {
    let port = free_port();
    let site = with_relay(port)
        .main("minimal_backoff_time = 1h")
        .main("fast_flush_domains = ask.example, other.example")
        .start();
    submit(&site, &["ann@ask.example"]);
    submit(&site, &["bob@other.example"]);
    wait_for_outcome(&site, "ann@ask.example", "deferred");
    let other = wait_for_outcome(&site, "bob@other.example", "deferred");
    // What was put aside before a restart is found as well.
    site.postroad(&["stop"]).ok();
    site.start();
    let sink = Sink::start(port, Duration::ZERO);
    site.run("postqueue", &["-s", "Ask.Example"], "").ok();
    wait_for("the mail", || (sink.recipients() == ["ann@ask.example"]).then_some(()));
    assert_eq!(state_of(&site, &other).as_deref(), Some("deferred"));
    let refused = site.run("postqueue", &["-s", "never.example"], "");
    assert!(refused.status != 0 && refused.stderr.contains("fast_flush_domains"), "{refused:?}");
    site.run("sendmail", &["-qRother.example"], "").ok();
    site.wait_for_empty_queue();
    assert_eq!(sink.recipients(), ["ann@ask.example", "bob@other.example"]);
}

#[test]
fn mail_that_waits_goes_another_way_after_a_reload() {
    let site = with_relay(free_port()).main("minimal_backoff_time = 1h").start();
    submit(&site, &["ann@far.example"]);
    let id = wait_for_outcome(&site, "ann@far.example", "deferred");
    let sink = Sink::start(free_port(), Duration::ZERO);
    let settings = std::fs::read_to_string(site.etc().join("main.cf")).unwrap();
    site.write("etc/main.cf", &format!("{settings}relayhost = [127.0.0.1]:{}\n", sink.port));
    site.postroad(&["reload"]).ok();
    site.wait_for_log(&["going on with the new configuration"]);
    site.run("postqueue", &["-i", &id], "").ok();
    site.wait_for_empty_queue();
    assert_eq!(sink.recipients(), ["ann@far.example"]);
}

#[test]
fn what_waits_for_its_turn_goes_another_way_after_a_reload() {
    let (first, second) =
        (Sink::start(free_port(), Duration::ZERO), Sink::start(free_port(), Duration::ZERO));
    let site = with_relay(first.port).main("smtp_destination_rate = 1/h").start();
    for number in 0..3 {
        submit(&site, &[&format!("user{number}@far.example")]);
    }
    wait_for("the first message", || (first.taken().len() == 1).then_some(()));
    wait_for("the others", || (count(&site.log(), &["(queue active)"]) == 3).then_some(()));
    let settings = std::fs::read_to_string(site.etc().join("main.cf")).unwrap();
    let settings = settings.replace("smtp_destination_rate = 1/h\n", "");
    site.write("etc/main.cf", &format!("{settings}relayhost = [127.0.0.1]:{}\n", second.port));
    site.postroad(&["reload"]).ok();
    site.wait_for_empty_queue();
    assert_eq!((first.taken().len(), second.taken().len()), (1, 2));
}

#[test]
fn the_sender_is_told_of_a_delay_once_and_of_its_end() {
    let site = usual()
        .main("minimal_backoff_time = 1s")
        .main("maximal_backoff_time = 1s")
        .main("delay_warning_time = 2s")
        .main("confirm_delay_cleared = yes")
        .start();
    let sender = format!("{}@example.com", site.user());
    site.run("sendmail", &["-f", &sender, "later@example.com"], "Subject: note\n\nHello.\n").ok();
    site.wait_for_log(&["sender delay notification"]);
    let attempts = |log: &str| count(log, &["to=<later@example.com>", "status=deferred"]);
    let before = attempts(&site.log());
    wait_for("two more attempts", || (attempts(&site.log()) >= before + 2).then_some(()));
    site.write("etc/aliases", "later: ann@box.example.com\n");
    site.run("postalias", &["etc/aliases"], "").ok();
    site.wait_for_mail("ann", 1);
    site.wait_for_mail(site.user(), 2);
    site.wait_for_empty_queue();
    site.wait_for_lines(&["sender delay notification"], 1);
    assert_eq!(messages(&site.maildir(site.user())).len(), 2);
}

#[test]
fn mail_that_is_too_old_is_returned_after_its_attempt() {
    let site = usual().main("maximal_queue_lifetime = 0").start();
    let sender = format!("{}@example.com", site.user());
    site.run("sendmail", &["-f", &sender, "later@example.com"], "Subject: note\n\nHello.\n").ok();
    site.wait_for_log(&[&format!("from=<{sender}>, status=expired, returned to sender")]);
    site.wait_for_mail(site.user(), 1);
    site.wait_for_empty_queue();
}

#[test]
fn soft_bounce_keeps_what_would_be_returned() {
    let site = usual().main("soft_bounce = yes").start();
    submit(&site, &["no-such-user@example.com"]);
    let id = scenarios::wait_for("an outcome", || {
        let log = site.log();
        let line = log.lines().find(|line| line.contains("to=<no-such-user@example.com>"))?;
        Some(line.split("]: ").nth(1)?.split(':').next()?.to_owned())
    });
    crate::site::wait_for_state(&site, &id, "deferred");
}

#[test]
fn mail_for_who_has_moved_is_returned_with_the_new_address() {
    let site = usual().main("relocated_maps = inline:{ { gone@example.com = new@far.example } }").start();
    let sender = format!("{}@example.com", site.user());
    site.run("sendmail", &["-f", &sender, "gone@example.com"], "Subject: note\n\nHello.\n").ok();
    site.wait_for_log(&["to=<gone@example.com>", "dsn=5.1.6", "status=bounced", "new@far.example"]);
    site.wait_for_mail(site.user(), 1);
    site.wait_for_empty_queue();
}

#[test]
fn mail_of_defer_transports_waits_until_it_is_asked_for_or_the_transport_is_free() {
    let mailboxes =
        "virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ } { bob@box.example.com = bob/ } }";
    let site = usual().main(mailboxes).main("defer_transports = virtual").start();
    submit(&site, &["ann@box.example.com"]);
    let put_off = |recipient: &str| {
        site.wait_for_log(&[&format!("to=<{recipient}>"), "dsn=4.3.2, status=deferred (deferred transport)"]);
        let id = wait_for_outcome(&site, recipient, "deferred");
        crate::site::wait_for_state(&site, &id, "deferred");
        id
    };
    put_off("ann@box.example.com");
    assert!(messages(&site.maildir("ann")).is_empty());
    // Who asks for it gets it, all of it or one message.
    site.run("sendmail", &["-q"], "").ok();
    site.wait_for_mail("ann", 1);
    site.wait_for_empty_queue();
    submit(&site, &["bob@box.example.com"]);
    submit(&site, &["ann@box.example.com"]);
    let id = put_off("bob@box.example.com");
    site.run("postqueue", &["-i", &id], "").ok();
    site.wait_for_mail("bob", 1);
    assert_eq!(messages(&site.maildir("ann")).len(), 1);
    site.run("postconf", &["-e", "defer_transports ="], "").ok();
    site.postroad(&["reload"]).ok();
    wait_for("the message to be delivered", || {
        site.try_all();
        (messages(&site.maildir("ann")).len() == 2).then_some(())
    });
    site.wait_for_empty_queue();
}

#[test]
fn a_transport_whose_agent_cannot_start_puts_its_mail_off() {
    let site = with_relay(free_port()).main("qmgr_ipc_timeout = 2s").prepare();
    // This one judges the configuration, and does no more.
    std::fs::rename(site.path("sbin/smtp"), site.path("sbin/smtp.real")).unwrap();
    let real = site.path("sbin/smtp.real").display().to_string();
    site.write("sbin/smtp", &format!("#!/bin/sh\n[ \"$1\" = check ] && exec {real} check\nexit 1\n"));
    let allowed = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(site.path("sbin/smtp"), allowed).unwrap();
    site.start();
    submit(&site, &["ann@far.example"]);
    site.wait_for_log(&["to=<ann@far.example>", "dsn=4.3.0, status=deferred (mail transport unavailable)"]);
}
