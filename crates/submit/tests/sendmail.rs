//! `sendmail` from the command line to the file in maildrop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod instance;

use instance::{Instance, code, copy, is_root, run, stderr};
use mail::{Body, DsnReturn, Notify};

#[test]
fn a_message_is_on_disk_when_sendmail_has_ended() {
    let instance = Instance::new("");
    let output =
        instance.sendmail(&["-f", "jane@example.com", "a@b, c@d", "e"], "Subject: x\r\n\r\nhello\r\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).starts_with("sendmail: warning: mail system is down"), "{}", stderr(&output));
    let (head, content) = instance.message();
    assert_eq!(head.sender.as_str(), "jane@example.com");
    let recipients: Vec<&str> = head.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(recipients, ["a@b", "c@d", "e"]);
    assert_eq!(content, "Subject: x\n\nhello\n");
}

#[test]
fn requests_of_rfc_3461_reach_the_envelope() {
    let instance = Instance::new("");
    let arguments =
        ["-N", "success,delay", "-R", "hdrs", "-V", "a+b", "-B", "8BITMIME", "-F", "Jane D", "-f", "<>", "x"];
    instance.sendmail(&arguments, "To: x\n\n");
    let (head, _) = instance.message();
    assert!(head.sender.is_null());
    assert_eq!(head.recipients[0].notify, Notify::SUCCESS.and(Notify::DELAY));
    assert_eq!((head.ret, head.body), (Some(DsnReturn::Headers), Body::EightBitMime));
    assert_eq!((head.envid.as_deref(), head.full_name.as_str()), (Some("a+2Bb"), "Jane D"));
}

#[test]
fn the_full_name_is_given_only_where_the_header_lacks_from() {
    let instance = Instance::new("");
    instance.sendmail(&["-F", "Jane D", "x"], "From: jane@example.com\n\n");
    assert_eq!(instance.message().0.full_name, "");
}

#[test]
fn recipients_of_header_and_command_line_are_joined() {
    let instance = Instance::new("");
    instance.sendmail(&["-t", "z"], "To: a@b\nBcc: c@d\n\nbody\n.\nlost\n");
    let (head, content) = instance.message();
    let recipients: Vec<&str> = head.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(recipients, ["z", "a@b", "c@d"]);
    assert_eq!(content, "To: a@b\nBcc: c@d\n\nbody\n", "Bcc is for cleanup to remove");
}

#[test]
fn who_says_no_recipient_is_told_so() {
    let instance = Instance::new("");
    for (arguments, input) in [(&[][..], "x\n"), (&["-t"], "Subject: x\n\n"), (&["-t"], "no header\nTo: a\n")]
    {
        let output = instance.sendmail(arguments, input);
        assert_eq!(code(&output), 64, "{}", stderr(&output));
        assert!(stderr(&output).contains("recipient addresses"), "{}", stderr(&output));
    }
    assert!(instance.files().is_empty());
}

#[test]
fn no_recipient_is_left_out_in_silence() {
    let instance = Instance::new("");
    let long = format!("{}@example.com", "x".repeat(3000));
    let field = format!("To: a\nBcc: {long}\n\n");
    let told = "recipient address is longer than 2048 bytes: xxx";
    for (arguments, input, told) in [
        (&["a", &long][..], b"x\n".as_slice(), told),
        (&["-t", "a"], field.as_bytes(), told),
        (&["-bv", "a", &long], b"", told),
        (&["-f", &long, "a"], b"x\n", "sender address is longer than 2048 bytes: xxx"),
        (&["-t"], b"To: a, j\xf6rg@example.com\n\n", "recipient address is not UTF-8: j"),
    ] {
        let output = instance.sendmail(arguments, input);
        assert_eq!(code(&output), 65, "{}", stderr(&output));
        assert!(stderr(&output).starts_with(&format!("sendmail: fatal: {told}")), "{}", stderr(&output));
    }
    assert!(instance.files().is_empty());
}

#[test]
fn a_message_beyond_the_limit_is_refused_whole() {
    let instance =
        Instance::new("message_size_limit = 200000\nmailbox_size_limit = 0\nvirtual_mailbox_limit = 0");
    let line = "0123456789".repeat(7) + "\n";
    let output = instance.sendmail(&["x"], line.repeat(200_000 / 71 + 1));
    assert_eq!((code(&output), instance.files().len()), (69, 0), "{}", stderr(&output));
    assert!(stderr(&output).contains("message file too big"), "{}", stderr(&output));
    assert_eq!(code(&instance.sendmail(&["x"], line.repeat(200_000 / 71))), 0);
}

#[test]
fn a_large_message_streams_through() {
    let instance = Instance::new("");
    let text = "To: x\n\n".to_owned() + &("0123456789".repeat(7) + "\n").repeat(20_000);
    instance.sendmail(&["x"], &text);
    assert!(instance.message().1 == text);
}

#[test]
fn users_who_may_not_submit_are_refused() {
    assert_refuses_all("authorized_submit_users = nobody-of-this-name");
}

#[test]
fn where_a_table_says_who_may_submit_postdrop_asks_it() {
    let instance = Instance::new("authorized_submit_users = !inline:{nobody-of-this-name=x}, static:all");
    for text in ["Subject: small\n\n".to_owned(), "Subject: large\n\n".to_owned() + &"text\n".repeat(100_000)]
    {
        let output = instance.sendmail(&["x"], &text);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).starts_with("postdrop: warning: mail system is down"), "{}", stderr(&output));
    }
    assert_eq!(instance.files().len(), 2);
    assert_refuses_all("authorized_submit_users = inline:{nobody-of-this-name=x}");
}

fn assert_refuses_all(main_cf: &str) {
    let instance = Instance::new(main_cf);
    let output = instance.sendmail(&["x"], "x\n");
    assert_eq!((code(&output), instance.files().len()), (77, 0), "{}", stderr(&output));
    assert!(stderr(&output).contains("is not allowed to submit mail"), "{}", stderr(&output));
}

#[test]
fn what_is_closed_is_not_taken_for_the_file_of_a_message() {
    let instance = Instance::new("");
    let program = env!("CARGO_BIN_EXE_sendmail");
    for closed in ["2>&-", "<&-", "<&- >&- 2>&-"] {
        let mut shell = instance.command("/bin/sh");
        let output = run(shell.args(["-c", &format!("exec {program} -v x {closed}")]), b"Subject: x\n\n");
        assert_eq!(code(&output), 0, "{closed}: {}", stderr(&output));
        let text = if closed.starts_with('<') { "" } else { "Subject: x\n\n" };
        assert_eq!(instance.message().1, text, "{closed}");
        std::fs::remove_dir_all(instance.path("queue/maildrop")).unwrap();
        std::fs::create_dir(instance.path("queue/maildrop")).unwrap();
    }
}

#[test]
fn nobody_who_reads_is_no_reason_to_end_early() {
    let instance = Instance::new("");
    let mut command = instance.command(env!("CARGO_BIN_EXE_sendmail"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = run(command.args(["-v", "x"]).stdout(writer), b"Subject: x\n\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(instance.message().1, "Subject: x\n\n");
}

#[test]
fn what_is_not_offered_says_so() {
    let instance = Instance::new("");
    let output = instance.sendmail(&["-XV", "x"], "x\n");
    assert_eq!(code(&output), 69, "{}", stderr(&output));
    assert!(stderr(&output).contains("is not offered"), "{}", stderr(&output));
    assert!(instance.files().is_empty());
}

#[test]
fn programs_that_speak_smtp_to_it_are_served() {
    let instance =
        Instance::new("message_size_limit = 1000\nmailbox_size_limit = 0\nvirtual_mailbox_limit = 0");
    let message = |to: &str, text: &str| {
        format!(
            "MAIL FROM:<joe@example.com> BODY=8BITMIME\r\nRCPT TO:<{to}>\r\nDATA\r\nSubject: x\r\n\r\n{text}\r\n.\r\n"
        )
    };
    let said =
        ["EHLO x\r\n", &message("big@b", &"x\r\n".repeat(1000)), &message("-a@b", "..\r\nü"), "QUIT\r\n"];
    let output = instance.sendmail(&["-bs", "-i"], said.concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let replies = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(replies.contains("\r\n554 5.3.0 Error: message file too big\r\n250 2.1.0"), "{replies}");
    assert!(replies.ends_with("\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"), "{replies}");
    let (head, content) = instance.message();
    assert_eq!((head.sender.as_str(), head.recipients[0].address.as_str()), ("joe@example.com", "-a@b"));
    assert_eq!((head.body, content.as_str()), (Body::EightBitMime, "Subject: x\n\n.\nü\n"));
}

#[test]
fn a_program_that_is_ended_while_it_speaks_smtp_leaves_no_part_of_a_message() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::process::CommandExt;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;

    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let ways = ["", "authorized_submit_users = !inline:{nobody-of-this-name=x}, static:all"];
    let signals = [Signal::SIGKILL, Signal::SIGTERM];
    for (way, signal, lines) in ways
        .iter()
        .flat_map(|way| signals.iter().flat_map(move |signal| [1, 20_000].map(|n| (way, signal, n))))
    {
        let instance = Instance::new(way);
        let mut command = instance.command(env!("CARGO_BIN_EXE_sendmail"));
        let mut child = command.arg("-bs").process_group(0).spawn().unwrap();
        let (mut said, mut heard) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        said.write_all(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n").unwrap();
        assert!(heard.by_ref().lines().any(|line| line.unwrap().starts_with("354 ")));
        said.write_all("Only a part of the message\r\n".repeat(lines).as_bytes()).unwrap();
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(id, *signal).unwrap();
        child.wait().unwrap();
        // Whoever worked for it goes on to its end, as a child of this process.
        while waitpid(Pid::from_raw(-id.as_raw()), None).is_ok() {}
        let finished = instance.files().into_iter().filter(|(mode, _)| *mode == 0o744).count();
        assert_eq!(finished, 0, "{way:?} {signal} {lines}");
    }
}

#[test]
fn who_asks_for_a_report_is_told_that_it_comes() {
    let instance = Instance::new("");
    let output = instance.sendmail(&["-v", "-f", "joe@example.com", "x"], "Subject: x\n\nx\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "Mail Delivery Status Report will be mailed to <joe@example.com>.\n");
    let (head, content) = instance.message();
    assert_eq!((head.trace, content.as_str()), (mail::Trace::Deliveries, "Subject: x\n\nx\n"));
}

#[test]
fn a_probe_reads_nothing_and_names_its_recipients() {
    let instance = Instance::new("");
    let output = instance.sendmail(&["-bv", "-f", "joe@example.com", "x", "y@z"], "not read\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let (head, content) = instance.message();
    assert_eq!((head.trace, head.recipients.len()), (mail::Trace::Probe, 2));
    assert_eq!(content, "Subject: probe\nTo: x,\n\ty@z\n\n");
    assert_eq!(code(&instance.sendmail(&["-bv"], "")), 64);
}

#[test]
fn errors_of_main_cf_name_file_and_line() {
    let instance = Instance::new("message_size_limit = many");
    let output = instance.sendmail(&["x"], "x\n");
    assert_eq!((code(&output), instance.files().len()), (78, 0));
    assert!(stderr(&output).contains("main.cf:4:"), "{}", stderr(&output));
}

#[test]
fn a_slip_that_does_not_concern_it_keeps_no_mail_back() {
    let instance = Instance::new("smtpd_timeout = soon\nmydestnation = x\nno equals sign");
    assert_eq!(code(&instance.sendmail(&["x"], "x\n")), 0);
    let instance = Instance::new("authorized_submit_user = joe");
    assert_eq!(code(&instance.sendmail(&["x"], "x\n")), 78, "a misspelt restriction is no restriction");
}

#[test]
fn other_modes_become_the_program_that_does_it() {
    let instance = Instance::new("");
    let bin = instance.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["postqueue", "postalias", "postroad"] {
        let script = format!("#!/bin/sh\necho \"{name} $* $MAIL_CONFIG\"\n");
        let written = instance.path(name);
        std::fs::write(&written, script).unwrap();
        std::fs::set_permissions(&written, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        copy(&written, &bin.join(name));
    }
    let conf = instance.path("conf");
    let main_cf = format!("command_directory = {}\nalias_database = hash:/x, /y\n", bin.display());
    std::fs::write(conf.join("main.cf"), main_cf).unwrap();
    let said = |program: &str, arguments: &[&str]| {
        let output = run(instance.command(program).args(arguments), b"");
        String::from_utf8(output.stdout).unwrap().trim().replace(&conf.display().to_string(), "CONF")
    };
    let (sendmail, mailq) = (env!("CARGO_BIN_EXE_sendmail"), env!("CARGO_BIN_EXE_mailq"));
    assert_eq!(said(mailq, &[]), "postqueue -p CONF");
    assert_eq!(said(sendmail, &["-bp"]), "postqueue -p CONF");
    assert_eq!(said(sendmail, &["-q"]), "postqueue -f CONF");
    assert_eq!(said(sendmail, &["-qI4cXYZ"]), "postqueue -i 4cXYZ CONF");
    assert_eq!(said(sendmail, &["-qRexample.com"]), "postqueue -s example.com CONF");
    assert_eq!(said(sendmail, &["-bd", "-q15m"]), "postroad start CONF");
    assert_eq!(said(env!("CARGO_BIN_EXE_newaliases"), &[]), "postalias -- hash:/x /y CONF");
    assert_eq!(said(sendmail, &["-bi", "-oAhash:/z"]), "postalias -- hash:/z CONF");
    assert_eq!(said(sendmail, &["-bh"]), "");
}

#[test]
fn sendmail_is_what_it_is_called() {
    use std::os::unix::process::CommandExt;
    let instance = Instance::new("command_directory = /nowhere");
    let mut command = instance.command(env!("CARGO_BIN_EXE_sendmail"));
    let output = run(command.arg0("/usr/bin/mailq"), b"");
    assert!(stderr(&output).contains("/nowhere/postqueue"), "{}", stderr(&output));
}

#[test]
fn postdrop_takes_what_sendmail_may_not_write() {
    if !is_root() {
        return;
    }
    use std::os::unix::process::CommandExt;
    let instance = Instance::new("");
    let mut command = instance.command(env!("CARGO_BIN_EXE_sendmail"));
    let output = run(command.args(["-f", "me", "x"]).uid(65_534).gid(65_534), b"x\n");
    // Here postdrop has no more rights either, and its exit code and reason come through.
    assert_eq!((code(&output), instance.files().len()), (75, 0), "{}", stderr(&output));
    assert!(stderr(&output).contains("postdrop: fatal: create a file in"), "{}", stderr(&output));
    assert!(stderr(&output).contains("the set-group-id bit"), "{}", stderr(&output));
}
