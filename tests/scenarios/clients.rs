//! Clients that others wrote, and content that must come out as it went in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use scenarios::{Instance, Output, messages, peer, postfix_peer, run};

use crate::site::{greeted, only_mail, usual};

const ANN: &str = "ann@box.example.com";

/// Contents that a careless mail system changes.
fn difficult() -> Vec<(&'static str, Vec<u8>)> {
    let with = |body: &[u8]| [b"From: jane@client.example\r\nSubject: difficult\r\n\r\n", body].concat();
    vec![
        ("dots", with(b".\r\n..\r\n.a\r\n...\r\nb.\r\n.\r\n")),
        ("no body", b"Subject: difficult\r\n\r\n".to_vec()),
        ("empty lines at the end", with(b"a\r\n\r\n\r\n\r\n")),
        ("8-bit", with(&(0x80..=0xff).chain(*b"\r\n").collect::<Vec<u8>>())),
        ("control characters", with(b"\x01\x08\x0b\x0c\x1b\x7f\ta \r\n")),
        ("blanks at the end", with(b"a  \r\n\t\r\n \r\n")),
        ("a line that looks like From", with(b"From here on\r\n>From there\r\n")),
        ("a long line", with(&[&b"x".repeat(100_000)[..], b"\r\n"].concat())),
        (
            "a megabyte",
            with(&b"0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRST==\r\n".repeat(15_000)),
        ),
    ]
}

/// What is in the queue has LF line ends, and so has the Maildir.
fn stored(content: &[u8]) -> Vec<u8> {
    replace(content, b"\r\n", b"\n")
}

fn replace(content: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut rest, mut replaced) = (content, Vec::new());
    while let Some(place) = find(rest, old) {
        replaced.extend([&rest[..place], new].concat());
        rest = &rest[place + old.len()..];
    }
    [&replaced, rest].concat()
}

/// The delivered message without the headers that were put before it or that were missing.
fn received(mail: &[u8], sent: &[u8]) -> Vec<u8> {
    let first = sent.split(|byte| *byte == b'\n').next().unwrap();
    let start =
        find(mail, first).unwrap_or_else(|| panic!("no {first:?} in {}", String::from_utf8_lossy(mail)));
    let (header, body) = mail[start..].split_at(find(&mail[start..], b"\n\n").expect("a header"));
    let own = [&b"Message-Id:"[..], b"Date:", b"From:"].map(|name| (name, find(sent, name).is_some()));
    let added = |line: &[u8]| own.iter().any(|(name, present)| !present && line.starts_with(name));
    let kept: Vec<&[u8]> = header.split(|byte| *byte == b'\n').filter(|line| !added(line)).collect();
    [&kept.join(&b'\n'), body].concat()
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn assert_same(site: &Instance, name: &str, sent: &[u8]) {
    site.wait_for_mail("ann", 1);
    let mails = messages(&site.maildir("ann"));
    assert_eq!(mails.len(), 1, "{name}");
    let (received, sent) = (received(&mails[0], &stored(sent)), stored(sent));
    let place = received.iter().zip(&sent).position(|(a, b)| a != b);
    assert!(
        received == sent,
        "{name}: {} bytes became {}; difference at {place:?}",
        sent.len(),
        received.len()
    );
    site.wait_for_empty_queue();
    for folder in ["new", "cur"] {
        fs::read_dir(site.maildir("ann").join(folder))
            .unwrap()
            .for_each(|mail| fs::remove_file(mail.unwrap().path()).unwrap());
    }
}

#[test]
fn content_sent_with_data_comes_out_as_it_went_in() {
    let site = usual().start();
    let mut client = greeted(&site);
    for (name, content) in difficult() {
        client.expect("MAIL FROM:<jane@client.example> BODY=8BITMIME", 250);
        client.expect(&format!("RCPT TO:<{ANN}>"), 250);
        client.expect("DATA", 354);
        client.send_raw(&replace(&content, b"\r\n.", b"\r\n.."));
        client.expect(".", 250);
        assert_same(&site, name, &content);
    }
}

#[test]
fn content_sent_with_bdat_comes_out_as_it_went_in() {
    let site = usual().start();
    let mut client = greeted(&site);
    for (name, content) in difficult() {
        client.expect("MAIL FROM:<jane@client.example> BODY=8BITMIME", 250);
        client.expect(&format!("RCPT TO:<{ANN}>"), 250);
        let (first, rest) = content.split_at(content.len() / 3);
        client.send_raw(&[format!("BDAT {}\r\n", first.len()).as_bytes(), first].concat());
        assert_eq!(client.read_reply().code, 250, "{name}");
        client.send_raw(&[format!("BDAT {} LAST\r\n", rest.len()).as_bytes(), rest].concat());
        assert_eq!(client.read_reply().code, 250, "{name}");
        assert_same(&site, name, &content);
    }
}

#[test]
fn bdat_without_a_final_line_end_gets_one() {
    let site = usual().start();
    let mut client = greeted(&site);
    client.expect("MAIL FROM:<jane@client.example>", 250);
    client.expect(&format!("RCPT TO:<{ANN}>"), 250);
    let content = b"Subject: difficult\r\n\r\nno end";
    client.send_raw(&[b"BDAT 28 LAST\r\n", &content[..]].concat());
    assert_eq!(client.read_reply().code, 250);
    assert_same(&site, "no end", b"Subject: difficult\r\n\r\nno end\r\n");
}

#[test]
fn sendmail_takes_content_as_it_is() {
    let site = usual().start();
    for (name, content) in difficult() {
        let mut sendmail = site.command(&site.path("sbin/sendmail").display().to_string());
        sendmail.args(["-i", "-f", "jane@client.example", ANN]);
        run(sendmail, &stored(&content)).ok();
        assert_same(&site, name, &content);
    }
}

/// A peer that is told to send to the instance.
fn client(program: &str, arguments: &[&str]) -> Command {
    let mut command = peer(program);
    command.args(arguments);
    command
}

fn file(site: &Instance, content: &[u8]) -> PathBuf {
    let path = site.path("message");
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn swaks_delivers_an_attachment_to_several_recipients() {
    let site = usual().start();
    let attachment = file(&site, &[0, 1, 2, 0xff].repeat(250_000));
    let (port, attachment) = (site.port.to_string(), format!("@{}", attachment.display()));
    let to = format!("{ANN},admin@lists.example.com");
    let swaks =
        ["-s", "127.0.0.1", "-p", &port, "-f", "jane@client.example", "-t", &to, "--attach", &attachment];
    let said = run(client("swaks", &swaks), b"").ok().stdout;
    assert!(said.contains("250 2.0.0 Ok: queued as "), "{said}");
    assert_eq!(decoded_size(&only_mail(&site, "ann")), 1_000_000);
    assert_eq!(decoded_size(&only_mail(&site, site.user())), 1_000_000);
}

/// The size of the attachment, as Python's email package decodes it.
fn decoded_size(mail: &str) -> usize {
    let script = "import email,sys\nm=email.message_from_bytes(sys.stdin.buffer.read())\n\
                  print(max(len(p.get_payload(decode=True) or b'') for p in m.walk()))";
    run(client("python3", &["-c", script]), mail.as_bytes()).ok().stdout.trim().parse().unwrap()
}

#[test]
fn swaks_pipelines() {
    let site = usual().start();
    let port = site.port.to_string();
    let swaks = ["-s", "127.0.0.1", "-p", &port, "-f", "jane@client.example", "-t", ANN, "--pipeline"];
    run(client("swaks", &swaks), b"").ok();
    assert!(only_mail(&site, "ann").contains("This is a test mailing"));
}

#[test]
fn swaks_is_told_of_a_recipient_that_is_refused() {
    let site = usual().start();
    let port = site.port.to_string();
    let swaks = ["-s", "127.0.0.1", "-p", &port, "-f", "jane@client.example", "-t", "bob@box.example.com"];
    let output: Output = run(client("swaks", &swaks), b"");
    assert!(
        output.status != 0 && output.stdout.contains("<** 550 5.1.1 <bob@box.example.com>"),
        "{output:?}"
    );
}

#[test]
fn s_nail_sends_over_smtp() {
    let site = usual().start();
    let mta = format!("mta=smtp://127.0.0.1:{}", site.port);
    let mut nail = client("s-nail", &["-n", "-S", "v15-compat", "-S", &mta, "-S", "smtp-auth=none"]);
    nail.args(["-S", "from=jane@client.example", "-S", "nosave", "-s", "from s-nail", ANN]);
    nail.env("HOME", site.root());
    run(nail, "Grüße.\n".as_bytes()).ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.contains("Subject: from s-nail") && mail.contains("From: jane@client.example"), "{mail}");
}

#[test]
fn s_nail_sends_with_sendmail() {
    let site = usual().start();
    let mut nail = site.command(&peer("s-nail").get_program().to_string_lossy());
    nail.args(["-n", "-S", &format!("mta={}", site.path("sbin/sendmail").display())]);
    nail.args(["-S", "from=jane@client.example", "-s", "from s-nail", ANN]);
    run(nail, b"Hello.\n").ok();
    assert!(only_mail(&site, "ann").contains("Subject: from s-nail"));
}

#[test]
fn python_sends_8bit_content_and_international_addresses() {
    let site = usual().main("virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ }, { jürgen@box.example.com = ann/ } }").start();
    let script = format!(
        "import smtplib\n\
         s = smtplib.SMTP('127.0.0.1', {})\n\
         m = 'Subject: Grüße\\r\\n\\r\\nfür Jürgen\\r\\n'.encode()\n\
         s.sendmail('jürgen@client.example', ['jürgen@box.example.com'], m, mail_options=['SMTPUTF8', 'BODY=8BITMIME'])\n\
         s.quit()\n",
        site.port
    );
    run(client("python3", &["-c", &script]), b"").ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.starts_with("Return-Path: <jürgen@client.example>\n"), "{mail}");
    assert!(mail.contains(" with UTF8SMTP id ") && mail.contains("Subject: Grüße\n"), "{mail}");
    assert!(mail.ends_with("\n\nfür Jürgen\n"), "{mail}");
}

#[test]
fn python_learns_which_of_many_recipients_are_refused() {
    let site = usual().start();
    let script = format!(
        "import smtplib\n\
         s = smtplib.SMTP('127.0.0.1', {})\n\
         to = ['{ANN}', 'bob@box.example.com', 'admin@lists.example.com', 'carl@box.example.com']\n\
         print(s.sendmail('jane@client.example', to, 'Subject: many\\r\\n\\r\\nHello.\\r\\n'))\n",
        site.port
    );
    let said = run(client("python3", &["-c", &script]), b"").ok().stdout;
    assert!(
        said.contains("'bob@box.example.com': (550") && said.contains("'carl@box.example.com': (550"),
        "{said}"
    );
    assert!(!said.contains("ann@"), "{said}");
    only_mail(&site, "ann");
    only_mail(&site, site.user());
}

#[test]
fn msmtp_sends() {
    let site = usual().start();
    let port = format!("--port={}", site.port);
    let msmtp = ["--host=127.0.0.1", &port, "--from=jane@client.example", "--auth=off", "--tls=off", ANN];
    run(client("msmtp", &msmtp), b"Subject: from msmtp\n\n.Hello.\n.\n").ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.contains("Subject: from msmtp\n") && mail.ends_with("\n\n.Hello.\n.\n"), "{mail}");
}

#[test]
fn curl_sends() {
    let site = usual().start();
    let content = file(&site, b"Subject: from curl\r\n\r\n.Hello.\r\n.\r\n");
    let (url, content) =
        (format!("smtp://127.0.0.1:{}/client.example", site.port), content.display().to_string());
    let curl =
        ["-sS", &url, "--mail-from", "jane@client.example", "--mail-rcpt", ANN, "--upload-file", &content];
    run(client("curl", &curl), b"").ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.contains("Subject: from curl\n") && mail.ends_with("\n\n.Hello.\n.\n"), "{mail}");
}

#[test]
fn smtp_source_sends_in_fifty_sessions_without_an_error() {
    let site = usual().start();
    let server = format!("127.0.0.1:{}", site.port);
    for reuse in [&["-d"][..], &[]] {
        let mut source = postfix_peer("smtp-source");
        source.args(["-s", "50", "-m", "1000", "-l", "4096"]).args(reuse);
        source.args(["-f", "jane@client.example", "-t", ANN, &server]);
        let output = run(source, b"").ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    }
    assert_eq!(site.wait_for_mail("ann", 2000).len(), 2000);
    site.wait_for_empty_queue();
    let log = site.log();
    // A session ends on this side a little after its client has gone and come again.
    let odd: Vec<&str> =
        log.lines().filter(|line| line.contains("warning: ") && !line.contains("near its limit")).collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

#[test]
fn the_lines_of_a_message_stand_in_the_order_that_log_tools_rely_on() {
    let site = usual().start();
    let mut source = postfix_peer("smtp-source");
    source.args(["-d", "-s", "5", "-m", "300", "-l", "4096", "-f", "jane@client.example", "-t", ANN]);
    source.arg(format!("127.0.0.1:{}", site.port));
    run(source, b"").ok();
    site.wait_for_mail("ann", 300);
    site.wait_for_lines(&[": removed"], 300);
    let log = site.log();
    let places = ["/smtpd[", "/qmgr[", "[", "/qmgr["];
    let words = [": client=", ": from=<", ": to=<", ": removed"];
    let stands = |id: &str| {
        let line = |(program, word): (&&str, &&str)| {
            let wanted = format!(": {id}{word}");
            log.lines().position(|line| line.contains(*program) && line.contains(&wanted))
        };
        places.iter().zip(&words).map(line).map(Option::unwrap).is_sorted()
    };
    let ids = log.lines().filter_map(|line| line.strip_suffix(": removed")?.rsplit(' ').next());
    // Kept by time: where a program's writer is not let run in between, it may be otherwise.
    let in_order = ids.filter(|id| stands(id)).count();
    assert!(in_order >= 270, "{in_order} of 300; by the log:\n{log}");
}
