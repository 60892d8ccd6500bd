//! What becomes of mail that needs no network, beside real Postfix: aliases within aliases, commands and their ends, loops,
//! transports that are not there, and all of it with `soft_bounce`.

use std::collections::BTreeSet;
use std::time::Instant;

use scenarios::{Builder, Instance, Postfix, Smtp, is_root, wait_for};

/// What both are told.
const SETTINGS: &[&str] = &[
    "myhostname = mail.example.com",
    "mydomain = example.com",
    "myorigin = $mydomain",
    "mydestination = $myhostname, $mydomain, localhost",
    "mynetworks = 127.0.0.0/8",
    "inet_interfaces = 127.0.0.1",
    "recipient_delimiter = +",
    "local_recipient_maps =",
    "smtpd_reject_unlisted_recipient = no",
    "alias_database =",
    "alias_maps = inline:{ { command = \"|exit 0\" }, { outer = inner }, { inner = \"|exit 0\" }, { outmost = outer }, \
     { mixed = inner, file }, { failing = \"|echo no; exit 69\" }, { outfailing = failing }, { waits = \"|exit 75\" }, \
     { file = /dev/null }, { outfile = file }, { astray = no-such-user }, { outastray = astray }, \
     { two = file, command }, { outtwo = two }, \
     { itself = itself }, { circle = round }, { round = circle } }",
    "mail_spool_directory = $root/mail/",
    "relocated_maps = inline:{ { moved@example.com = new@far.example } }",
    "virtual_alias_maps = inline:{ { virtual@example.com = outer@example.com } }",
    "flagged_destination_recipient_limit = 1",
    "quoting_destination_recipient_limit = 1",
    "slow_time_limit = 2s",
    "bounce_queue_lifetime = 1d",
];

/// Services of master.cf: the name, the attributes, and what the shell does.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("one", "", "exit 1"),
    ("usage", "", "echo what is that; exit 64"),
    ("data", "", "exit 65"),
    ("input", "", "exit 66"),
    ("user", "", "exit 67"),
    ("host", "", "exit 68"),
    ("unavailable", "", "exit 69"),
    ("software", "", "exit 70"),
    ("os", "", "exit 71"),
    ("osfile", "", "exit 72"),
    ("create", "", "exit 73"),
    ("io", "", "exit 74"),
    ("temporary", "", "exit 75"),
    ("protocol", "", "exit 76"),
    ("permission", "", "exit 77"),
    ("config", "", "exit 78"),
    ("unknown", "", "exit 99"),
    ("absent127", "", "exit 127"),
    ("killed", "", "kill -9 $$$$"),
    ("says4", "", "echo 4.2.2 full; exit 1"),
    ("says5", "", "echo 5.2.2 full; exit 75"),
    ("says2", "", "echo 2.0.0 fine; exit 75"),
    ("saysok", "", "echo fine"),
    ("lines", "", "echo; echo one; echo two; exit 69"),
    ("binary", "", "printf 'a\\001b\\303\\244c\\377 \\t d'; exit 69"),
    ("errors", "", "echo wrong >&2; exit 69"),
    ("deaf", "", "exec 0<&-; sleep 1; exit 0"),
    ("slow", "", "sleep 30"),
    ("small", "size=10", "exit 0"),
    ("wide", "", "i=0; while [ $$i -lt 1000 ]; do echo 0123456789; i=$$((i+1)); done; exit 69"),
    ("flagged", "flags=DORF", HEAD),
    ("fields", "flags=DOR null_sender=nobody", HEAD),
    ("body", "flags=B.>", BODY),
    ("ends", "eol=\\r\\n", BODY),
    ("final", "flags=X", "exit 0"),
    ("folding", "flags=hu", SHOW),
    ("plain", "", SHOW),
    ("quoting", "flags=q", SHOW_RECIPIENT),
    ("directory", "directory=/tmp", "pwd; exit 69"),
];

/// The fields that come before `Received`.
const HEAD: &str = "sed -e '/^Received/,$$d' -e 's/^From \\([^ ]*\\) .*/From \\1/' | tr '\\n' '|'; exit 69";

const BODY: &str = "sed -e '1,/^.\\{0,1\\}$$/d' | tr '\\n\\r' '|%'; exit 69";

const SHOW: &str = "printf '<%s>' \"$$@\"; exit 69";

const SHOW_RECIPIENT: &str = "printf '<%s>' \"$$1\" \"$$2\" \"$$6\"; exit 69";

const ARGUMENTS: &str = "x ${sender} ${recipient} ${user} ${extension} ${domain} ${mailbox} ${nexthop} ${original_recipient} \
     [${sasl_username}] [${sasl_method}] [${sasl_sender}] ${client_address} ${client_helo} ${client_protocol} \
     ${client_hostname}";

/// Where the two differ, by design: a service that is not there is named; a command that says to be well, and ends as if
/// it were not, is believed the latter, and the mail kept; how much is shown of what a command says without end.
const KNOWN: &[&str] = &["<x@absent.test>", "<x@pipe-says2.test>", "<x@pipe-wide.test>"];

fn transports() -> String {
    let commands = COMMANDS.iter().map(|(name, ..)| format!("{{ pipe-{name}.test = {name}:Next.Hop }}, "));
    format!(
        "transport_maps = inline:{{ {}{{ absent.test = absent: }}, {{ refused.test = error:5.7.1 not for you }}, \
         {{ refused-plain.test = error:not for you }}, {{ later.test = retry:4.7.1 come again }}, \
         {{ thrown.test = discard:away }} }}",
        commands.collect::<String>()
    )
}

fn services() -> String {
    let line = |(name, attributes, shell): &(&str, &str, &str)| {
        format!(
            "{name} unix - n n - - pipe {attributes} user=games argv=/bin/sh -c {{{shell}}} {ARGUMENTS}\n"
        )
    };
    COMMANDS.iter().map(line).collect()
}

/// Recipients beside one for each command.
const RECIPIENTS: &[&str] = &[
    "command@example.com",
    "outer@example.com",
    "outmost@example.com",
    "mixed@example.com",
    "outer+ext@example.com",
    "virtual@example.com",
    "failing@example.com",
    "outfailing@example.com",
    "waits@example.com",
    "file@example.com",
    "outfile@example.com",
    "astray@example.com",
    "outastray@example.com",
    "outtwo@example.com",
    "circle@example.com",
    "no-such-user@example.com",
    "moved@example.com",
    "games@example.com",
    "games+looped@example.com",
    "x@absent.test",
    "x@refused.test",
    "x@refused-plain.test",
    "x@later.test",
    "x@thrown.test",
    "Some.One+Ext@pipe-folding.test",
    "Some.One+Ext@Pipe-Plain.test",
    "\"odd one\"@pipe-quoting.test",
    "looped@pipe-flagged.test",
];

const CONTENT: &str = "Delivered-To: games+looped@example.com\r\nDelivered-To: looped@pipe-flagged.test\r\n\
    Subject: x\r\n\r\nFrom here\r\n..dot\r\n>From there\r\nend\r\n";

fn send_all(port: u16) {
    let mut smtp = Smtp::connect(port);
    smtp.expect("EHLO client.example", 250);
    let commands = COMMANDS.iter().map(|(name, ..)| format!("x@pipe-{name}.test"));
    for recipient in RECIPIENTS.iter().map(|one| (*one).to_owned()).chain(commands) {
        let reply = smtp.message("Sender@Thrown.Test", &[&recipient], CONTENT);
        assert_eq!(reply.code, 250, "{recipient}: {reply:?}");
    }
    // One with no sender.
    assert_eq!(smtp.message("", &["null@pipe-fields.test"], CONTENT).code, 250);
}

/// What the log says of each attempt, without times and ids.
fn outcomes(log: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in log.lines() {
        let Some((_, text)) = line.split_once(": to=<") else { continue };
        let (Some((to, _)), Some((_, result))) = (text.split_once(", delay="), text.split_once(", dsn="))
        else {
            continue;
        };
        // What the queue manager put off because of another message is said of it later.
        if !result.contains("delivery temporarily suspended") {
            // What a command says ends with a line end in Postfix, which makes a blank of it.
            let result = result.replace(" )", ")").replace("output:  ", "output: ");
            found.insert(format!("<{to} dsn={result}"));
        }
    }
    found
}

/// Waits until something is said of every recipient.
fn settle(whose: &str, log: &dyn Fn() -> String) -> BTreeSet<String> {
    let commands = COMMANDS.iter().map(|(name, ..)| format!("x@pipe-{name}.test"));
    let all = RECIPIENTS.iter().map(|one| one.to_lowercase()).chain(commands);
    let all: Vec<String> = all.chain(["null@pipe-fields.test".to_owned()]).collect();
    let began = Instant::now();
    wait_for(&format!("{whose}'s outcomes"), || {
        let found = outcomes(&log());
        let lines = found.iter().map(|line| line.to_lowercase()).collect::<Vec<_>>().concat();
        let missing: Vec<_> = all.iter().filter(|address| !lines.contains(&format!("<{address}>"))).collect();
        assert!(
            missing.is_empty() || began.elapsed() < scenarios::PATIENCE / 2,
            "{whose} says nothing of {missing:#?}\n{}",
            log()
        );
        missing.is_empty().then_some(found)
    })
}

fn compare(more: &[&str]) {
    let transports = transports();
    let lines = [SETTINGS, &[transports.as_str()], more].concat();
    let builder = lines.iter().fold(Builder::new().as_root(), |builder, line| builder.main(line));
    let ours: Instance = builder.master(services().trim_end()).start();
    let theirs = Postfix::start_with_services(&lines, &services());
    send_all(ours.port);
    send_all(theirs.port);
    let (expected, found) = (settle("Postfix", &|| theirs.log()), settle("Postroad", &|| ours.log()));
    let only = |sign: &str, a: &BTreeSet<String>, b: &BTreeSet<String>| {
        a.difference(b).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let differences = only("Postfix ", &expected, &found) + &only("Postroad", &found, &expected);
    let unknown = differences.lines().filter(|line| !KNOWN.iter().any(|name| line.contains(name)));
    let unknown: Vec<_> = unknown.collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn mail_that_stays_here_comes_to_the_end_that_it_has_in_postfix() {
    if is_root("real Postfix") {
        compare(&[]);
    }
}

#[test]
fn what_would_be_returned_waits_as_in_postfix() {
    if is_root("real Postfix") {
        compare(&["soft_bounce = yes"]);
    }
}
