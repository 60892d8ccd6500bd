//! RFC 3461 over a next host: what it is told, and what the sender hears where it is told nothing.

use scenarios::{Builder, Sink};

use super::{SENDER, ask, give_up_late, parse, reporting, told_of_rows};
use crate::site::only_mail;

/// A row of the table.
struct Row {
    mail: &'static str,
    recipient: &'static str,
    host: &'static str,
    name: &'static str,
    told: &'static str,
    report: &'static str,
}

fn rows() -> Vec<Row> {
    let table = include_str!("relayed.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    table
        .map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [mail, recipient, place, told, report] = fields[..] else { panic!("{line}") };
            let (host, name) = place.split_once(' ').expect("a host and a recipient");
            Row { mail, recipient, host, name, told, report }
        })
        .collect()
}

/// A site whose mail for dsn.test and plain.test goes to these two.
fn relaying(dsn: &Sink, plain: &Sink) -> Builder {
    reporting().master("smtp unix - - n - - smtp").main(&format!(
        "transport_maps = inline:{{ {{ dsn.test = smtp:[127.0.0.1]:{} }} {{ plain.test = smtp:[127.0.0.1]:{} }} }}",
        dsn.port, plain.port
    ))
}

/// What the next host was told in the message with this ENVID, as the table has it.
fn told(sink: &Sink, row: usize) -> String {
    let envid = format!(" ENVID=row{row}");
    let parameters = |command: &str| command.split_once('>').map_or("", |(_, rest)| rest).trim().to_owned();
    let told = sink
        .taken()
        .into_iter()
        .find(|taken| taken.commands[0].split(' ').any(|word| word == envid.trim_start()));
    told.map_or_else(
        || "plain".to_owned(),
        |taken| {
            let mail = parameters(&taken.commands[0].replace(&envid, ""));
            format!("{mail} / {}", parameters(&taken.commands[1])).trim().to_owned()
        },
    )
}

#[test]
fn what_the_sender_asked_for_goes_on_to_hosts_that_know_of_it() {
    let (dsn, plain) = (Sink::offering(&["DSN"]), Sink::offering(&[]));
    let site = relaying(&dsn, &plain).start();
    let mut late = Vec::new();
    for (number, row) in rows().iter().enumerate() {
        let recipient = format!("{}@{}.test", row.name, row.host);
        let id =
            ask(&site, SENDER, &format!("{} ENVID=row{number}", row.mail), &[(&recipient, row.recipient)]);
        if row.name == "later" {
            late.push(id);
        }
    }
    late.iter().for_each(|id| give_up_late(&site, id));
    site.wait_for_empty_queue();
    let mut reports = told_of_rows(&site);
    for (number, row) in rows().iter().enumerate() {
        let sink = if row.host == "dsn" { &dsn } else { &plain };
        let about = format!("{} {} {} {}", row.mail, row.recipient, row.host, row.name);
        assert_eq!(told(sink, number), row.told, "{about}\n{:?}", sink.taken());
        let report = reports.remove(&format!("row{number}")).unwrap_or_else(|| "nothing".to_owned());
        assert_eq!(report, row.report, "{about}\n{}", site.log());
    }
    let said = plain.taken().into_iter().flat_map(|taken| taken.commands);
    assert!(said.into_iter().all(|command| command.ends_with('>')), "{:?}", plain.taken());
}

#[test]
fn a_report_says_which_host_said_what() {
    let (dsn, plain) = (Sink::offering(&["DSN"]), Sink::offering(&[]));
    let site = relaying(&dsn, &plain).start();
    for (recipient, parameters, action, status, diagnostic) in [
        ("nobody@dsn.test", "", "failed", "5.1.1", "smtp; 550 5.1.1 nobody is here"),
        ("box@plain.test", "NOTIFY=SUCCESS", "relayed", "2.0.0", "smtp; 250 taken"),
        ("later@plain.test", "NOTIFY=DELAY", "delayed", "4.2.0", "smtp; 450 4.2.0 not yet"),
    ] {
        let id = ask(&site, SENDER, "", &[(recipient, parameters)]);
        if action == "delayed" {
            give_up_late(&site, &id);
        }
        let report = parse(&only_mail(&site, "sender"));
        let found = &report["recipients"][0];
        let expected = [
            ("final-recipient", format!("rfc822; {recipient}").as_str()),
            ("original-recipient", format!("rfc822;{recipient}").as_str()),
            ("action", action),
            ("status", status),
            ("remote-mta", "dns; 127.0.0.1"),
            ("diagnostic-code", diagnostic),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        for (name, value) in expected {
            assert_eq!(found[name], value, "{report}");
        }
        std::fs::remove_dir_all(site.maildir("sender")).expect("empty the sender's Maildir");
    }
}
