//! The table of verbs, and what each of them asks.

use lookup::LookupError;

use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;
use super::{access, address, client, generic, helo, policy};

/// What may follow a verb.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    /// A lookup table.
    Table,
    /// One more word, described here.
    Text(&'static str),
    /// `inet:host:port`, `unix:path`, or such a thing with settings within braces.
    PolicyService,
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
const VERIFY: &str = "addresses are not verified by probes yet";
const DNSXL: Takes = Takes::Text("the domain name of a DNS list");

/// A lookup table that stands in a list by itself.
pub(super) static BARE_TABLE: Verb = looks_up("table", access::about_class);

/// Every verb of Postfix's language.
static TABLE: &[Verb] = &[
    asks("permit", |_, _, _| Ok(Decision::Permit)),
    asks("reject", generic::reject).guard(),
    asks("defer", generic::defer).guard(),
    asks("defer_if_permit", |e, class, _| Ok(Decision::DeferIfPermit(e.requested(class, "defer_if_permit"))))
        .guard(),
    asks("defer_if_reject", |e, class, _| Ok(Decision::DeferIfReject(e.requested(class, "defer_if_reject")))),
    Verb { takes: Takes::Text("a number of seconds"), ..asks("sleep", generic::sleep) },
    // Clients.
    asks("permit_mynetworks", client::permit_mynetworks),
    asks("permit_inet_interfaces", |e, _, _| Ok(client::permit_if(e.subject.client.is_local))),
    // No client has authenticated or shown a certificate: these permit nobody, which is the truth.
    asks("permit_sasl_authenticated", |_, _, _| Ok(Decision::Dunno)),
    asks("permit_tls_all_clientcerts", |_, _, _| Ok(Decision::Dunno)),
    asks("permit_tls_clientcerts", |_, _, _| Ok(Decision::Dunno)),
    asks("reject_plaintext_session", generic::reject_plaintext_session),
    asks("reject_unauth_pipelining", generic::reject_unauth_pipelining),
    looks_up("check_client_access", access::about_client),
    looks_up("check_reverse_client_hostname_access", access::about_reverse_client),
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
    asks("reject_invalid_helo_hostname", helo::reject_invalid).also(&["reject_invalid_hostname"]),
    asks("reject_non_fqdn_helo_hostname", helo::reject_non_fqdn).also(&["reject_non_fqdn_hostname"]),
    looks_up("check_helo_access", access::about_helo),
    missing("reject_unknown_helo_hostname", Takes::Nothing, DNS).also(&["reject_unknown_hostname"]),
    missing("reject_rhsbl_helo", DNSXL, DNS),
    missing("check_helo_a_access", Takes::Table, DNS),
    missing("check_helo_mx_access", Takes::Table, DNS),
    missing("check_helo_ns_access", Takes::Table, DNS),
    // Senders.
    asks("reject_non_fqdn_sender", |e, _, _| Ok(address::non_fqdn(e, e.subject.sender, Class::Sender))),
    asks("reject_unlisted_sender", |e, _, _| address::unlisted(e, e.subject.sender, Class::Sender)),
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
    asks("permit_auth_destination", address::permit_auth_destination),
    asks("reject_unauth_destination", |e, _, _| address::unauth_destination(e, false)).guard(),
    asks("defer_unauth_destination", |e, _, _| address::unauth_destination(e, true)).guard(),
    asks("check_relay_domains", address::check_relay_domains).guard(),
    asks("reject_non_fqdn_recipient", |e, _, _| {
        Ok(address::non_fqdn(e, e.subject.recipient, Class::Recipient))
    }),
    asks("reject_unlisted_recipient", |e, _, _| address::unlisted(e, e.subject.recipient, Class::Recipient))
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
    asks("reject_multi_recipient_bounce", generic::reject_multi_recipient_bounce),
    Verb { takes: Takes::PolicyService, ..asks("check_policy_service", policy::check) },
    looks_up("check_etrn_access", access::about_etrn),
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
