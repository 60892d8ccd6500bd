//! access(5): tables that decide, and the actions in them.

use std::time::Duration;

use ipc::log;
use lookup::address_search::{access_address, access_domain};
use lookup::{LookupError, Maps};
use mail::{Address, Dsn};
use smtp_proto::Reply;

use super::evaluate::{Decision, Evaluation};
use super::parse::{Argument, Parser};
use super::verbs::refuse;
use super::{Class, misconfigured};
use crate::report;

/// The longest time that `sleep` sleeps: it holds a session.
const MAX_SLEEP: u64 = 600;

/// `sleep SECONDS`.
pub(super) fn sleep(argument: &Argument) {
    if let Argument::Text(seconds) = argument {
        std::thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(0).min(MAX_SLEEP)));
    }
}

/// A table by itself: asked for what the list is about.
pub(super) fn about_class(
    e: &mut Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    match class {
        Class::Client => about_client(e, class, argument),
        Class::Helo => about_helo(e, class, argument),
        Class::Sender => about_sender(e, class, argument),
        Class::Recipient => about_recipient(e, class, argument),
        Class::Data | Class::EndOfData => Ok(Decision::Dunno),
    }
}

/// `check_client_access`: the client's name, its domains, its address, its networks.
pub(super) fn about_client(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::Table { maps, label } = argument else { return Ok(Decision::Dunno) };
    let found = find_client(e, maps)?;
    act_on(e, found, Class::Client, label)
}

/// `check_address_map` of `local_header_rewrite_clients`: whatever the table says of the client permits it.
pub(super) fn permits_client(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::Table { maps, .. } = argument else { return Ok(Decision::Dunno) };
    Ok(if find_client(e, maps)?.is_some() { Decision::Permit } else { Decision::Dunno })
}

fn find_client(e: &Evaluation<'_>, maps: &Maps) -> Result<Option<String>, LookupError> {
    let client = e.subject.client;
    match access_domain(maps, &client.name, e.judge.parents)? {
        Some(value) => Ok(Some(value)),
        None => access_address(maps, &client.address),
    }
}

/// `check_helo_access`: the name and its domains.
pub(super) fn about_helo(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let (Argument::Table { maps, label }, Some(helo)) = (argument, e.subject.helo) else {
        return Ok(Decision::Dunno);
    };
    let found = access_domain(maps, helo, e.judge.parents)?;
    act_on(e, found, Class::Helo, label)
}

/// `check_sender_access`: the address and its parts; the null sender under a name of its own.
pub(super) fn about_sender(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let (Argument::Table { maps, label }, Some(sender)) = (argument, e.subject.sender) else {
        return Ok(Decision::Dunno);
    };
    let found = match sender.is_null() {
        true => maps.get(&e.judge.null_access_lookup_key)?,
        false => find_address(e, maps, sender)?,
    };
    act_on(e, found, Class::Sender, label)
}

/// `check_recipient_access`: the address and its parts.
pub(super) fn about_recipient(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let (Argument::Table { maps, label }, Some(recipient)) = (argument, e.subject.recipient) else {
        return Ok(Decision::Dunno);
    };
    let found = find_address(e, maps, recipient)?;
    act_on(e, found, Class::Recipient, label)
}

fn find_address(e: &Evaluation<'_>, maps: &Maps, address: &Address) -> Result<Option<String>, LookupError> {
    let search = e.judge.recipients.resolver().destinations().search();
    search.access(maps, &e.judge.complete(address), e.judge.parents)
}

/// Does what an entry of a table says.
fn act_on(
    e: &mut Evaluation<'_>,
    value: Option<String>,
    class: Class,
    table: &str,
) -> Result<Decision, LookupError> {
    let Some(value) = value else { return Ok(Decision::Dunno) };
    let value = value.trim();
    let (word, text) =
        value.split_once(char::is_whitespace).map_or((value, ""), |(word, text)| (word, text.trim()));
    let codes = &e.judge.codes;
    let said = |code: u16, generic: &str| match text.is_empty() {
        true => refuse(e.subject, class, code, (7, 1), generic),
        false => with_text(code, text, &class.name_in(e.subject), class),
    };
    Ok(match word.to_ascii_uppercase().as_str() {
        "OK" | "RELAY" => Decision::Permit,
        "DUNNO" => Decision::Dunno,
        "REJECT" => Decision::Refuse(said(codes.access_reject, "Access denied")),
        "DEFER" => Decision::Refuse(said(codes.access_defer, "Try again later")),
        "DEFER_IF_PERMIT" => Decision::DeferIfPermit(said(codes.access_defer, "Try again later")),
        "DEFER_IF_REJECT" => Decision::DeferIfReject(said(codes.access_defer, "Try again later")),
        "WARN" | "INFO" | "HOLD" | "DISCARD" => {
            note(e, word, text, class);
            Decision::Dunno
        }
        "FILTER" | "REDIRECT" | "BCC" | "PREPEND" => {
            log::warning!(
                "access table {table}: the action {word} is not implemented yet; the request is deferred"
            );
            Decision::Refuse(misconfigured())
        }
        _ if word.len() == 3 && Reply::parse(value).is_some_and(|reply| !reply.is_positive()) => {
            let code = word.parse().unwrap_or(codes.access_reject);
            Decision::Refuse(said(code, "Access denied"))
        }
        // The form that address-based authorization schemes make, such as POP before SMTP.
        _ if value.bytes().all(|b| b.is_ascii_digit()) => Decision::Permit,
        _ => return named(e, value, class, table),
    })
}

/// `<name>: Sender address rejected: text`, with the enhanced code that the text may begin with.
fn with_text(code: u16, text: &str, name: &str, class: Class) -> Reply {
    let status = if code < 500 { 4 } else { 5 };
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (dsn, text) = match first.parse::<Dsn>() {
        Ok(dsn) => (dsn.with_class(status), rest.trim_start()),
        Err(_) => (Dsn::new(status, 7, 1), text),
    };
    Reply::new(code, dsn, format!("<{name}>: {} rejected: {text}", class.words()))
}

/// Actions that let the message go on, with a line in the log.
fn note(e: &mut Evaluation<'_>, word: &str, text: &str, class: Class) {
    let action = word.to_ascii_lowercase();
    e.effects.hold |= action == "hold";
    e.effects.discard |= action == "discard";
    let name = class.name_in(e.subject);
    let text =
        if text.is_empty() { format!("triggers {}", word.to_ascii_uppercase()) } else { text.to_owned() };
    report::acted(&action, e.subject, &format_args!("<{name}>: {} {text}", class.words()));
}

/// An entry that names restrictions.
fn named(e: &mut Evaluation<'_>, value: &str, class: Class, table: &str) -> Result<Decision, LookupError> {
    let list = Parser::names(&e.judge.config, value);
    if list.has_unknown() {
        log::warning!(
            "access table {table}: entry \"{value}\" is no action and names no restriction; the request is deferred"
        );
    }
    e.nested(&list, class)
}
