//! access(5): which keys tables are asked for.

use ipc::log;
use lookup::address_search::{access_address, access_domain};
use lookup::{LookupError, Maps};
use mail::Address;

use super::action::Entry;
use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

/// A table by itself: asked for what the list is about.
pub(super) fn about_class(
    e: &mut Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    match class {
        Class::Client => about_client(e, class, argument),
        Class::ReverseClient => about_reverse_client(e, class, argument),
        Class::Etrn => about_etrn(e, class, argument),
        Class::Helo => about_helo(e, class, argument),
        Class::Sender => about_sender(e, class, argument),
        Class::Recipient => about_recipient(e, class, argument),
        Class::Login | Class::Data | Class::EndOfData => Ok(Decision::Dunno),
    }
}

/// `check_client_access`: the client's name, its domains, its address, its networks.
pub(super) fn about_client(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::Table { maps, label } = argument else { return Ok(Decision::Dunno) };
    let found = find_client(e, maps);
    act_on(e, found, Class::Client, label)
}

/// `check_reverse_client_hostname_access`: the name that the client's address leads to, and its domains.
pub(super) fn about_reverse_client(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let Argument::Table { maps, label } = argument else { return Ok(Decision::Dunno) };
    let client = e.subject.client;
    let found = match access_domain(maps, &client.reverse_name, e.judge.parents) {
        Ok(None) => access_address(maps, &client.address),
        found => found,
    };
    act_on(e, found, Class::ReverseClient, label)
}

/// `check_etrn_access`: the domain and its parents.
pub(super) fn about_etrn(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let (Argument::Table { maps, label }, Some(domain)) = (argument, e.subject.etrn_domain) else {
        return Ok(Decision::Dunno);
    };
    let found = access_domain(maps, domain, e.judge.parents);
    act_on(e, found, Class::Etrn, label)
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
    let found = access_domain(maps, helo, e.judge.parents);
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
        true => maps.get(&e.judge.null_access_lookup_key),
        false => find_address(e, maps, sender),
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
    let found = find_address(e, maps, recipient);
    act_on(e, found, Class::Recipient, label)
}

fn find_address(e: &Evaluation<'_>, maps: &Maps, address: &Address) -> Result<Option<String>, LookupError> {
    let search = e.judge.recipients.resolver().destinations().search();
    search.access(maps, &e.judge.complete(address), e.judge.parents)
}

/// Does what an entry of a table says. A table that could not be asked says this.
pub(super) fn act_on(
    e: &mut Evaluation<'_>,
    found: Result<Option<String>, LookupError>,
    class: Class,
    table: &str,
) -> Result<Decision, LookupError> {
    let found = found.unwrap_or_else(|error| {
        log::warning!("{error}");
        Some("451 4.3.5 Server configuration error".to_owned())
    });
    match &found {
        Some(value) => Entry { value, source: table, class }.act(e),
        None => Ok(Decision::Dunno),
    }
}
