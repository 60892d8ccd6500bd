//! Messages: addresses, headers, MIME, and what the daemons make of them.

use std::sync::LazyLock;

use bounce::fuzzing::Said;
use config::{Config, Snapshot};
use mail::header::{self, Next};
use mail::header_address::{self, Mailboxes};
use mail::mime::{Limits, Place, Structure};
use mail::submission::{self, Arriving, Head};
use mail::{Address, Dsn, Envelope, Origin, QueueId, Recipient};

use crate::pieces::{cut, take_byte};

/// A configuration that works, for targets whose parser needs one.
pub(crate) static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let main_cf = b"compatibility_level = 3.6\nmyhostname = mail.example.com\nmyorigin = example.com\n\
        mydestination = $myhostname, localhost\ninet_interfaces = 127.0.0.1\nmynetworks = 127.0.0.0/8\nalias_maps =\n"
        .to_vec();
    Config::inspect("/nowhere".as_ref(), &Snapshot { main_cf, master_cf: Vec::new() }, &[]).0
});

/// An address in internal form: its parts make up the whole, and its written forms are the same address.
pub fn address(data: &[u8]) {
    let Ok(address) = Address::from_bytes(data) else { return };
    assert_eq!(address.as_str().as_bytes(), data);
    let whole = match address.domain() {
        Some(domain) => format!("{}@{domain}", address.local_part()),
        None => address.local_part().to_owned(),
    };
    assert_eq!(whole, address.as_str());
    let path = address.to_path();
    assert!(path.len() <= 2 * data.len() + 2);
    assert!(!path.contains(['\r', '\n', '\0']), "an address that could end a line");
    let text = String::from_utf8_lossy(data);
    if let Ok(dsn) = text.parse::<Dsn>() {
        assert_eq!(dsn.to_string().parse::<Dsn>(), Ok(dsn));
    }
    if let Ok(id) = text.parse::<QueueId>() {
        assert_eq!(id.to_string(), text, "another queue id than was read");
        assert!(!text.contains(['/', '.']), "a queue id that leads elsewhere");
    }
}

/// A header block: fields make up all bytes before its end, and are the same when bytes come one by one.
pub fn header(data: &[u8]) {
    let whole = fields(data);
    let total: usize = whole.iter().map(Vec::len).sum();
    assert_eq!(whole.concat(), data[..total]);
    // Bytes that are not all there yet give the same fields, or are incomplete; never others.
    let mut at = 0;
    for field in &whole {
        for end in at..data.len() {
            match header::next(&data[at..end], false) {
                Next::Incomplete => {}
                Next::Field(found) => {
                    assert_eq!(found.bytes(), field, "another field while it comes");
                    break;
                }
                Next::End => unreachable!("a field was taken for the end of the header"),
            }
            if end > at + field.len() + 2 {
                break;
            }
        }
        at += field.len();
    }
}

fn fields(data: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < data.len() {
        let Next::Field(field) = header::next(&data[at..], true) else { break };
        assert!(!field.bytes().is_empty() && !field.name().is_empty());
        assert_eq!(header::name(field.bytes()), Some(field.name()));
        assert!(field.bytes().starts_with(field.label()) && field.bytes().ends_with(field.value()));
        assert!(header_address::parse_first("") == Ok(None));
        let _ = mail::fields::find(field.name());
        let _ = mail::mime::media_type(field.value());
        let _ = mail::mime::first_word(field.value());
        at += field.bytes().len();
        found.push(field.bytes().to_vec());
    }
    found
}

/// Address lists: places are in order and inside the value, nothing changes where nothing is to change, and an address that was
/// put in is found again.
pub fn header_addresses(data: &[u8]) {
    let mut last = 0;
    let mut count = 0;
    for mailbox in Mailboxes::new(data) {
        assert!(last <= mailbox.range.start && mailbox.range.start <= mailbox.range.end);
        assert!(mailbox.range.end <= data.len());
        last = mailbox.range.end;
        count += 1;
    }
    assert!(count <= data.len() + 1);
    let mut same = Vec::new();
    let changed = header_address::rewrite(data, &mut same, |_| Ok::<_, ()>(None));
    assert_eq!((changed, same.as_slice()), (Ok(false), data));
    let Ok(other) = Address::new("\"odd\" one,@x.example") else { return };
    let mut out = Vec::new();
    let changed = header_address::rewrite(data, &mut out, |_| Ok::<_, ()>(Some(other.clone())));
    let found = Mailboxes::new(&out).filter(|mailbox| mailbox.address == other).count();
    if changed == Ok(true) {
        assert!(found > 0, "an address that was put in is not found again");
    }
    assert!(out.len() <= data.len() + count * (other.as_str().len() + 8) + data.len());
}

/// The structure of a MIME message: bounded depth, whatever the boundaries.
pub fn mime(data: &[u8]) {
    let limits = Limits { boundary_length: 70, depth: 5 };
    let mut structure = Structure::new(limits);
    let mut at = 0;
    while at < data.len() {
        let rest = &data[at..];
        if structure.place() != Place::Body {
            if let Next::Field(field) = header::next(rest, true) {
                structure.field(&field);
                at += field.bytes().len();
                continue;
            }
            let _ = structure.end_headers(rest.starts_with(b"\n"));
            at += usize::from(rest.starts_with(b"\n"));
            continue;
        }
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |place| place + 1);
        structure.line(&rest[..length]);
        assert!(structure.depth() <= limits.depth, "more multiparts inside each other than allowed");
        at += length;
    }
}

/// The file of a local submission: what was understood is the same after it was written, and no line can be forged.
pub fn submission(data: &[u8]) {
    let Ok(Some((head, content))) = Head::decode(data) else { return };
    assert!(content <= data.len());
    let written = head.encode();
    assert_eq!(
        Head::decode(&written),
        Ok(Some((head, written.len()))),
        "another submission after it was written"
    );
    let tail = submission::trailer(u64::try_from(data.len()).unwrap_or(0));
    assert_eq!(submission::content_length(&tail), u64::try_from(data.len()).ok());
}

/// What a user sends to pickup's socket: the same however it is cut, never more than was allowed, and what is taken is what a
/// file in `maildrop/` would have been taken for.
pub fn handed(mut data: &[u8]) {
    let seed = take_byte(&mut data);
    let taken = arrived(cut(data, seed));
    assert_eq!(taken, arrived(cut(data, 0)), "another submission in other pieces");
    let Some((head, content)) = taken else { return };
    assert!(content.len() < submission::MAX_HANDED, "a content beyond the limit");
    let length = u64::try_from(content.len()).unwrap_or(0);
    let again = [&head.encode()[..], &content, &submission::trailer(length)].concat();
    let written = submission::handed(&again).unwrap_or_default();
    // What is written anew may be longer only by the blanks and line ends of its own form.
    if !written.is_empty() {
        assert_eq!(
            arrived([&written[..]].into_iter()),
            Some((head, content)),
            "another one after it was written"
        );
    }
}

fn arrived<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(Head, Vec<u8>)> {
    let mut arriving = Arriving::default();
    let mut is_whole = false;
    for piece in pieces {
        is_whole = arriving.take(piece).ok()?;
    }
    if is_whole { arriving.open().ok() } else { None }
}

/// A report of a failure: whatever the sender wrote and a server said, it has its three parts and its fields, and no others.
pub fn report(mut data: &[u8]) {
    const OF_THE_MESSAGE: [&str; 5] =
        ["Reporting-MTA", "Original-Envelope-Id", "X-Postfix-Queue-ID", "X-Postfix-Sender", "Arrival-Date"];
    const OF_THE_RECIPIENT: [&str; 7] = [
        "Final-Recipient",
        "Original-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
    ];
    let smtputf8 = take_byte(&mut data) & 1 == 1;
    let mut texts = data.split(|byte| *byte == 0xff).chain(std::iter::repeat(&b""[..]));
    let mut next = || texts.next().unwrap_or_default();
    let (sender, recipient) = (Address::from_bytes(next()), Address::from_bytes(next()));
    let (Ok(sender), Ok(recipient), Some(id)) = (sender, recipient, id()) else { return };
    let [orcpt, envid, host, reply] = [(); 4].map(|()| String::from_utf8_lossy(next()));
    let said = Said {
        sender: &sender,
        recipient: &recipient,
        orcpt: &orcpt,
        envid: &envid,
        host: &host,
        reply: &reply,
        smtputf8,
    };
    let (head, tail) = bounce::fuzzing::report(&said, id);
    let head = String::from_utf8(head).unwrap_or_default();
    assert!(head.chars().all(|c| c == '\n' || !c.is_control()), "a control character");
    let boundary = format!("\n--{id}/mail.example.com");
    assert_eq!(tail, format!("{boundary}--\n").as_bytes());
    let parts: Vec<&str> = head.split(&format!("{boundary}\n")).collect();
    assert_eq!(parts.len(), 4, "parts besides its own");
    let fields = parts[2].split_once("\n\n").map_or("", |(_, fields)| fields);
    assert!(smtputf8 || fields.is_ascii());
    let groups: Vec<Vec<&str>> = fields.trim_end().split("\n\n").map(names).collect();
    assert_eq!(groups, [&OF_THE_MESSAGE[..], &OF_THE_RECIPIENT]);
}

/// The names of fields of which the later lines are indented.
fn names(fields: &str) -> Vec<&str> {
    let lines = fields.lines().filter(|line| !line.starts_with("    "));
    lines.map(|line| line.split_once(':').map_or(line, |(name, _)| name)).collect()
}

pub(crate) fn envelope() -> Option<Envelope> {
    let recipients = vec![Recipient::new(Address::new("joe@example.org").ok()?)];
    let arrival = std::time::Duration::from_secs(1_795_362_868);
    let envelope = Envelope::new(Address::new("jane@example.net").ok()?, recipients, arrival);
    Some(Envelope { origin: Origin::Smtp { rewrite_headers: true }, ..envelope })
}

fn id() -> Option<QueueId> {
    "4XQ9PS1rGCz3B2Gk9L".parse().ok()
}

/// What cleanup makes of a message: the same however it is cut, with one header block before the body, and a bound on its size.
pub fn cleanup(mut data: &[u8]) {
    static RULES: LazyLock<Option<cleanup::Rules>> = LazyLock::new(|| {
        let checks = "regexp:{ {/^X-Drop:/ IGNORE}, {/^X-Other:(.*)/ REPLACE X-New:$1} }";
        let body = "regexp:{ {/secret/ REPLACE public} }";
        let config = CONFIG.with_text("header_checks", checks).with_text("body_checks", body);
        cleanup::Rules::new(&config).ok()
    });
    let seed = take_byte(&mut data);
    let (Some(rules), Some(envelope), Some(id)) = (RULES.as_ref(), envelope(), id()) else {
        unreachable!("the rules are right");
    };
    let made = |seed| cleanup::fuzzing::message(rules, id, envelope.clone(), cut(data, seed));
    let whole = made(0);
    assert_eq!(whole, made(seed | 1), "another message when it is cut");
    let Some(whole) = whole else { return };
    assert!(whole.starts_with(b"Received: "), "no trace at the beginning");
    assert!(whole.ends_with(b"\n"));
    assert!(!whole.contains(&b'\r'), "a stray carriage return was left in");
    // Completed addresses are the only thing that grows.
    assert!(whole.len() <= 4096 + data.len() * 16, "{} bytes became {}", data.len(), whole.len());
}

/// What the client makes of a message for a server without 8BITMIME: the same however it is cut; content that declares itself to
/// be 8-bit has none of it left in its body.
pub fn seven_bits(mut data: &[u8]) {
    let seed = take_byte(&mut data);
    let Some(id) = id() else { return };
    let made = |seed| smtp_client::fuzzing::seven_bits(&CONFIG, id, cut(data, seed));
    let whole = made(0);
    assert!(whole.is_some());
    assert_eq!(whole, made(seed | 1), "another message when it is cut");
    let whole = whole.unwrap_or_default();
    assert!(whole.len() <= data.len() * 6 + 200, "{} bytes became {}", data.len(), whole.len());
    if data.is_ascii() {
        assert!(whole.is_ascii(), "8-bit bytes out of nowhere");
    }
    let _ = smtp_client::fuzzing::is_granted(&String::from_utf8_lossy(data));
}
