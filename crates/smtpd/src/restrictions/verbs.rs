//! The table of verbs, and what each of them asks.

use std::borrow::Cow;

use config::{Config, param};
use lookup::domain::Parents;
use lookup::recipient_check::{RecipientCheck, Verdict};
use lookup::{LookupError, MatchList, OpenError, RewriteContext, Rewriter};
use mail::{Address, Dsn};
use smtp_proto::{Fault, Reply, path};

use super::Class;
use super::access;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;
use crate::report::Subject;

/// What may follow a verb.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    /// A lookup table.
    Table,
    /// One more word, described here.
    Text(&'static str),
}

/// What a verb asks; the class is that of the list it stands in.
pub(super) type Ask = fn(&mut Evaluation<'_>, Class, &Argument) -> Result<Decision, LookupError>;

/// A row of the table.
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// Names that it had in earlier versions of Postfix, which still work.
    also: &'static [&'static str],
    pub(super) takes: Takes,
    does: Does,
    /// One of those that keep a host from being an open relay.
    pub(super) guards_relaying: bool,
}

enum Does {
    Ask(Ask),
    /// Nothing yet, because of this.
    Missing(&'static str),
}

impl Verb {
    pub(super) const fn missing(&self) -> Option<&'static str> {
        match self.does {
            Does::Ask(_) => None,
            Does::Missing(why) => Some(why),
        }
    }

    pub(super) const fn ask(&self) -> Option<Ask> {
        match self.does {
            Does::Ask(ask) => Some(ask),
            Does::Missing(_) => None,
        }
    }

    const fn guard(mut self) -> Self {
        self.guards_relaying = true;
        self
    }

    const fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }
}

const fn asks(name: &'static str, ask: Ask) -> Verb {
    Verb { name, also: &[], takes: Takes::Nothing, does: Does::Ask(ask), guards_relaying: false }
}

const fn looks_up(name: &'static str, ask: Ask) -> Verb {
    Verb { name, also: &[], takes: Takes::Table, does: Does::Ask(ask), guards_relaying: false }
}

const fn missing(name: &'static str, takes: Takes, why: &'static str) -> Verb {
    Verb { name, also: &[], takes, does: Does::Missing(why), guards_relaying: false }
}

const DNS: &str = "the server does not ask the DNS yet";
const AUTH: &str = "the server does not authenticate clients yet";
const POLICY: &str = "policy services are not asked yet";
const VERIFY: &str = "addresses are not verified by probes yet";
const DNSXL: Takes = Takes::Text("the domain name of a DNS list");

/// A lookup table that stands in a list by itself.
pub(super) static BARE_TABLE: Verb = looks_up("table", access::about_class);

/// Every verb of Postfix's language.
static TABLE: &[Verb] = &[
    asks("permit", |_, _, _| Ok(Decision::Permit)),
    asks("reject", generic_reject).guard(),
    asks("defer", generic_defer).guard(),
    asks("defer_if_permit", |e, class, _| Ok(Decision::DeferIfPermit(e.requested(class, "defer_if_permit"))))
        .guard(),
    asks("defer_if_reject", |e, class, _| Ok(Decision::DeferIfReject(e.requested(class, "defer_if_reject")))),
    Verb {
        takes: Takes::Text("a number of seconds"),
        ..asks("sleep", |_, _, argument| {
            access::sleep(argument);
            Ok(Decision::Dunno)
        })
    },
    // Clients.
    asks("permit_mynetworks", permit_mynetworks),
    asks("permit_inet_interfaces", |e, _, _| Ok(permit_if(e.subject.client.is_local))),
    // No client has authenticated or shown a certificate: these permit nobody, which is the truth.
    asks("permit_sasl_authenticated", |_, _, _| Ok(Decision::Dunno)),
    asks("permit_tls_all_clientcerts", |_, _, _| Ok(Decision::Dunno)),
    asks("permit_tls_clientcerts", |_, _, _| Ok(Decision::Dunno)),
    asks("reject_plaintext_session", reject_plaintext_session),
    asks("reject_unauth_pipelining", reject_unauth_pipelining),
    looks_up("check_client_access", access::about_client),
    looks_up("check_reverse_client_hostname_access", access::about_client),
    looks_up("check_ccert_access", |_, _, _| Ok(Decision::Dunno)),
    looks_up("check_sasl_access", |_, _, _| Ok(Decision::Dunno)),
    missing("reject_unknown_client_hostname", Takes::Nothing, DNS).also(&["reject_unknown_client"]),
    missing("reject_unknown_reverse_client_hostname", Takes::Nothing, DNS),
    missing("reject_rbl_client", DNSXL, DNS).also(&["reject_rbl"]),
    missing("reject_rhsbl_client", DNSXL, DNS),
    missing("reject_rhsbl_reverse_client", DNSXL, DNS),
    missing("reject_maps_rbl", Takes::Nothing, DNS),
    missing("permit_dnswl_client", DNSXL, DNS),
    missing("permit_rhswl_client", DNSXL, DNS),
    missing("check_client_a_access", Takes::Table, DNS),
    missing("check_client_mx_access", Takes::Table, DNS),
    missing("check_client_ns_access", Takes::Table, DNS),
    missing("check_reverse_client_hostname_a_access", Takes::Table, DNS),
    missing("check_reverse_client_hostname_mx_access", Takes::Table, DNS),
    missing("check_reverse_client_hostname_ns_access", Takes::Table, DNS),
    missing("permit_naked_ip_address", Takes::Nothing, "it is obsolete in Postfix, too"),
    // HELO.
    asks("reject_invalid_helo_hostname", reject_invalid_helo).also(&["reject_invalid_hostname"]),
    asks("reject_non_fqdn_helo_hostname", reject_non_fqdn_helo).also(&["reject_non_fqdn_hostname"]),
    looks_up("check_helo_access", access::about_helo),
    missing("reject_unknown_helo_hostname", Takes::Nothing, DNS).also(&["reject_unknown_hostname"]),
    missing("reject_rhsbl_helo", DNSXL, DNS),
    missing("check_helo_a_access", Takes::Table, DNS),
    missing("check_helo_mx_access", Takes::Table, DNS),
    missing("check_helo_ns_access", Takes::Table, DNS),
    // Senders.
    asks("reject_non_fqdn_sender", |e, _, _| Ok(non_fqdn(e, e.subject.sender, Class::Sender))),
    asks("reject_unlisted_sender", |e, _, _| unlisted(e, e.subject.sender, Class::Sender)),
    looks_up("check_sender_access", access::about_sender).also(&["check_mail_access"]),
    missing("reject_unknown_sender_domain", Takes::Nothing, DNS).also(&["reject_unknown_address"]),
    missing("reject_rhsbl_sender", DNSXL, DNS),
    missing("reject_unverified_sender", Takes::Nothing, VERIFY).also(&["reject_unverified_address"]),
    missing("reject_sender_login_mismatch", Takes::Nothing, AUTH),
    missing("reject_known_sender_login_mismatch", Takes::Nothing, AUTH),
    missing("reject_authenticated_sender_login_mismatch", Takes::Nothing, AUTH),
    missing("reject_unauthenticated_sender_login_mismatch", Takes::Nothing, AUTH),
    missing("check_sender_a_access", Takes::Table, DNS),
    missing("check_sender_mx_access", Takes::Table, DNS),
    missing("check_sender_ns_access", Takes::Table, DNS),
    // Recipients.
    asks("permit_auth_destination", permit_auth_destination),
    asks("reject_unauth_destination", |e, _, _| unauth_destination(e, false)).guard(),
    asks("defer_unauth_destination", |e, _, _| unauth_destination(e, true)).guard(),
    asks("check_relay_domains", check_relay_domains).guard(),
    asks("reject_non_fqdn_recipient", |e, _, _| Ok(non_fqdn(e, e.subject.recipient, Class::Recipient))),
    asks("reject_unlisted_recipient", |e, _, _| unlisted(e, e.subject.recipient, Class::Recipient))
        .also(&["check_recipient_maps"]),
    looks_up("check_recipient_access", access::about_recipient),
    missing("permit_mx_backup", Takes::Nothing, DNS),
    missing("reject_unknown_recipient_domain", Takes::Nothing, DNS).also(&["reject_unknown_mailhost"]),
    missing("reject_rhsbl_recipient", DNSXL, DNS),
    missing("reject_unverified_recipient", Takes::Nothing, VERIFY),
    missing("check_recipient_a_access", Takes::Table, DNS),
    missing("check_recipient_mx_access", Takes::Table, DNS),
    missing("check_recipient_ns_access", Takes::Table, DNS),
    // Content, and everything.
    asks("reject_multi_recipient_bounce", reject_multi_recipient_bounce),
    missing("check_policy_service", Takes::Text("the address of a policy service"), POLICY),
    missing("check_etrn_access", Takes::Table, "ETRN is not offered"),
    // Only in local_header_rewrite_clients.
    looks_up("check_address_map", access::permits_client),
];

/// The verb of this name.
pub(super) fn find(word: &str) -> Option<&'static Verb> {
    let means = |verb: &&Verb| {
        verb.name.eq_ignore_ascii_case(word) || verb.also.iter().any(|n| n.eq_ignore_ascii_case(word))
    };
    TABLE.iter().find(means)
}

/// The verb whose name is nearest to a word that is none.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    config::nearest(
        word,
        TABLE.iter().flat_map(|verb| std::iter::once(verb.name).chain(verb.also.iter().copied())),
    )
}

/// What verbs ask: tables, and parameters that stand in replies.
pub(super) struct Judge {
    pub(super) config: Config,
    pub(super) mynetworks: MatchList,
    pub(super) recipients: RecipientCheck,
    rewriter: Rewriter,
    /// How access tables name subdomains.
    pub(super) parents: Parents,
    pub(super) null_access_lookup_key: String,
    pub(super) codes: Codes,
}

/// The reply codes that have parameters.
pub(super) struct Codes {
    pub(super) reject: u16,
    pub(super) defer: u16,
    pub(super) access_reject: u16,
    pub(super) access_defer: u16,
    relay_domains: u16,
    invalid_hostname: u16,
    non_fqdn: u16,
    multi_recipient_bounce: u16,
    plaintext: u16,
}

impl Judge {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        let code = |parameter, default| u16::try_from(config.get::<u64>(parameter)).unwrap_or(default);
        Ok(Self {
            config: config.clone(),
            mynetworks: MatchList::mynetworks(config)?,
            recipients: RecipientCheck::new(config)?,
            rewriter: Rewriter::new(config),
            parents: Parents::from_config(config, "smtpd_access_maps"),
            null_access_lookup_key: config.get(param::SMTPD_NULL_ACCESS_LOOKUP_KEY),
            codes: Codes {
                reject: code(param::REJECT_CODE, 554),
                defer: code(param::DEFER_CODE, 450),
                access_reject: code(param::ACCESS_MAP_REJECT_CODE, 554),
                access_defer: code(param::ACCESS_MAP_DEFER_CODE, 450),
                relay_domains: code(param::RELAY_DOMAINS_REJECT_CODE, 554),
                invalid_hostname: code(param::INVALID_HOSTNAME_REJECT_CODE, 501),
                non_fqdn: code(param::NON_FQDN_REJECT_CODE, 504),
                multi_recipient_bounce: code(param::MULTI_RECIPIENT_BOUNCE_REJECT_CODE, 550),
                plaintext: code(param::PLAINTEXT_REJECT_CODE, 450),
            },
        })
    }
}

impl Judge {
    /// The address as cleanup will complete it: what tables and lists are asked about. Replies show what the client said.
    pub(super) fn complete<'a>(&self, address: &'a Address) -> Cow<'a, Address> {
        self.rewriter.rewrite(address, RewriteContext::Local)
    }

    /// Whether the domain cannot be one, or the address could be taken for an option of a command.
    pub(super) fn is_malformed(&self, address: &Address) -> Result<bool, LookupError> {
        Ok(self.recipients.resolver().destinations().find(&self.complete(address))?.malformed)
    }

    fn relay_permitted(&self, recipient: &Address) -> Result<bool, LookupError> {
        self.recipients.relay_permitted(&self.complete(recipient))
    }
}

/// `CODE DSN <name>: CLASS rejected: TEXT`; the class of the enhanced code follows the reply code.
pub(super) fn refuse(subject: &Subject<'_>, class: Class, code: u16, dsn: (u16, u16), text: &str) -> Reply {
    let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, dsn.0, dsn.1);
    Reply::new(code, dsn, format!("<{}>: {} rejected: {text}", class.name_in(subject), class.words()))
}

const fn permit_if(yes: bool) -> Decision {
    if yes { Decision::Permit } else { Decision::Dunno }
}

fn generic_reject(e: &mut Evaluation<'_>, class: Class, _: &Argument) -> Result<Decision, LookupError> {
    Ok(Decision::Refuse(refuse(e.subject, class, e.judge.codes.reject, (7, 1), "Access denied")))
}

fn generic_defer(e: &mut Evaluation<'_>, class: Class, _: &Argument) -> Result<Decision, LookupError> {
    Ok(Decision::Refuse(refuse(e.subject, class, e.judge.codes.defer, (7, 1), "Try again later")))
}

fn permit_mynetworks(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    let client = e.subject.client;
    match client.ip {
        Some(ip) => Ok(permit_if(e.judge.mynetworks.matches_host(&client.name, ip)?)),
        // A program of this host, on a UNIX socket.
        None => Ok(Decision::Permit),
    }
}

fn reject_plaintext_session(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    let code = e.judge.codes.plaintext;
    let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, 7, 1);
    Ok(Decision::Refuse(Reply::new(code, dsn, "Session encryption is required")))
}

fn reject_unauth_pipelining(
    e: &mut Evaluation<'_>,
    class: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    if !e.subject.out_of_step {
        return Ok(Decision::Dunno);
    }
    let text = "Improper use of SMTP command pipelining";
    Ok(Decision::Refuse(refuse(e.subject, class, 503, (5, 0), text)))
}

fn reject_invalid_helo(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    let Some(helo) = e.subject.helo else { return Ok(Decision::Dunno) };
    let bare = helo.strip_suffix('.').unwrap_or(helo);
    if path::is_domain(helo) || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(Decision::Dunno);
    }
    Ok(Decision::Refuse(refuse(
        e.subject,
        Class::Helo,
        e.judge.codes.invalid_hostname,
        (5, 2),
        "Invalid name",
    )))
}

fn reject_non_fqdn_helo(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    let Some(helo) = e.subject.helo else { return Ok(Decision::Dunno) };
    if is_fully_qualified(helo) {
        return Ok(Decision::Dunno);
    }
    let text = "need fully-qualified hostname";
    Ok(Decision::Refuse(refuse(e.subject, Class::Helo, e.judge.codes.non_fqdn, (5, 2), text)))
}

fn is_fully_qualified(domain: &str) -> bool {
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    path::is_domain(domain) && (domain.starts_with('[') || bare.contains('.'))
}

fn non_fqdn(e: &Evaluation<'_>, address: Option<&Address>, class: Class) -> Decision {
    let Some(address) = address.filter(|address| !address.is_null()) else { return Decision::Dunno };
    match address.domain() {
        Some(domain) if is_fully_qualified(domain) => Decision::Dunno,
        _ => Decision::Refuse(refuse(
            e.subject,
            class,
            e.judge.codes.non_fqdn,
            (5, 2),
            "need fully-qualified address",
        )),
    }
}

fn unlisted(e: &Evaluation<'_>, address: Option<&Address>, class: Class) -> Result<Decision, LookupError> {
    let Some(address) = address.filter(|address| !address.is_null()) else { return Ok(Decision::Dunno) };
    let nobody = Address::null();
    // The route of a sender's own address does not depend on who writes to it.
    let sender = e.subject.sender.filter(|_| class == Class::Recipient).unwrap_or(&nobody);
    match e.judge.recipients.check(&e.judge.complete(address), &e.judge.complete(sender))? {
        Verdict::Known { .. } => Ok(Decision::Dunno),
        Verdict::Malformed if class == Class::Sender => Ok(Decision::Refuse(Fault::SenderSyntax.reply(""))),
        Verdict::Malformed => Ok(Decision::Refuse(Fault::RecipientSyntax.reply(""))),
        Verdict::Unknown(rejection) => {
            // X.1.1 is about a recipient; RFC 3463 has no code for an unknown sender but X.1.0.
            let dsn = match class {
                Class::Sender if rejection.dsn.with_class(5) == Dsn::new(5, 1, 1) => {
                    Dsn::new(rejection.dsn.class(), 1, 0)
                }
                _ => rejection.dsn,
            };
            let text = format!("<{address}>: {} rejected: {}", class.words(), rejection.text);
            Ok(Decision::Refuse(Reply::new(rejection.code, dsn, text)))
        }
    }
}

fn permit_auth_destination(e: &mut Evaluation<'_>, _: Class, _: &Argument) -> Result<Decision, LookupError> {
    match e.subject.recipient {
        Some(recipient) => Ok(permit_if(e.judge.relay_permitted(recipient)?)),
        None => Ok(Decision::Dunno),
    }
}

fn unauth_destination(e: &Evaluation<'_>, defer: bool) -> Result<Decision, LookupError> {
    let Some(recipient) = e.subject.recipient else { return Ok(Decision::Dunno) };
    if e.judge.relay_permitted(recipient)? {
        return Ok(Decision::Dunno);
    }
    let code = e.judge.codes.relay_domains;
    let code = if defer && code >= 500 { code - 100 } else { code };
    let dsn = Dsn::new(if code < 500 { 4 } else { 5 }, 7, 1);
    Ok(Decision::Refuse(Reply::new(code, dsn, format!("<{recipient}>: Relay access denied"))))
}

fn check_relay_domains(
    e: &mut Evaluation<'_>,
    class: Class,
    argument: &Argument,
) -> Result<Decision, LookupError> {
    match permit_auth_destination(e, class, argument)? {
        Decision::Permit => Ok(Decision::Permit),
        _ => unauth_destination(e, false),
    }
}

fn reject_multi_recipient_bounce(
    e: &mut Evaluation<'_>,
    class: Class,
    _: &Argument,
) -> Result<Decision, LookupError> {
    let subject = e.subject;
    if subject.recipients > 1 && subject.sender.is_some_and(Address::is_null) {
        let code = e.judge.codes.multi_recipient_bounce;
        return Ok(Decision::Refuse(refuse(subject, class, code, (5, 3), "Multi-recipient bounce")));
    }
    Ok(Decision::Dunno)
}
