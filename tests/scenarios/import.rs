//! Coming from Postfix: configurations as they are found in the field, and mail that still waits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use scenarios::{
    Builder, Instance, Postfix, Sink, Tracing, free_port, is_root, postfix_package, run, wait_for,
};

/// An instance with a configuration of Postfix imported into it; `@relay@` in its files is this port.
fn imported(name: &str, relay: u16) -> Instance {
    let site = Builder::new().prepare();
    let source = site.path("postfix");
    let fill = |text: &str| {
        let named =
            [("@source@", source.display().to_string()), ("@root@", site.root().display().to_string())];
        let text = text.replace("@port@", &site.port.to_string()).replace("@relay@", &relay.to_string());
        let text = text.replace("@user@", site.user());
        named.iter().fold(text, |text, (name, value)| text.replace(name, value))
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/imports").join(name);
    copy(&data, &source, &fill);
    let (path, before) = (source.display().to_string(), contents(&source));

    let target_before = contents(&site.etc());
    site.postroad(&["import", &path, "--dry-run"]);
    assert_eq!(contents(&site.etc()), target_before, "a dry run writes nothing");
    let report = site.postroad(&["import", &path]).ok().stdout;
    let expected = fill(&fs::read_to_string(data.join("expected")).expect("read what is expected"));
    for line in expected.lines() {
        assert!(report.contains(line), "“{line}” is missing in\n{report}");
    }
    assert_eq!(contents(&source), before, "the source is as it was");
    let after = contents(&site.etc());
    let again = site.postroad(&["import", &path]).ok().stdout;
    assert!(again.contains("\n0 files written"), "{again}");
    assert_eq!(contents(&site.etc()), after, "a second import changes nothing");
    site.postroad(&["check"]).ok();
    site.start();
    site
}

/// Copies a folder; a key and certificate is made where a configuration names one.
fn copy(from: &Path, to: &Path, fill: &dyn Fn(&str) -> String) {
    fs::create_dir_all(to).expect("make a folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("open a folder");
    for entry in fs::read_dir(from).expect("read the data").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target, fill);
            continue;
        }
        let text = fill(&fs::read_to_string(entry.path()).expect("read a file of the data"));
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        if text.contains("/server.pem") && entry.file_name() == "main.cf" {
            let pem = to.join("server.pem").display().to_string();
            let mut openssl = scenarios::peer("openssl");
            openssl.args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "9",
                "-subj",
                "/CN=mail.office.example",
            ]);
            openssl.args(["-keyout", &pem, "-out", &format!("{pem}.crt")]);
            run(openssl, b"").ok();
            let certificate = fs::read(format!("{pem}.crt")).expect("read the certificate");
            let key = fs::read(&pem).expect("read the key");
            fs::write(&pem, [key, certificate].concat()).expect("write both");
            fs::remove_file(format!("{pem}.crt")).expect("remove the certificate");
            fs::set_permissions(&pem, fs::Permissions::from_mode(0o644)).expect("open the key");
        }
        fs::write(&target, text).expect("write a file");
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).expect("set a mode");
    }
}

/// Every file below a folder, with its content and mode.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("read a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let mode = entry.metadata().expect("stat").permissions().mode();
            found.push((path.display().to_string(), fs::read(&path).expect("read a file"), mode));
        }
    }
    found.sort();
    found
}

fn send(site: &Instance, to: &str) {
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    let reply = smtp.message("someone@sender.example", &[to], "Subject: hi\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
}

#[test]
fn a_small_office_comes_over() {
    let site = imported("office", 1);
    send(&site, "info@office.example");
    let user = site.user().to_owned();
    assert_eq!(site.wait_for_mail(&user, 1).len(), 1);
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    smtp.expect("MAIL FROM:<spammer@bad.example>", 250);
    smtp.expect("RCPT TO:<postmaster@office.example>", 554);
}

#[test]
fn virtual_domains_with_dovecot_come_over() {
    let sink = Sink::start(free_port(), Duration::ZERO);
    let site = imported("virtual", sink.port);
    send(&site, "sales@customer.example");
    wait_for("the mail at the LMTP server", || (sink.recipients() == ["ann@customer.example"]).then_some(()));
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    smtp.expect("MAIL FROM:<a@b.example>", 250);
    smtp.expect("RCPT TO:<nobody-here@other.example>", 550);
}

#[test]
fn a_host_behind_a_smarthost_comes_over() {
    let sink = Sink::start(free_port(), Duration::ZERO);
    let site = imported("smarthost", sink.port);
    send(&site, "friend@far.example");
    wait_for("the mail at the smarthost", || (sink.recipients() == ["friend@far.example"]).then_some(()));
    let table = format!("hash:{}/sasl/passwd", site.etc().display());
    let found = site.run("postmap", &["-q", &format!("[127.0.0.1]:{}", sink.port), &table], "").ok();
    assert_eq!(found.stdout, "user:secret\n");
}

#[test]
fn mailing_lists_come_over() {
    let site = imported("lists", 1);
    send(&site, "members@lists.club.example");
    let user = site.user().to_owned();
    assert_eq!(site.wait_for_mail(&user, 1).len(), 1);
    wait_for("the archive", || {
        fs::read_to_string(site.path("archive")).ok().filter(|text| text.contains("hello"))
    });
}

#[test]
fn a_gateway_with_a_content_filter_comes_over() {
    let sink = Sink::start(free_port(), Duration::ZERO);
    let site = imported("gateway", sink.port);
    send(&site, "boss@customer.example");
    wait_for("the mail at the filter", || (sink.recipients() == ["boss@customer.example"]).then_some(()));
    let mut smtp = site.smtp();
    smtp.expect("EHLO client.example", 250);
    smtp.expect("MAIL FROM:<a@b.example>", 250);
    smtp.expect("RCPT TO:<x@elsewhere.example>", 554);
}

#[test]
fn what_was_changed_after_an_import_is_not_lost() {
    let site = imported("smarthost", 1);
    let main_cf = site.etc().join("main.cf");
    let edited = fs::read_to_string(&main_cf).expect("read main.cf") + "# mine\n";
    site.write("etc/main.cf", &edited);
    let path = site.path("postfix").display().to_string();
    let refused = site.postroad(&["import", &path]);
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("was changed since the last import"), "{refused:?}");
    assert_eq!(fs::read_to_string(&main_cf).expect("read main.cf"), edited);
    site.postroad(&["import", &path, "--force"]).ok();
    let kept = fs::read_to_string(site.etc().join("main.cf.before-import.2")).expect("read the copy");
    assert_eq!(kept, edited);
}

#[test]
fn mail_that_postfix_still_has_comes_over_once() {
    if !is_root("a queue of Postfix") {
        return;
    }
    let postfix = Postfix::start(&[
        "myhostname = old.example",
        "mydestination = old.example",
        "local_recipient_maps =",
        "defer_transports = smtp",
        "transport_maps = inline:{ {gone@far.example = discard:}, {bad@far.example = error:5.1.1 gone away} }",
        "virtual_alias_maps = inline:{ {all@old.example = one@far.example gone@far.example bad@far.example} }",
        "smtpd_relay_restrictions = permit_mynetworks, reject",
        "smtpd_recipient_restrictions = check_sender_access inline:{held@sender.example=HOLD}",
    ]);
    let long = "x".repeat(5000);
    let content = format!("Subject: old\r\nFrom: me@sender.example\r\n\r\n..stuffed\r\n{long}\r\n");
    for sender in ["me@sender.example", "held@sender.example"] {
        let mut smtp = postfix.smtp();
        smtp.expect("EHLO client.example", 250);
        let reply = smtp.message(sender, &["all@old.example"], &content);
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    wait_for("Postfix to defer", || postfix.log().contains("status=deferred").then_some(()));
    wait_for("Postfix to bounce", || postfix.log().contains("status=bounced").then_some(()));
    wait_for("Postfix to discard", || postfix.log().contains("status=sent").then_some(()));
    wait_for("Postfix to put it aside", || {
        let mut find = scenarios::peer("find");
        find.arg(postfix.path("queue/deferred")).args(["-type", "f"]);
        // The message, and the notice of what failed.
        (run(find, b"").stdout.lines().count() == 2).then_some(())
    });

    let sink = Sink::start(free_port(), Duration::ZERO);
    let site = Builder::new()
        .as_root()
        .main(&format!("relayhost = [127.0.0.1]:{}", sink.port))
        .master("smtp unix - - n - - smtp")
        .prepare();
    let queue = postfix.path("queue").display().to_string();
    let refused = site.postroad(&["import-queue", &queue]);
    assert!(refused.status == 1 && refused.stderr.contains("Postfix runs"), "{refused:?}");
    let copy = site.path("old-queue").display().to_string();
    let mut cp = scenarios::peer("cp");
    cp.args(["-a", &queue, &copy]);
    run(cp, b"").ok();

    let output = site.postroad(&["import-queue", &copy]).ok().stdout;
    assert!(output.contains("3 messages taken over, 0 left"), "{output}");
    let again = site.postroad(&["import-queue", &copy, "--set-aside"]).ok().stdout;
    assert!(again.contains("0 messages taken over, 0 left"), "{again}");
    assert_eq!(site.queue_ids().len(), 3);
    site.start();
    // Who has the message gets it no more.
    wait_for("what was deferred", || (sink.recipients().len() == 2).then_some(()));
    let mut recipients = sink.recipients();
    recipients.sort();
    assert_eq!(recipients, ["me@sender.example", "one@far.example"]);
    let held = wait_for("the rest to go", || Some(site.queue_ids()).filter(|left| left.len() == 1));
    let shown = site.run("postcat", &["-q", &held[0]], "").ok().stdout;
    assert!(shown.contains("sender: held@sender.example") && shown.contains("\n.stuffed\n"), "{shown}");
    assert!(shown.contains(&format!("\n{long}\n")) && shown.contains("(Postfix) with ESMTP id"), "{shown}");
    site.run("postsuper", &["-H", "ALL"], "").ok();
    wait_for("what was held", || (sink.recipients().len() == 5).then_some(()));
    let after = site.postroad(&["import-queue", &copy]).ok().stdout;
    assert!(after.contains("0 messages taken over"), "{after}");
}

/// The calls by which an import changes anything.
const STEPS: &str = "write,writev,pwrite64,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fchmod,fchmodat";

/// What an import has left of mail: the folder and the size of each file, by name.
fn queued(site: &Instance) -> Vec<(String, u64)> {
    let folders = ["maildrop", "hold", "incoming", "active", "deferred"];
    let mut found = Vec::new();
    for folder in folders {
        let mut find = scenarios::peer("find");
        find.arg(site.path("queue").join(folder)).args(["-type", "f", "-printf", "%f %m %s\n"]);
        let listed = run(find, b"").ok().stdout;
        found.extend(listed.lines().map(|line| {
            let (file, size) = line.rsplit_once(' ').expect("a name and a size");
            (format!("{folder}/{file}"), size.parse().expect("a size"))
        }));
    }
    found.sort();
    found
}

#[test]
fn an_import_of_mail_that_is_killed_at_any_step_is_completed_by_the_next() {
    if !is_root("a queue of Postfix") {
        return;
    }
    let postfix = Postfix::start(&[
        "myhostname = old.example",
        "mydestination = old.example",
        "local_recipient_maps =",
        "defer_transports = local",
        "smtpd_recipient_restrictions = check_sender_access inline:{held@sender.example=HOLD}",
    ]);
    for sender in ["me@sender.example", "held@sender.example"] {
        let mut smtp = postfix.smtp();
        smtp.expect("EHLO client.example", 250);
        let reply = smtp.message(sender, &["user@old.example"], "Subject: old\r\n\r\nHello.\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    wait_for("Postfix to defer", || postfix.log().contains("status=deferred").then_some(()));
    let scratch = tempfile::tempdir().expect("make a scratch folder");
    let old = scratch.path().join("old");
    let mut cp = scenarios::peer("cp");
    cp.arg("-a").arg(postfix.path("queue")).arg(&old);
    run(cp, b"").ok();
    submit_to_waiting(&postfix, &old);
    let old = old.display().to_string();
    let whole = Builder::new().as_root().prepare();
    let said = whole.postroad(&["import-queue", &old]).ok().stdout;
    assert!(said.contains("3 messages taken over, 0 left"), "{said}");
    let expected = queued(&whole);
    assert_eq!(expected.len(), 3, "{expected:?}");

    let mut killed = 0;
    for call in STEPS.split(',') {
        // strace counts each kind of call by itself.
        for_each_kill(call, &old, |site| {
            let again = site.postroad(&["import-queue", &old]).ok().stdout;
            assert!(again.contains(", 0 left"), "killed at a {call}: {again}");
            assert_eq!(queued(site), expected, "killed at a {call}");
            killed += 1;
        });
    }
    assert!(killed > 20, "killed at {killed} calls only");
}

/// Imports, each time into another instance, and kills it at its first, second, third call of this kind, until there is none.
fn for_each_kill(call: &str, old: &str, mut then: impl FnMut(&Instance)) {
    for step in 1..1000 {
        let site = Builder::new().as_root().prepare();
        let fault = Some(format!("{call}:signal=SIGKILL"));
        let tracing = Tracing { calls: call.to_owned(), fault, when: step.to_string(), ..Tracing::default() };
        let mut strace = tracing.command(&site.path("calls"));
        strace.arg(site.path("sbin/postroad")).args(["import-queue", old]).env("MAIL_CONFIG", site.etc());
        if run(strace, b"").status == 0 {
            return;
        }
        then(&site);
    }
    panic!("it does not get through");
}

/// A message of a program, in the maildrop of a Postfix that does not run.
fn submit_to_waiting(postfix: &Postfix, queue: &Path) {
    let (etc, running) = (queue.with_extension("etc"), postfix.path("queue").display().to_string());
    fs::create_dir_all(&etc).expect("make a folder");
    for name in ["main.cf", "master.cf"] {
        let text = fs::read_to_string(postfix.path("etc").join(name)).expect("read the configuration");
        fs::write(etc.join(name), text.replace(&running, &queue.display().to_string())).expect("write it");
    }
    let program = postfix_package().join("usr/sbin/sendmail");
    let mut sendmail = std::process::Command::new(program);
    sendmail.arg("-C").arg(&etc).args(["-f", "me@old.example", "user@old.example"]);
    sendmail.env("LD_LIBRARY_PATH", postfix_package().join("usr/lib/postfix"));
    run(sendmail, b"Subject: waits in maildrop\n\nHello.\n").ok();
}
