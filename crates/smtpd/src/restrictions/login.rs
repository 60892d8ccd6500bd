//! Restrictions on clients that have authenticated, and on those that should have.

use ipc::log;
use lookup::LookupError;
use mail::{Address, Dsn};
use smtp_proto::Reply;

use super::access;
use super::class::Class;
use super::client;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;

/// What is to be done where `smtpd_sender_login_maps` does not know the sender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refuse,
    Allow,
}

/// `permit_sasl_authenticated`.
pub(super) fn permit_authenticated(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    Ok(client::permit_if(e.subject.client.login.is_some()))
}

/// `reject_sender_login_mismatch`: a sender that belongs to somebody else, or to somebody while the client is nobody.
pub(super) fn reject_mismatch(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    mismatch(e, Unknown::Refuse, true)
}

/// `reject_known_sender_login_mismatch`: the same for senders that are in the tables.
pub(super) fn reject_known_mismatch(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    mismatch(e, Unknown::Allow, true)
}

/// `reject_authenticated_sender_login_mismatch`: only for clients that are somebody.
pub(super) fn reject_authenticated_mismatch(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    mismatch(e, Unknown::Refuse, false)
}

/// `reject_unauthenticated_sender_login_mismatch`: only for clients that are nobody.
pub(super) fn reject_unauthenticated_mismatch(
    e: &mut Evaluation<'_>,
    _: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    match e.subject.client.login {
        Some(_) => Ok(Decision::Dunno),
        None => mismatch(e, Unknown::Refuse, true),
    }
}

fn mismatch(e: &mut Evaluation<'_>, unknown: Unknown, strangers_too: bool) -> Result<Decision, LookupError> {
    let Some(sender) = e.subject.sender.filter(|sender| !sender.is_null()) else {
        return Ok(Decision::Dunno);
    };
    let login = e.subject.client.login.as_ref();
    if login.is_none() && !strangers_too {
        return Ok(Decision::Dunno);
    }
    // Where nobody can log in, nobody can be asked to.
    if login.is_none() && !e.judge.offers_login {
        log::warning!("sender login mismatch: not looked at, since smtpd_sasl_auth_enable = no");
        return Ok(Decision::Dunno);
    }
    e.asked = Some(Class::Sender);
    let owners = owners(e, sender)?;
    match (login, owners) {
        (None, Some(_)) => Ok(refuse(sender, "not logged in")),
        (None, None) => Ok(Decision::Dunno),
        (Some(_), None) if unknown == Unknown::Allow => Ok(Decision::Dunno),
        (Some(login), owners) => {
            let owns = |name: &String| name.to_lowercase() == login.username.to_lowercase();
            match owners.is_some_and(|owners| config::split_list(&owners).iter().any(owns)) {
                true => Ok(Decision::Dunno),
                false => Ok(refuse(sender, &format!("not owned by user {}", login.username))),
            }
        }
    }
}

fn owners(e: &Evaluation<'_>, sender: &Address) -> Result<Option<String>, LookupError> {
    let search = e.judge.recipients.resolver().destinations().search();
    let found = search.general(&e.judge.sender_logins, &e.judge.complete(sender))?;
    Ok(found.map(|found| found.value))
}

fn refuse(sender: &Address, why: &str) -> Decision {
    let text = format!("<{sender}>: Sender address rejected: {why}");
    Decision::Refuse(Reply::new(553, Dsn::new(5, 7, 1), text))
}

/// `check_sasl_access`: the name that the client logged in with.
pub(super) fn about_login(
    e: &mut Evaluation<'_>,
    _: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    let (Argument::Table { maps, label }, Some(login)) = (argument, &e.subject.client.login) else {
        return Ok(Decision::Dunno);
    };
    let found = maps.get(&login.username);
    access::act_on(e, found, Class::Login, label)
}
