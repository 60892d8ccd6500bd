//! The SMTP client against Postfix's smtp-sink and its failure modes: what it logs is what real Postfix logs of the same server.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use scenarios::{Builder, Instance, Postfix, free_port, is_root, peer, postfix_peer, run, wait_for};

/// A server that fails as it is told to. Dropping it ends it.
struct SmtpSink {
    child: Child,
    port: u16,
}

impl SmtpSink {
    fn start(options: &[&str]) -> Self {
        let port = free_port();
        let mut command = postfix_peer("smtp-sink");
        if is_root("as root smtp-sink needs a user") {
            command.args(["-u", "nobody"]);
        }
        command.args(options).args([&format!("127.0.0.1:{port}"), "100"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let sink = Self { child: child.expect("start smtp-sink"), port };
        wait_for("smtp-sink to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        sink
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One way to fail: a name for it, and the options of the servers in their order.
const WAYS: &[(&str, &[&[&str]])] = &[
    ("fine", &[&[]]),
    ("plain-smtp", &[&["-e"]]),
    ("no-pipelining", &[&["-p", "-N", "-8", "-E"]]),
    ("hangup-connect", &[&["-q", "CONNECT"]]),
    ("hangup-ehlo", &[&["-q", "EHLO"]]),
    ("hangup-mail", &[&["-q", "MAIL"]]),
    ("hangup-rcpt", &[&["-q", "RCPT"]]),
    ("hangup-data", &[&["-q", "DATA"]]),
    ("hangup-dot", &[&["-q", "."]]),
    ("hangup-quit", &[&["-q", "QUIT"]]),
    ("closing-connect", &[&["-Q", "CONNECT"]]),
    ("closing-ehlo", &[&["-Q", "EHLO"]]),
    ("closing-mail", &[&["-Q", "MAIL"]]),
    ("closing-rcpt", &[&["-Q", "RCPT"]]),
    ("closing-data", &[&["-Q", "DATA"]]),
    ("closing-dot", &[&["-Q", "."]]),
    ("soft-connect", &[&["-r", "CONNECT"]]),
    ("soft-ehlo", &[&["-r", "EHLO"]]),
    ("soft-hello", &[&["-r", "EHLO,HELO"]]),
    ("soft-mail", &[&["-r", "MAIL"]]),
    ("soft-rcpt", &[&["-r", "RCPT"]]),
    ("soft-data", &[&["-r", "DATA"]]),
    ("soft-dot", &[&["-r", "."]]),
    ("hard-connect", &[&["-f", "CONNECT"]]),
    ("hard-ehlo", &[&["-f", "EHLO"]]),
    ("hard-hello", &[&["-f", "EHLO,HELO"]]),
    ("hard-mail", &[&["-f", "MAIL"]]),
    ("hard-rcpt", &[&["-f", "RCPT"]]),
    ("hard-data", &[&["-f", "DATA"]]),
    ("hard-dot", &[&["-f", "."]]),
    ("odd-soft", &[&["-r", "RCPT", "-b", "452 4.5.3 too many"]]),
    ("many-lines", &[&["-f", "RCPT", "-B", "550 5.1.1 nobody  of  that name"]]),
    ("soft-then-fine", &[&["-r", "MAIL"], &[]]),
    ("hangup-then-fine", &[&["-q", "DATA"], &[]]),
    ("hard-then-fine", &[&["-f", "RCPT"], &[]]),
    ("greeting-then-fine", &[&["-f", "CONNECT"], &[]]),
    ("slow-data", &[&["-W", "DATA:30"]]),
    ("slow-dot", &[&["-p", "-W", ".:30"]]),
    ("slow-mail", &[&["-p", "-W", "MAIL:30"]]),
];

const RECIPIENTS: [&str; 2] = ["one", "two"];

/// What both are told.
const SETTINGS: [&str; 9] = [
    "myhostname = mail.example.com",
    "myorigin = example.com",
    "mydestination =",
    "inet_interfaces = 127.0.0.1",
    "mynetworks = 127.0.0.0/8",
    "smtp_data_init_timeout = 8s",
    "smtp_data_done_timeout = 8s",
    "smtp_mail_timeout = 8s",
    "smtp_destination_concurrency_limit = 1",
];

fn routes(sinks: &[(&str, Vec<SmtpSink>)]) -> String {
    let route = |(name, sinks): &(&str, Vec<SmtpSink>)| {
        let places: Vec<String> = sinks.iter().map(|sink| format!("[127.0.0.1]:{}", sink.port)).collect();
        format!("{{ {name}.test = smtp:{} }}", places.join(" "))
    };
    format!("transport_maps = inline:{{ {} }}", sinks.iter().map(route).collect::<Vec<_>>().join(", "))
}

fn send(port: u16, way: &str) {
    let mut smtp = scenarios::Smtp::connect(port);
    smtp.command("EHLO client");
    smtp.command("MAIL FROM:<sender@example.com>");
    for recipient in RECIPIENTS {
        smtp.command(&format!("RCPT TO:<{recipient}@{way}.test>"));
    }
    smtp.command("DATA");
    assert_eq!(smtp.command("Subject: x\r\n\r\nbody\r\n.").code, 250);
}

/// What the log says of the first attempt for each recipient: all but times and numbers that differ from run to run.
pub(super) fn results(log: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(": to=<") && line.contains(".test>")) {
        let (_, rest) = line.split_once(": to=<").unwrap_or_default();
        let (address, rest) = rest.split_once('>').unwrap_or_default();
        let relay = rest.split(", ").find_map(|field| field.trim_start_matches(", ").strip_prefix("relay="));
        let (_, result) = rest.split_once("dsn=").unwrap_or_default();
        let text = format!("{} {result}", relay.unwrap_or_default());
        found.entry(address.to_owned()).or_insert(text);
    }
    found
}

fn wait_for_results(log: impl Fn() -> String) -> BTreeMap<String, String> {
    wait_for("every recipient's first result", || {
        let found = results(&log());
        (found.len() == WAYS.len() * RECIPIENTS.len()).then_some(found)
    })
}

#[test]
fn whatever_a_server_does_the_log_says_what_postfix_says() {
    if !is_root("real Postfix") {
        return;
    }
    let start = |options: &[&[&str]]| options.iter().map(|options| SmtpSink::start(options)).collect();
    let sinks: Vec<(&str, Vec<SmtpSink>)> = WAYS.iter().map(|(name, ways)| (*name, start(ways))).collect();
    let routes = routes(&sinks);
    let builder = SETTINGS.iter().fold(Builder::new().as_root(), |builder, line| builder.main(line));
    let ours: Instance = builder.main(&routes).master("smtp unix - - n - - smtp").start();
    let theirs = Postfix::start(&[&SETTINGS[..], &[&routes]].concat());
    for (way, _) in &sinks {
        send(ours.port, way);
        send(theirs.port, way);
    }
    let expected = wait_for_results(|| theirs.log());
    let found = wait_for_results(|| ours.log());
    let differences: Vec<String> = expected
        .iter()
        .filter(|(address, text)| found.get(*address) != Some(text))
        .map(|(address, text)| format!("{address}\n  Postfix:  {text}\n  Postroad: {:?}", found.get(address)))
        .collect();
    assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), ours.log());
}

/// Takes one message and prints its content as it came, with line ends and stuffed dots to be seen.
const RAW_SINK: &str = r"
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', int(sys.argv[1]))); listener.listen()
client = listener.accept()[0].makefile('rwb')
def say(text): client.write(text + b'\r\n'); client.flush()
say(b'220 sink ESMTP')
for line in client:
    verb = line[:4].upper()
    if verb == b'DATA':
        say(b'354 go')
        lines = iter(client.readline, b'.\r\n')
        body = b''.join(lines).split(b'Subject: long', 1)[1]
        say(b'250 ok')
    elif verb == b'QUIT':
        break
    else:
        say(b'250 ok')
print(repr(body).replace('\\n', '\\n\n'))
";

/// Lines about as long as smtp_line_length_limit, and much longer ones, with dots where they are broken.
#[test]
fn long_lines_are_broken_where_postfix_breaks_them() {
    if !is_root("long_lines_are_broken_where_postfix_breaks_them") {
        return;
    }
    let own = "Message-Id: <x@client.example>\r\nDate: Sun, 22 Nov 2026 20:35:21 +0000\r\nFrom: <x@client.example>\r\n";
    let mut content =
        own.to_owned() + "Subject: long\r\nX-Long: " + &"header words ".repeat(200) + "\r\n\r\n";
    for length in [1, 997, 998, 999, 1000, 1995, 1996, 1997, 2047, 2048, 2049, 2995, 10_000] {
        content += &(".".repeat(length) + "\r\n" + &"x".repeat(length) + "\r\n");
        content += &("a ".repeat(length / 2) + " .\r\n");
    }
    let sinks = [free_port(), free_port()];
    let taking = sinks.map(|port| {
        std::thread::spawn(move || {
            let mut python = peer("python3");
            python.args(["-c", RAW_SINK, &port.to_string()]);
            run(python, b"").ok().stdout
        })
    });
    let lines =
        |port: u16| format!("mydestination =\nrelayhost = [127.0.0.1]:{port}\nmyhostname = relay.example");
    let ours = Builder::new().main(&lines(sinks[0])).master("smtp unix - - n - - smtp").start();
    let theirs = Postfix::start(&[&lines(sinks[1])]);
    for mut client in [ours.smtp(), theirs.smtp()] {
        client.expect("EHLO client.example", 250);
        let stuffed = content.replace("\r\n.", "\r\n..");
        assert_eq!(client.message("jane@client.example", &["a@far.example"], &stuffed).code, 250);
    }
    let [ours, theirs] = taking.map(|sink| sink.join().expect("a sink"));
    let different = ours.lines().zip(theirs.lines()).position(|(a, b)| a != b);
    let at = different.unwrap_or(0);
    assert!(ours == theirs, "line {at}: {:?} instead of {:?}", ours.lines().nth(at), theirs.lines().nth(at));
}
