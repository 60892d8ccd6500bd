//! What becomes of addresses, as data: the `.txt` files in `addresses/`.
//!
//! ```text
//! === title
//! main.cf lines            on top of BASE below
//! list = items             the list that `string`, `domain` and `host` match with
//! table = specs            the tables that the searches look into
//! FILE = text              a file; FILE in another line stands for its name
//! ---
//! question <address> … => answer
//! question <address> … =! words           fails, and says these words
//! ```
//!
//! Lines that start with `##` are comments. The questions are the arms of `answer`.
//!
//! The answers are those that Postfix 3.7 gives to the same questions, asked of its trivial-rewrite(8), smtpd(8) and
//! cleanup(8), except in `match_list.txt` and `search.txt`, which look at one step of an answer.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;

use config::{Config, Snapshot};
use lookup::canonical::{Canonical, Masquerade, Usage};
use lookup::domain::Parents;
use lookup::expand::VirtualAliases;
use lookup::recipient_check::{RecipientCheck, Verdict};
use lookup::{
    AddressSearch, Class, Found, Maps, MatchList, Resolver, RewriteContext, Rewriter, Route, address_search,
    split_list,
};
use mail::Address;

const BASE: &str = "\
compatibility_level = 3.6
myhostname = mail.example.com
mydomain = example.com
mydestination = $myhostname, localhost.$mydomain, localhost
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
";

type Answer = Result<String, Box<dyn Error>>;

struct Section {
    title: String,
    main_cf: String,
    list: Vec<String>,
    table: Vec<String>,
    questions: Vec<String>,
}

#[test]
fn every_question_is_answered_as_the_data_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/addresses");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut wrong = Vec::new();
    let mut asked = 0;
    for entry in folder.read_dir().expect("the data") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text file");
        for section in sections(&text, scratch.path()) {
            let config = configuration(&section);
            for line in &section.questions {
                asked += 1;
                let place = format!("{}: {}: {line}", path.display(), section.title);
                if let Err(got) = judge(&section, &config, line) {
                    wrong.push(format!("{place}\n    got {got}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 0);
}

fn sections(text: &str, scratch: &Path) -> Vec<Section> {
    let texts = text.split("\n=== ").skip(1);
    texts.map(|text| section(text, scratch)).collect()
}

fn section(text: &str, scratch: &Path) -> Section {
    let mut lines = text.lines().filter(|line| !line.starts_with("##") && !line.is_empty());
    let title = lines.next().unwrap_or_default().to_owned();
    let mut section =
        Section { title, main_cf: BASE.to_owned(), list: vec![], table: vec![], questions: vec![] };
    let settings: Vec<_> = lines.by_ref().take_while(|line| *line != "---").collect();
    let (files, settings): (Vec<_>, Vec<_>) =
        settings.into_iter().partition(|line| line.starts_with(char::is_uppercase));
    for line in settings {
        let mut line = line.to_owned();
        for (name, content) in files.iter().filter_map(|file| file.split_once(" = ")) {
            let file = scratch.join(name);
            std::fs::write(&file, format!("{content}\n")).expect("a scratch file");
            line = line.replace(name, &file.display().to_string());
        }
        let items = |value: &str| -> Vec<String> {
            split_list(value).expect("a list").into_iter().map(str::to_owned).collect()
        };
        match line.split_once(" = ") {
            Some(("list", value)) => section.list = items(value),
            Some(("table", value)) => section.table = items(value),
            _ => section.main_cf.push_str(&format!("{line}\n")),
        }
    }
    section.questions = lines.map(str::to_owned).collect();
    section
}

fn configuration(section: &Section) -> Config {
    let snapshot = Snapshot { main_cf: section.main_cf.clone().into_bytes(), master_cf: Vec::new() };
    match Config::from_snapshot(Path::new("/nowhere"), &snapshot, &[]) {
        Ok((config, _)) => config,
        Err(remarks) => {
            let remarks: Vec<_> = remarks.iter().map(ToString::to_string).collect();
            unreachable!("{}: {}", section.title, remarks.join("; "))
        }
    }
}

/// Asks the question of a line; `Err` is an answer other than the line's.
fn judge(section: &Section, config: &Config, line: &str) -> Result<(), String> {
    let failure = line.split_once(" =! ");
    let (question, expected) = failure.or_else(|| line.split_once(" =>")).ok_or("a line without => or =!")?;
    let expected = expected.trim_start();
    let got = answer(section, config, question);
    let right = match &got {
        Ok(got) => failure.is_none() && got == expected,
        Err(error) => failure.is_some() && error.to_string().contains(expected),
    };
    if right { Ok(()) } else { Err(got.unwrap_or_else(|error| format!("failure: {error}"))) }
}

fn answer(section: &Section, config: &Config, question: &str) -> Answer {
    let (verb, rest) = question.split_once(" <").ok_or("no <address>")?;
    let arguments: Vec<&str> = rest.strip_suffix('>').ok_or("no > at the end")?.split("> <").collect();
    let text = *arguments.first().ok_or("no argument")?;
    let second = arguments.get(1).copied().unwrap_or_default();
    let parents = |name| Parents::from_config(config, name);
    let yes_no = |yes: bool| Ok(if yes { "yes" } else { "no" }.to_owned());
    let value = |value: Option<String>| Ok(value.unwrap_or_default());
    let maps = || Maps::open(&section.table);
    let search = || AddressSearch::from_config(config);
    match verb {
        "string" => yes_no(MatchList::strings("list", &section.list)?.matches(text)?),
        "domain" => yes_no(MatchList::domains("list", &section.list, parents("list"))?.matches_domain(text)?),
        "host" => {
            let ip: IpAddr = second.parse()?;
            yes_no(MatchList::hosts("list", &section.list, parents("list"))?.matches_host(text, ip)?)
        }
        "general" => found(search()?.general(&maps()?, &text.parse()?)?),
        "mailbox" => found(search()?.mailbox(&maps()?, &text.parse()?)?),
        "alias" => found(search()?.alias(&maps()?, text)?),
        "transport" => value(search()?.transport(&maps()?, &text.parse()?, parents("table"))?),
        "access" => value(search()?.access(&maps()?, &text.parse()?, parents("table"))?),
        "access-domain" => value(address_search::access_domain(&maps()?, text, parents("table"))?),
        "access-address" => value(address_search::access_address(&maps()?, text)?),
        "local" => rewritten(config, text, RewriteContext::Local),
        "remote" => rewritten(config, text, RewriteContext::Remote),
        "resolve" => Ok(shown(&Resolver::new(config)?.resolve(&text.parse()?, &second.parse()?)?)),
        "permitted" => yes_no(RecipientCheck::new(config)?.relay_permitted(&text.parse()?)?),
        "check" => checked(config, text),
        "expand" => expanded(config, text),
        _ => mapped(config, verb, text),
    }
}

fn found(found: Option<Found>) -> Answer {
    let text = |found: Found| match found.extension {
        Some(extension) => format!("{} {extension}", found.value),
        None => found.value,
    };
    Ok(found.map(text).unwrap_or_default())
}

fn rewritten(config: &Config, address: &str, context: RewriteContext) -> Answer {
    Ok(format!("<{}>", *Rewriter::new(config).rewrite(&address.parse()?, context)))
}

fn shown(route: &Route) -> String {
    if route.transport == "error" && route.nexthop == "5.1.3 bad address syntax" {
        return "malformed".to_owned();
    }
    format!("{}:{} <{}> {}", route.transport, route.nexthop, route.recipient, class(route.class))
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Local => "local",
        Class::VirtualAlias => "virtual-alias",
        Class::VirtualMailbox => "virtual-mailbox",
        Class::Relay => "relay",
        Class::Default => "default",
    }
}

fn checked(config: &Config, recipient: &str) -> Answer {
    let sender = "sender@other.example".parse()?;
    Ok(match RecipientCheck::new(config)?.check(&recipient.parse()?, &sender)? {
        Verdict::Known { class: known } => format!("known {}", class(known)),
        Verdict::Unknown(rejection) => format!("{} {} {}", rejection.code, rejection.dsn, rejection.text),
        Verdict::Malformed => "malformed".to_owned(),
    })
}

fn expanded(config: &Config, recipient: &str) -> Answer {
    let addresses = VirtualAliases::new(config)?.expand(&recipient.parse()?)?.unwrap_or_default();
    Ok(addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(", "))
}

fn mapped(config: &Config, verb: &str, address: &str) -> Answer {
    let (verb, usage) = verb.split_once(' ').ok_or("an unknown question")?;
    let usage = match usage {
        "envelope-sender" => Usage::EnvelopeSender,
        "envelope-recipient" => Usage::EnvelopeRecipient,
        "header-sender" => Usage::HeaderSender,
        "header-recipient" => Usage::HeaderRecipient,
        _ => return Err("an unknown usage".into()),
    };
    let address = address.parse()?;
    let mapped = match verb {
        "canonical" => Canonical::new(config)?.map(&address, usage)?,
        "masquerade" => Masquerade::new(config)?.apply(&address, usage)?,
        _ => return Err("an unknown question".into()),
    };
    Ok(mapped.map(String::from).unwrap_or_default())
}
