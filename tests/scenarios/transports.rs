//! Other ways for mail to go: programs by pipe, content filters and back, LMTP, policy servers by spawn.

use std::fs;
use std::process::{Child, Stdio};

use scenarios::{Builder, Instance, Smtp, free_port, is_root, peer, wait_for};

use crate::site::{NOTE, only_mail, send, usual};

/// A program that runs beside an instance until it is dropped.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes its arguments and its input below `$root/mail`.
const SHOW: &str =
    "#!/bin/sh\nout=$1; shift\nprintf '[%s]' \"$@\" > $out.args\ncat > $out.text\nmv $out.args $out.done\n";

fn with_program(builder: Builder) -> Builder {
    builder.file("show", SHOW)
}

fn shown(site: &Instance, name: &str) -> (String, String) {
    let done = site.path(&format!("mail/{name}.done"));
    let arguments = wait_for("the command to run", || fs::read_to_string(&done).ok());
    (arguments, fs::read_to_string(site.path(&format!("mail/{name}.text"))).expect("what the command read"))
}

#[test]
fn a_pipe_delivers_to_all_recipients_at_once() {
    let site = with_program(usual())
        .main("transport_maps = inline:{ piped.example=show:Next.Hop }")
        .main("relay_domains = piped.example")
        .main("recipient_delimiter = +")
        .master(
            "show unix - n n - - pipe flags=Rqhu. user=$user argv=/bin/sh $root/etc/show $root/mail/seen \
             -f ${sender} { two words } ${recipient} ${user} ${extension} ${nexthop}",
        )
        .start();
    let text = "Subject: note\r\n\r\n..dot\r\n";
    let id = send(&site, "jane@client.example", &["Bob+Box@Piped.example", "\"a b\"@piped.example"], text);
    let (arguments, text) = shown(&site, "seen");
    assert_eq!(
        arguments,
        "[-f][jane@client.example][two words][bob+box@piped.example][\"a b\"@piped.example][bob][a b][box][][next.hop]"
    );
    assert!(text.starts_with("Return-Path: <jane@client.example>\nReceived: "), "{text}");
    assert!(text.ends_with("\n..dot\n"), "{text}");
    site.wait_for_log(&[&id, "relay=show, ", "dsn=2.0.0, status=sent (delivered via show service)"]);
    site.wait_for_empty_queue();
}

#[test]
fn the_end_of_a_command_says_what_becomes_of_the_mail() {
    let site = usual()
        .main("transport_maps = inline:{ later.example=later:, never.example=never:, says.example=says: }")
        .main("relay_domains = later.example, never.example, says.example")
        .master("later unix - n n - - pipe user=$user argv=/bin/sh -c {echo come back; exit 75}")
        .master("never unix - n n - - pipe user=$user argv=/bin/sh -c {echo who is that; exit 67}")
        .master("says unix - n n - - pipe user=$user argv=/bin/sh -c {echo 4.7.1 too fast; exit 67}")
        .start();
    let domains = ["a@later.example", "a@never.example", "a@says.example"];
    let id = send(&site, "", &domains, NOTE);
    site.wait_for_log(&[
        &id,
        "to=<a@later.example>, relay=later, ",
        "dsn=4.3.0, status=deferred (temporary failure. Command output: come back)",
    ]);
    site.wait_for_log(&[
        &id,
        "to=<a@never.example>, relay=never, ",
        "dsn=5.1.1, status=bounced (user unknown. Command output: who is that)",
    ]);
    site.wait_for_log(&[&id, "to=<a@says.example>, relay=says, ", "dsn=4.7.1, status=deferred (too fast)"]);
}

#[test]
fn check_names_what_is_wrong_with_a_pipe() {
    let check = |line: &str| usual().master(line).prepare().postroad(&["check"]);
    let said = check("odd unix - n n - - pipe user=$user argv=/bin/cat ${colour}");
    assert!(said.status != 0 && said.stderr.contains("odd: argv: unknown name \"colour\""), "{said:?}");
    let said = check("odd unix - n n - - pipe argv=/bin/cat");
    assert!(said.status != 0 && said.stderr.contains("odd: user= is missing"), "{said:?}");
    let said = check("odd unix - n n - - pipe user=no-such-user argv=/bin/cat");
    assert!(said.status == 0 && said.stdout.contains("odd: user=no-such-user: no such user"), "{said:?}");
}

/// The simple filter of Postfix's FILTER_README: a command that gives the mail back with sendmail.
#[test]
fn a_simple_filter_gives_mail_back_with_sendmail() {
    let filter =
        "#!/bin/sh\n{ echo 'X-Filtered: simply'; cat; } | $root/sbin/sendmail -C $root/etc -G -i \"$@\"\n";
    let port = free_port();
    let site = usual()
        .file("filter", filter)
        .master(
            "filter unix - n n - 10 pipe flags=Rq user=$user null_sender= argv=/bin/sh $root/etc/filter -f ${sender} -- ${recipient}",
        )
        .master(&format!("127.0.0.1:{port} inet n - n - - smtpd -o content_filter=filter:dummy"))
        .start();
    let mut client = Smtp::connect(port);
    client.expect("EHLO client.example", 250);
    let reply = client.message("jane@client.example", &[&format!("{}@example.com", site.user())], NOTE);
    assert_eq!(reply.code, 250, "{reply:?}");
    let mail = only_mail(&site, site.user());
    assert!(mail.contains("\nX-Filtered: simply\n") && mail.contains("Subject: note"), "{mail}");
    site.wait_for_log(&["relay=filter, ", "status=sent (delivered via filter service"]);
}

fn advanced(filter_port: u16, back: u16) -> Builder {
    usual()
        .main(&format!("content_filter = scan:[127.0.0.1]:{filter_port}"))
        .main("virtual_alias_maps = inline:{ admin@lists.example.com=$user }")
        .master("scan unix - - n - 10 smtp -o smtp_dns_support_level=disabled")
        .master(&format!(
            "127.0.0.1:{back} inet n - n - - smtpd -o content_filter= -o mynetworks=127.0.0.0/8 \
             -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters \
             -o smtpd_recipient_restrictions=permit_mynetworks,reject"
        ))
}

fn filter(listen: u16, back: u16) -> Beside {
    let mut python = peer("python3");
    python.args(["-c", include_str!("filter.py"), &listen.to_string(), &back.to_string()]);
    let child = python.stdin(Stdio::null()).spawn().expect("start the filter");
    wait_for("the filter to listen", || Smtp::try_connect(listen).map(drop));
    Beside(child)
}

#[test]
fn an_advanced_filter_gives_mail_back_on_another_port() {
    let (listen, back) = (free_port(), free_port());
    let _filter = filter(listen, back);
    let site = advanced(listen, back).main("receive_override_options = no_address_mappings").start();
    let id = send(&site, "jane@client.example", &["admin@lists.example.com", "ann@box.example.com"], NOTE);
    let mail = only_mail(&site, site.user());
    assert!(mail.contains("\nX-Filtered: yes\n") && mail.contains("Subject: note"), "{mail}");
    assert!(mail.contains("\nX-Original-To: admin@lists.example.com\n"), "{mail}");
    let copy = only_mail(&site, "ann");
    assert!(copy.contains("\nX-Filtered: yes\n"), "{copy}");
    // Before the filter, the alias was left alone.
    let relay = format!("to=<admin@lists.example.com>, relay=127.0.0.1[127.0.0.1]:{listen}, ");
    site.wait_for_log(&[&id, &relay, "status=sent (250 2.0.0 from MTA: ok)"]);
    // Once on each side of the filter.
    site.wait_for_lines(&[": from=<jane@client.example>, "], 2);
}

#[test]
fn what_a_filter_refuses_comes_back_to_the_sender() {
    let (listen, back) = (free_port(), free_port());
    let _filter = filter(listen, back);
    let site = advanced(listen, back).start();
    let sender = format!("{}@example.com", site.user());
    let virus = "Subject: virus\r\n\r\nBoo.\r\n";
    let id = send(&site, &sender, &["ann@box.example.com"], virus);
    let report = only_mail(&site, site.user());
    assert!(report.contains("554 5.7.0 Reject, infected"), "{report}");
    site.wait_for_log(&[&id, "to=<ann@box.example.com>", "dsn=5.7.0, status=bounced"]);
}

#[test]
fn a_filter_that_is_down_makes_mail_wait_and_loses_none() {
    let (listen, back) = (free_port(), free_port());
    let site = advanced(listen, back).main("minimal_backoff_time = 1s").start();
    let id = send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    site.wait_for_log(&[&id, "status=deferred", "Connection refused"]);
    let _filter = filter(listen, back);
    site.run("postqueue", &["-f"], "").ok();
    assert!(only_mail(&site, "ann").contains("X-Filtered: yes"));
}

#[test]
fn mail_that_is_put_back_goes_past_a_filter_that_was_given_up() {
    let (listen, back) = (free_port(), free_port());
    let site = advanced(listen, back).start();
    let id = send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    site.wait_for_log(&[&id, "status=deferred", "Connection refused"]);
    site.run("postconf", &["-e", "content_filter="], "").ok();
    site.postroad(&["reload"]).ok();
    site.run("postsuper", &["-r", &id], "").ok();
    site.run("postqueue", &["-f"], "").ok();
    assert!(!only_mail(&site, "ann").contains("X-Filtered"));
}

#[test]
fn header_checks_and_access_tables_choose_filters() {
    let checks = "/^Subject: by header/ FILTER discard:header\n/^Subject: away/ REDIRECT $user@example.com\n";
    let site = usual()
        .main("header_checks = regexp:$root/etc/checks")
        .main("body_checks = regexp:{{/^by body/ FILTER discard:body}}")
        .main("smtpd_sender_restrictions = check_sender_access inline:{{ filtered@client.example = FILTER discard:access }}")
        .file("checks", checks)
        .start();
    let to = ["ann@box.example.com"];
    for (sender, text, filter) in [
        ("jane@client.example", "Subject: by header\r\n\r\nx\r\n", "header"),
        ("jane@client.example", "Subject: x\r\n\r\nby body\r\n", "body"),
        ("filtered@client.example", "Subject: x\r\n\r\nx\r\n", "access"),
        ("filtered@client.example", "Subject: by header\r\n\r\nx\r\n", "header"),
    ] {
        let id = send(&site, sender, &to, text);
        let wanted = format!("status=sent ({filter})");
        site.wait_for_log(&[&id, "to=<ann@box.example.com>, relay=none, ", &wanted]);
    }
    send(&site, "filtered@client.example", &to, "Subject: away\r\n\r\nx\r\n");
    let mail = only_mail(&site, site.user());
    assert!(mail.contains("Subject: away"), "REDIRECT overrides FILTER: {mail}");
}

#[test]
fn spawn_runs_a_policy_server() {
    let policy = "#!/bin/sh\nwhile read line; do\n  case $line in\n    sender=evil*) answer='REJECT not you';;\n    sender=*) answer=DUNNO;;\n    '') echo \"action=$answer\"; echo;;\n  esac\ndone\n";
    let site = usual()
        .file("policy", policy)
        .main("smtpd_recipient_restrictions = check_policy_service unix:private/policy, permit_mynetworks, reject")
        .master("policy unix - n n - 0 spawn user=$user argv=/bin/sh $root/etc/policy")
        .start();
    send(&site, "jane@client.example", &["ann@box.example.com"], NOTE);
    let mut client = site.smtp();
    client.expect("EHLO client.example", 250);
    client.expect("MAIL FROM:<evil@client.example>", 250);
    let reply = client.expect("RCPT TO:<ann@box.example.com>", 554);
    assert!(reply.text().contains("not you"), "{reply:?}");
}

#[test]
fn local_users_mail_goes_where_main_cf_says() {
    let site = with_program(usual())
        .main("mailbox_command_maps = inline:{ { $user = /bin/sh $root/etc/show $root/mail/command } }")
        .start();
    send(&site, "jane@client.example", &[&format!("{}@example.com", site.user())], NOTE);
    assert!(shown(&site, "command").1.contains("Subject: note"));

    let passed = || {
        with_program(usual()).main("local_recipient_maps =").master(
            "show unix - n n - - pipe user=$user argv=/bin/sh $root/etc/show $root/mail/seen $recipient $original_recipient $nexthop",
        )
    };
    let user_at = |site: &Instance| format!("{}@example.com", site.user());
    for setting in ["mailbox_transport = show:there", "mailbox_transport_maps = inline:{ $user=show:there }"]
    {
        let site = passed().main(setting).start();
        let id = send(&site, "jane@client.example", &[&user_at(&site)], NOTE);
        let user = user_at(&site);
        assert_eq!(shown(&site, "seen").0, format!("[{user}][{user}][there]"), "{setting}");
        site.wait_for_log(&[&id, "/pipe[", "relay=show, ", "status=sent (delivered via show service)"]);
        site.wait_for_empty_queue();
        site.wait_for_lines(&["status=sent"], 1);
    }
    for setting in
        ["fallback_transport = show:there", "fallback_transport_maps = inline:{ nobody-here=show:there }"]
    {
        let site = passed().main(setting).start();
        send(&site, "jane@client.example", &["nobody-here@example.com"], NOTE);
        assert_eq!(shown(&site, "seen").0, "[nobody-here@example.com][nobody-here@example.com][there]");
    }
    let site = usual().main("local_recipient_maps =").main("luser_relay = $user").start();
    let id = send(&site, "jane@client.example", &["nobody-here@example.com"], NOTE);
    assert!(only_mail(&site, site.user()).contains("\nX-Original-To: nobody-here@example.com\n"));
    site.wait_for_log(&[&id, "orig_to=<nobody-here@example.com>, relay=local, "]);
}

const DOVECOT: &str = "base_dir = $root/dovecot/run\nstate_dir = $root/dovecot/state\nlog_path = $root/dovecot/log\n\
    protocols = lmtp\nssl = no\nmail_location = maildir:$root/dovecot/mail/%n\nfirst_valid_uid = 1\n\
    passdb {\n  driver = static\n  args = nopassword=y\n}\n\
    userdb {\n  driver = passwd-file\n  args = $root/etc/dovecot.users\n}\n\
    service lmtp {\n  unix_listener $root/dovecot/lmtp {\n    mode = 0666\n  }\n\
      inet_listener lmtp {\n    address = 127.0.0.1\n    port = PORT\n  }\n}\n";

fn dovecot(site: &Instance) -> Beside {
    for folder in ["dovecot", "dovecot/run", "dovecot/state", "dovecot/mail"] {
        fs::create_dir(site.path(folder)).expect("make a folder for Dovecot");
    }
    let user = nix::unistd::User::from_name("nobody").ok().flatten().expect("nobody");
    std::os::unix::fs::chown(site.path("dovecot/mail"), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .expect("give the mail to nobody");
    let mut dovecot = peer("dovecot");
    dovecot.args(["-F", "-c", &site.path("etc/dovecot.conf").display().to_string()]);
    let child = dovecot.stdin(Stdio::null()).spawn().expect("start Dovecot");
    wait_for("Dovecot to listen", || site.path("dovecot/lmtp").exists().then_some(()));
    Beside(child)
}

#[test]
fn dovecot_takes_mail_over_lmtp() {
    if !is_root("dovecot_takes_mail_over_lmtp") {
        return;
    }
    let port = free_port();
    let user = nix::unistd::User::from_name("nobody").ok().flatten().expect("nobody");
    let (uid, gid) = (user.uid, user.gid);
    let site = usual()
        .as_root()
        .main("virtual_transport = lmtp:unix:$root/dovecot/lmtp")
        .main("virtual_mailbox_domains = box.example.com")
        .main("virtual_mailbox_maps = inline:{ { ann@box.example.com = x }, { gone@box.example.com = x } }")
        .main(&format!("mailbox_transport = lmtp:inet:127.0.0.1:{port}"))
        .main("lmtp_destination_recipient_limit = 10")
        .master("lmtp unix - - n - - lmtp")
        .file("dovecot.conf", &DOVECOT.replace("PORT", &port.to_string()))
        .file("dovecot.users", &format!("ann::{uid}:{gid}::/nonexistent::\nann@box.example.com::{uid}:{gid}::/nonexistent::\nnews@example.com::{uid}:{gid}::/nonexistent::\n"))
        .start();
    let _dovecot = dovecot(&site);
    let mails = |name: &str| {
        let folder = site.path(&format!("dovecot/mail/{name}/new"));
        wait_for("mail in Dovecot", || {
            let found = fs::read_dir(&folder).ok()?.next()?.ok()?;
            fs::read_to_string(found.path()).ok()
        })
    };
    let id = send(&site, "news@example.com", &["ann@box.example.com", "gone@box.example.com"], NOTE);
    let mail = mails("ann");
    assert!(
        mail.starts_with("Return-Path: <news@example.com>\n")
            && mail.contains("Delivered-To: ann@box.example.com\n"),
        "{mail}"
    );
    site.wait_for_log(&[
        &id,
        "to=<ann@box.example.com>, relay=",
        "[",
        "dovecot/lmtp], ",
        "status=sent (250 2.0.0",
    ]);
    site.wait_for_log(&[&id, "to=<gone@box.example.com>", "dsn=5.1.1, status=bounced"]);
    // The report goes to a local user, whose mailbox is Dovecot's as well, over TCP.
    let report = mails("news");
    assert!(
        report.contains("gone@box.example.com") && report.contains("Delivered-To: news@example.com"),
        "{report}"
    );
    site.wait_for_log(&["/lmtp[", "to=<news@example.com>, relay=127.0.0.1[127.0.0.1]", "status=sent"]);
}
