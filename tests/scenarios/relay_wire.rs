//! What the SMTP and LMTP client writes, byte for byte beside real Postfix: the same mail to servers that offer different
//! things.

use std::collections::BTreeMap;

use scenarios::{Builder, Instance, Postfix, Says, Scripted, Smtp, is_root, wait_for};

/// Servers: a name, the transport, what they say.
const SERVERS: &[(&str, &str, &Says)] = &[
    (
        "full",
        "smtp",
        &[(
            "EHLO",
            "250-s.example\n250-PIPELINING\n250-SIZE 10240000\n250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250 SMTPUTF8",
        )],
    ),
    ("plain", "smtp", &[("CONNECT", "220 s.example ready"), ("EHLO", "502 what?")]),
    ("seven", "smtp", &[("EHLO", "250-s.example\n250-PIPELINING\n250 SIZE 1000000")]),
    ("eight", "smtp", &[("EHLO", "250-s.example\n250 8BITMIME")]),
    ("small", "smtp", &[("EHLO", "250-s.example\n250-8BITMIME\n250 SIZE 900")]),
    ("utf8", "smtp", &[("EHLO", "250-s.example\n250-8BITMIME\n250-SMTPUTF8\n250 DSN")]),
    (
        "refusing",
        "smtp",
        &[
            ("EHLO", "250-s.example\n250-PIPELINING\n250 DSN"),
            ("RCPT TO:<two@", "550-5.1.1 no such user\n550 5.1.1 here"),
            ("RCPT TO:<three@", "450 4.2.0 not now"),
        ],
    ),
    (
        "odd",
        "smtp",
        &[
            ("CONNECT", "220-s.example\n220 ESMTP"),
            (
                "EHLO",
                "250-s.example\n250-pipelining \n250-SIZE=1000000\n250-AUTH=LOGIN\n250-X-UNKNOWN a b\n250 8bitmime",
            ),
            ("RCPT", "251 will forward"),
            (".", "250-2.6.0 one\n250-2.6.0 two\n250 2.6.0 three"),
        ],
    ),
    (
        "lmtp",
        "lmtp",
        &[
            ("LHLO", "250-s.example\n250-PIPELINING\n250-8BITMIME\n250 ENHANCEDSTATUSCODES"),
            (".<two@", "552 5.2.2 over quota"),
            (".<three@", "450 4.2.0 busy"),
        ],
    ),
    ("slow-lmtp", "lmtp", &[("LHLO", "250 s.example"), ("RCPT TO:<one@", "550 5.1.1 none")]),
    (
        "forward",
        "smtp",
        &[(
            "EHLO",
            "250-s.example\n250-PIPELINING\n250-8BITMIME\n250 XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT",
        )],
    ),
    ("forward-some", "smtp", &[("EHLO", "250-s.example\n250 XFORWARD NAME HELO")]),
    (
        "forward-not",
        "smtp",
        &[("EHLO", "250-s.example\n250 XFORWARD NAME ADDR"), ("XFORWARD", "501 5.5.4 no")],
    ),
];

/// A message: its name, what is said behind MAIL and RCPT, and the content from the line after `Subject:`.
struct Message {
    name: &'static str,
    mail: &'static str,
    rcpt: &'static str,
    content: &'static str,
}

const fn message(name: &'static str, mail: &'static str, content: &'static str) -> Message {
    Message { name, mail, rcpt: "", content }
}

const MESSAGES: &[Message] = &[
    message("empty", "", ""),
    message("dots", "", "\n.\n..\n.a\n\n.\nx\n"),
    message("returns", "", "\na\rb\n\r\r\nc\r"),
    message("controls", "", "\n\x01\x02\x7f\t\x0c\nend\n"),
    message(
        "text",
        " BODY=8BITMIME",
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\
         Grüße = alle\tda \n.\n..dot\n\t\n \n\nFrom me\nlast äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü abcdefghijklmnopq\n",
    ),
    message(
        "global",
        " BODY=8BITMIME",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/global\n\
         Content-Transfer-Encoding: 8bit\n\nSubject: ü\nContent-Transfer-Encoding: 8bit\n\nä\n--b\n\
         Content-Transfer-Encoding: 8bit\n\n0123456789012345678901234567890123456789012345678901234567890123456789ü\n\
         01234567890123456789012345678901234567890123456789012345678901234567890ü\n\
         012345678901234567890123456789012345678901234567890123456789012345678901ü\n\
         0123456789012345678901234567890123456789012345678901234567890123456789012ü\n\
         01234567890123456789012345678901234567890123456789012345678901234567890123456789ü \n--b--\n",
    ),
    message(
        "parts",
        " BODY=8BITMIME",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n\
         preamble ä\n--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nä\n\
         --b\nContent-Type: text/plain\n\nplain = 7bit ä\n--b\nContent-Type: message/rfc822\n\
         Content-Transfer-Encoding: 8bit\n\nSubject: inside\nMIME-Version: 1.0\n\
         Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: binary\n\n<p>ö</p>\n--b--\nend ü\n",
    ),
    message(
        "nested",
        " BODY=8BITMIME",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"outer\"\n\n--outer\n\
         Content-Type: multipart/alternative; boundary=inner\nContent-Transfer-Encoding: 8bit\n\n--inner\n\
         Content-Transfer-Encoding: 8bit\nX-Extra: 1\n\nä\n--inner\nContent-Type: text/plain\n\
         Content-Transfer-Encoding: base64\n\nw6QK\n--inner--\n--outer\nContent-Type: message/delivery-status\n\n\
         Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; x\n--outer--\n",
    ),
    message(
        "quoted",
        "",
        "MIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\nContent-Type: text/plain\n\n=C3=A4 \n",
    ),
    message("no-mime", " BODY=8BITMIME", "Content-Transfer-Encoding: 8bit\n\nä without a version\n"),
    message(
        "header",
        "",
        "X-Internal: gone\nX-Change: old\nX-Keep: kept\nCc: Joe <joe@box.example>, other@example.net (joe@box.example)\n\
         X-Folded: a\n b\n\tc\n\nbody\nsecret\n",
    ),
    message(
        "undeclared",
        "",
        "\nraw ä without a header, in a line that is longer than the limit of the lines that go out, which is 80\n\
         01234567890123456789012345678901234567890123456789012345678901234567890123456789\n\
         012345678901234567890123456789012345678901234567890123456789012345678901234567890\n\
         .1234567890123456789012345678901234567890123456789012345678901234567890123456789.12345\n",
    ),
    message(
        "long-field",
        "",
        "X-Long: 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\n\nx\n",
    ),
    message(
        "large",
        "",
        "\nfilled 0123456789 0123456789 0123456789 0123456789 0123456789\n0123456789 0123456789 0123456789 0123456789\n\
         filled 0123456789 0123456789 0123456789 0123456789 0123456789\n0123456789 0123456789 0123456789 0123456789\n\
         filled 0123456789 0123456789 0123456789 0123456789 0123456789\n0123456789 0123456789 0123456789 0123456789\n\
         filled 0123456789 0123456789 0123456789 0123456789 0123456789\n0123456789 0123456789 0123456789 0123456789\n",
    ),
    Message {
        name: "reports",
        mail: " RET=HDRS ENVID=a+2Bb",
        rcpt: " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;other+2Bx@example.org",
        content: "\nx\n",
    },
    Message { name: "quiet", mail: " RET=FULL", rcpt: " NOTIFY=NEVER", content: "\nx\n" },
    message("declared-utf8", " SMTPUTF8 BODY=8BITMIME", "\nplain\n"),
    message("needs-utf8", " SMTPUTF8 BODY=8BITMIME", "X-Name: Grüße\n\nplain\n"),
];

const SETTINGS: [&str; 14] = [
    "myhostname = mail.example.com",
    "myorigin = example.com",
    "mydestination =",
    "inet_interfaces = 127.0.0.1",
    "mynetworks = 127.0.0.0/8",
    "smtputf8_enable = yes",
    "smtp_connection_cache_on_demand = no",
    "lmtp_connection_cache_on_demand = no",
    "smtp_send_xforward_command = yes",
    "smtp_generic_maps = inline:{ { joe@box.example = joe@example.com }, { empty@example.com = shown@example.com } }",
    "smtp_header_checks = regexp:{{/^X-Internal:/ IGNORE}, {/^X-Change:/ REPLACE X-Change: new}, {/^X-Keep:/ PREPEND X-Before: it}}",
    "smtp_body_checks = inline:{ { secret = REPLACE public } }",
    "smtp_line_length_limit = 80",
    "lmtp_line_length_limit = 80",
];

fn servers() -> Vec<Scripted> {
    SERVERS.iter().map(|(_, _, replies)| Scripted::start(replies)).collect()
}

fn routes(servers: &[Scripted]) -> String {
    let routes: Vec<String> = SERVERS
        .iter()
        .zip(servers)
        .map(|((name, transport, _), server)| {
            let place = match *transport {
                "lmtp" => format!("lmtp:inet:[127.0.0.1]:{}", server.address.port()),
                _ => format!("smtp:[127.0.0.1]:{}", server.address.port()),
            };
            format!("{{ {name}.test = {place} }}")
        })
        .collect();
    format!("transport_maps = inline:{{ {} }}", routes.join(", "))
}

fn send_all(port: u16) {
    let mut smtp = Smtp::connect(port);
    smtp.expect("EHLO client", 250);
    for (server, ..) in SERVERS {
        for Message { name, mail, rcpt, content } in MESSAGES {
            smtp.expect(&format!("MAIL FROM:<{name}@example.com>{mail}"), 250);
            for recipient in ["one", "three", "two"] {
                smtp.expect(&format!("RCPT TO:<{recipient}@{server}.test>{rcpt}"), 250);
            }
            smtp.expect("DATA", 354);
            let content = content.replace("\n.", "\n..").replace('\n', "\r\n");
            let head =
                "From: joe@box.example\r\nTo: x@example.net\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n";
            smtp.send_raw(
                format!("{head}Message-Id: <{name}@example.com>\r\nSubject: {name}\r\n{content}\r\n.\r\n")
                    .as_bytes(),
            );
            let reply = smtp.read_reply();
            assert_eq!(reply.code, 250, "{name}: {reply:?}");
        }
    }
}

/// What each server was sent of each message.
fn written(servers: &[Scripted]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for ((server, ..), scripted) in SERVERS.iter().zip(servers) {
        for session in scripted.sessions() {
            let sender = session.split_once("MAIL FROM:<").and_then(|(_, rest)| rest.split_once('@'));
            let Some((name, _)) = sender else { continue };
            // What is tried again is the same once more.
            found.entry(format!("{server}/{name}")).or_insert_with(|| without_chance(&session));
        }
    }
    found
}

/// Without what differs from run to run: the Received field and the size with it, queue ids and ports.
fn without_chance(session: &str) -> String {
    let mut lines = Vec::new();
    let mut received = false;
    for line in session.split_inclusive('\n') {
        received = line.starts_with("Received:") || received && line.starts_with([' ', '\t']);
        if received {
            continue;
        }
        lines.push(match line.split(' ').next() {
            Some("MAIL" | "XFORWARD") => {
                line.split_ascii_whitespace().map(without_value).collect::<Vec<_>>().join(" ") + "\r\n"
            }
            _ => line.to_owned(),
        });
    }
    lines.concat()
}

fn without_value(word: &str) -> &str {
    match word.split_once('=') {
        Some((name @ ("IDENT" | "PORT" | "SIZE"), _)) => name,
        _ => word,
    }
}

/// What a log says of the first attempt for each message and recipient.
fn results(log: &str, expected: usize) -> Option<BTreeMap<String, String>> {
    // A queue id, and what is said of it. Programs write each for itself: a delivery may be told before its message.
    let lines: Vec<(&str, &str)> =
        log.lines().filter_map(|line| line.split_once("]: ")?.1.split_once(": ")).collect();
    let named = lines.iter().filter_map(|(id, text)| {
        let (name, _) = text.strip_prefix("message-id=<")?.split_once('@')?;
        Some((*id, name))
    });
    let names: BTreeMap<&str, &str> = named.collect();
    let mut found = BTreeMap::new();
    for (id, text) in lines {
        let Some((address, rest)) = text.strip_prefix("to=<").and_then(|rest| rest.split_once('>')) else {
            continue;
        };
        if let (Some(name), Some((_, result))) = (names.get(id), rest.split_once(", dsn=")) {
            found.entry(format!("{name} {address}")).or_insert_with(|| result.to_owned());
        }
    }
    found.retain(|name, _| name.contains(".test"));
    (found.len() == expected).then_some(found)
}

fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let names = theirs.keys().chain(ours.keys().filter(|name| !theirs.contains_key(*name)));
    names
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{name}\n  Postfix:  {:?}\n  Postroad: {:?}", theirs.get(name), ours.get(name)))
        .collect()
}

#[test]
fn what_goes_over_the_wire_is_what_postfix_sends() {
    if !is_root("real Postfix") {
        return;
    }
    let (our_servers, their_servers) = (servers(), servers());
    let all = |routes: &str| [&SETTINGS.map(str::to_owned)[..], &[routes.to_owned()]].concat();
    let builder = all(&routes(&our_servers)).iter().fold(Builder::new().as_root(), |b, line| b.main(line));
    let ours: Instance =
        builder.master("smtp unix - - n - - smtp").master("lmtp unix - - n - - lmtp").start();
    let lines = all(&routes(&their_servers));
    let theirs = Postfix::start(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    send_all(ours.port);
    send_all(theirs.port);
    let count = SERVERS.len() * MESSAGES.len() * 3;
    let expected = wait_for("Postfix's results", || results(&theirs.log(), count));
    let found = wait_for("our results", || results(&ours.log(), count));
    let mut wrong = differences(&found, &expected);
    wrong.extend(differences(&written(&our_servers), &written(&their_servers)));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
