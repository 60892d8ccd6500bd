//! The configuration: checked before it counts, changed while mail flows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use scenarios::{Instance, Over, Smtp, wait_for};

use crate::site::{NOTE, greeted, only_mail, send, usual};

/// Adds a line to main.cf and gives its number.
fn add(site: &Instance, line: &str) -> usize {
    let text = std::fs::read_to_string(site.path("etc/main.cf")).unwrap();
    site.write("etc/main.cf", &format!("{text}{line}\n"));
    text.lines().count() + 1
}

#[test]
fn no_session_is_dropped_by_a_reload() {
    let site = usual().start();
    let over = AtomicBool::new(false);
    let sent: usize = thread::scope(|scope| {
        let end = Over(&over);
        let sessions: Vec<_> = (0..10).map(|_| scope.spawn(|| send_until(&site, &over))).collect();
        for _ in 0..20 {
            site.postroad(&["reload"]).ok();
        }
        drop(end);
        sessions.into_iter().map(|session| session.join().expect("a session without an error")).sum()
    });
    site.wait_for_mail("ann", sent);
    site.wait_for_empty_queue();
    site.wait_for_lines(&["reload -- version"], 20);
}

/// Goes on in one session for some messages, then in another; the session that saw the reload is one of them.
fn send_until(site: &Instance, over: &AtomicBool) -> usize {
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = greeted(site);
        for _ in 0..5 {
            assert_eq!(client.message("jane@client.example", &["ann@box.example.com"], NOTE).code, 250);
            sent += 1;
        }
        client.expect("QUIT", 221);
    }
    sent
}

#[test]
fn a_session_that_is_open_goes_on_after_a_reload_with_what_it_began_with() {
    let site = usual().start();
    let mut old: Smtp = greeted(&site);
    add(&site, "smtpd_banner = $myhostname ESMTP new");
    site.postroad(&["reload"]).ok();
    let greeting = wait_for("the new greeting", || {
        let greeting = Smtp::connect_silently(site.port).read_reply();
        greeting.text().ends_with("new").then_some(greeting)
    });
    assert_eq!(greeting.text(), "mail.example.com ESMTP new");
    assert_eq!(old.message("jane@client.example", &["ann@box.example.com"], NOTE).code, 250);
    old.expect("QUIT", 221);
    only_mail(&site, "ann");
}

#[test]
fn a_reload_with_an_error_changes_nothing_and_says_where_it_is() {
    let site = usual().start();
    let line = add(&site, "message_size_limit = much");
    let output = site.postroad(&["reload"]);
    assert_ne!(output.status, 0);
    let place = format!("main.cf:{line}: ");
    assert!(output.stderr.contains(&place) && output.stderr.contains("message_size_limit"), "{output:?}");
    assert!(output.stderr.starts_with("postroad: error: "), "{output:?}");
    send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    only_mail(&site, "ann");
    // A signal asks for the same, and the log is told.
    let master = site.pids("master")[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(master), nix::sys::signal::Signal::SIGHUP).unwrap();
    site.wait_for_log(&[&place, "message_size_limit"]);
    site.wait_for_log(&["the running configuration is kept"]);
    send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    site.wait_for_mail("ann", 2);
}

#[test]
fn a_misspelt_parameter_refuses_the_start() {
    let site = usual().main("smtpd_recipient_restriction = reject").prepare();
    let line = std::fs::read_to_string(site.path("etc/main.cf")).unwrap().lines().count();
    let output = site.postroad(&["start"]);
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains(&format!("main.cf:{line}: ")), "{output:?}");
    assert!(output.stderr.contains("did you mean smtpd_recipient_restrictions"), "{output:?}");
    assert!(site.pids("master").is_empty());
    let check = site.postroad(&["check"]);
    assert_eq!((check.status, check.stderr), (output.status, output.stderr));
}

#[test]
fn an_interface_that_is_not_there_refuses_the_start_and_says_what_helps() {
    let site = usual().main("inet_interfaces = 127.0.0.1, no..such").prepare();
    let line = 1 + line_of(&site, "inet_interfaces = 127.0.0.1, no");
    let told = format!("main.cf:{line}: inet_interfaces = 127.0.0.1, no..such: host no..such not found: ");
    for command in ["check", "start"] {
        let output = site.postroad(&[command]);
        assert_ne!(output.status, 0);
        assert!(output.stderr.contains("postroad: error: ") && output.stderr.contains(&told), "{output:?}");
        assert!(
            output.stderr.contains("; write addresses of this host, all or loopback-only, "),
            "{output:?}"
        );
    }
    let site = usual().master("192.0.2.77:2525 inet n - n - - smtpd").prepare();
    let output = site.postroad(&["start"]);
    let told =
        "bind 192.0.2.77:2525: Cannot assign requested address (no interface has it; inet_interfaces and ";
    assert!(output.stderr.contains(told), "{output:?}");
}

#[test]
fn a_second_start_is_refused() {
    let site = usual().start();
    let output = site.postroad(&["start"]);
    assert_ne!(output.status, 0);
    let pid = site.pids("master")[0].to_string();
    assert!(output.stderr.contains("already running") && output.stderr.contains(&pid), "{output:?}");
    wait_for("the end of the second master", || (site.pids("master").len() == 1).then_some(()));
    send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    only_mail(&site, "ann");
}

#[test]
fn a_reload_says_what_check_says_and_in_the_same_words() {
    let site = usual().start();
    // A former name is worth a note in the log, not a warning.
    add(&site, "strict_8bitmime = yes\nsmtpd_client_connection_limit_exceptions =");
    let check = site.postroad(&["check"]).ok().stdout;
    let reload = site.postroad(&["reload"]).ok().stdout;
    assert!(check.starts_with("warning: ") && check.contains("strict_8bitmime"), "{check}");
    assert_eq!(reload, format!("{check}reloaded\n"));
    site.wait_for_log(&["warning: ", "strict_8bitmime"]);
}

#[test]
fn check_says_what_it_has_put_right() {
    let site = usual().prepare();
    site.postroad(&["check"]).ok();
    let hold = site.path("queue/hold");
    std::fs::set_permissions(&hold, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = |site: &Instance| site.postroad(&["check"]).ok().stdout;
    let told = format!("note: {}: put right: mode 0755 is now 0700", hold.display());
    assert_eq!(said(&site).lines().filter(|line| line.contains("put right")).collect::<Vec<_>>(), [&told]);
    assert!(!said(&site).contains("put right"));
}

#[test]
fn check_names_what_has_no_effect_yet() {
    let site = usual().main("strict_8bitmime = yes").main("smtpd_milters = inet:127.0.0.1:9").prepare();
    let output = site.postroad(&["check"]).ok();
    for parameter in ["strict_8bitmime", "smtpd_milters"] {
        let named = |line: &&str| line.contains("main.cf:") && line.contains(parameter);
        assert!(output.stdout.lines().any(|line| named(&line)), "{output:?}");
    }
}

/// A slip of the pen must not return mail: no server is asked for a host of that name.
#[test]
fn mail_for_a_next_hop_that_is_none_waits_and_the_start_says_so() {
    let site = usual()
        .main("relayhost = [mx.example.net:587")
        .main("default_transport = smtp")
        .master("smtp unix - - n - - smtp")
        .prepare();
    let line = 1 + line_of(&site, "relayhost = ");
    let output = site.postroad(&["start"]).ok();
    let told = format!(
        "main.cf:{line}: relayhost = [mx.example.net:587: the bracket of “[mx.example.net:587” is not closed, "
    );
    assert!(output.stdout.contains(&told), "{output:?}");
    assert!(output.stdout.contains("write [mx.example.net]:587"), "{output:?}");
    let id = send(&site, "jane@client.example", &["ann@elsewhere.example"], NOTE);
    site.wait_for_log(&[
        &id,
        "dsn=4.3.5, status=deferred (the bracket of “[mx.example.net:587” is not closed)",
    ]);
}

/// It may come later, as with a package that is still to be installed.
#[test]
fn a_program_that_is_not_there_is_told_with_its_service() {
    let site = usual()
        .master("filter unix - n n - - pipe user=$user argv=/no/such/program -f ${sender}")
        .master("policy unix - n n - - spawn user=$user argv=$root/etc/main.cf")
        .prepare();
    let text = std::fs::read_to_string(site.path("etc/master.cf")).unwrap();
    let line = |start: &str| 1 + text.lines().position(|line| line.starts_with(start)).expect("the service");
    let output = site.postroad(&["check"]).ok();
    for (service, program, what) in [
        ("filter", "/no/such/program", "there is no such program; "),
        ("policy", &site.path("etc/main.cf").display().to_string(), "nobody may execute it; "),
    ] {
        let told = format!("master.cf:{}: {service}: argv={program}: {what}", line(service));
        let warned = output.stdout.lines().any(|line| line.starts_with("warning: ") && line.contains(&told));
        assert!(warned, "{told}: {output:?}");
    }
}

/// Where main.cf has a line that begins so, counted from zero.
fn line_of(site: &Instance, start: &str) -> usize {
    let text = std::fs::read_to_string(site.path("etc/main.cf")).unwrap();
    text.lines().position(|line| line.starts_with(start)).expect("the line")
}

#[test]
fn a_table_that_was_made_anew_counts_for_the_next_message() {
    let site = usual().start();
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect("RCPT TO:<new@lists.example.com>", 550);
    site.write("etc/virtual", "new@lists.example.com ann@box.example.com\n");
    site.run("postmap", &["etc/virtual"], "").ok();
    wait_for("the new entry", || {
        (client.command("RCPT TO:<new@lists.example.com>").code == 250).then_some(())
    });
    client.expect("RSET", 250);
    assert_eq!(client.message("jane@client.example", &["new@lists.example.com"], NOTE).code, 250);
    only_mail(&site, "ann");
    site.write("etc/virtual", "new@lists.example.com $user\n".replace("$user", site.user()).as_str());
    site.run("postmap", &["hash:etc/virtual"], "").ok();
    send(&site, "jane@client.example", &["new@lists.example.com"], NOTE);
    only_mail(&site, site.user());
}

/// Reload and flush reach the queue manager on connections of their own: the second may be heard first.
#[test]
fn a_flush_that_was_heard_before_the_reload_it_followed_counts_after_it() {
    let site = usual().start();
    let before = std::fs::read_to_string(site.path("etc/main.cf")).unwrap();
    add(&site, "virtual_transport = retry:4.3.0 wait");
    site.postroad(&["reload"]).ok();
    site.run("sendmail", &["ann@box.example.com"], NOTE).ok();
    let deferrals = |count: usize| {
        wait_for("a deferral", || {
            (site.log().matches("status=deferred (wait)").count() >= count).then_some(())
        });
    };
    deferrals(1);
    site.run("postqueue", &["-f"], "").ok();
    deferrals(2);
    site.write("etc/main.cf", &before);
    site.postroad(&["reload"]).ok();
    only_mail(&site, "ann");
}

/// What is being tried goes the ways of the old configuration: it is tried by the new one when that ends.
#[test]
fn a_flush_after_a_reload_counts_for_what_is_being_tried() {
    let command =
        "/bin/sh -c {touch $root/mail/tried; while [ ! -e $root/mail/end ]; do sleep 0.1; done; exit 75}";
    let service = format!("slow unix - n n - - pipe user=$user argv={command}");
    let site = usual().master(&service).start();
    let before = std::fs::read_to_string(site.path("etc/main.cf")).unwrap();
    add(&site, "virtual_transport = slow");
    site.postroad(&["reload"]).ok();
    site.run("sendmail", &["ann@box.example.com"], NOTE).ok();
    wait_for("an attempt", || site.path("mail/tried").exists().then_some(()));
    site.write("etc/main.cf", &before);
    site.postroad(&["reload"]).ok();
    site.run("postqueue", &["-f"], "").ok();
    site.write("mail/end", "");
    only_mail(&site, "ann");
}

#[test]
fn status_stop_and_a_new_start() {
    let site = usual().start();
    let status = site.postroad(&["status"]).ok();
    assert!(format!("{}{}", status.stdout, status.stderr).contains(&site.pids("master")[0].to_string()));
    site.postroad(&["stop"]).ok();
    wait_for("the end of master", || site.pids("master").is_empty().then_some(()));
    assert_ne!(site.postroad(&["status"]).status, 0);
    assert_ne!(site.postroad(&["reload"]).status, 0);
    site.start();
    send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    only_mail(&site, "ann");
}
