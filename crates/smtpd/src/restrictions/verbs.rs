//! The table of verbs, and what each of them asks.

use lookup::LookupError;

use super::class::Class;
use super::evaluate::{Decision, Evaluation};
use super::parse::Argument;
use super::server_access::{self, Servers};
use super::{
    access, address, certificate, client, dns_list, existence, generic, helo, login, mx_backup, policy,
    verification,
};

/// What may follow a verb.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    /// A lookup table.
    Table,
    /// A lookup table, or within braces one that is asked for other features of a certificate.
    CertificateTable,
    /// One more word, described here.
    Text(&'static str),
    /// The domain of a DNS list, and perhaps which of its answers count.
    DnsList,
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

    /// What it permits, in the log: the clients and recipients that its name tells of, wherever it stands.
    pub(super) fn permits(&self, class: Class) -> Class {
        match self.name {
            "permit_auth_destination" | "permit_mx_backup" => Class::Recipient,
            name if name.starts_with("permit_") => Class::Client,
            _ => class,
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

const fn asks_list(name: &'static str, ask: Ask) -> Verb {
    Verb { name, also: &[], takes: Takes::DnsList, does: Does::Ask(ask), guards_relaying: false }
}

const fn missing(name: &'static str, takes: Takes, why: &'static str) -> Verb {
    Verb { name, also: &[], takes, does: Does::Missing(why), guards_relaying: false }
}

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
    asks("permit_sasl_authenticated", login::permit_authenticated),
    asks("permit_tls_all_clientcerts", certificate::permit_all),
    asks("permit_tls_clientcerts", certificate::permit_listed),
    asks("reject_plaintext_session", generic::reject_plaintext_session),
    asks("reject_unauth_pipelining", generic::reject_unauth_pipelining),
    looks_up("check_client_access", access::about_client),
    looks_up("check_reverse_client_hostname_access", access::about_reverse_client),
    Verb { takes: Takes::CertificateTable, ..asks("check_ccert_access", certificate::about) },
    looks_up("check_sasl_access", login::about_login),
    asks("reject_unknown_client_hostname", existence::unknown_client).also(&["reject_unknown_client"]),
    asks("reject_unknown_reverse_client_hostname", existence::unknown_reverse_client),
    asks_list("reject_rbl_client", dns_list::reject_client).also(&["reject_rbl"]),
    asks_list("reject_rhsbl_client", |e, _, a| dns_list::reject_name(e, Class::Client, a)),
    asks_list("reject_rhsbl_reverse_client", |e, _, a| dns_list::reject_name(e, Class::ReverseClient, a)),
    asks("reject_maps_rbl", dns_list::reject_client_of_old_lists),
    asks_list("permit_dnswl_client", dns_list::permit_client),
    asks_list("permit_rhswl_client", dns_list::permit_client_name),
    looks_up("check_client_a_access", |e, _, a| server_access::check(e, Class::Client, Servers::Own, a)),
    looks_up("check_client_mx_access", |e, _, a| server_access::check(e, Class::Client, Servers::Mail, a)),
    looks_up("check_client_ns_access", |e, _, a| server_access::check(e, Class::Client, Servers::Name, a)),
    looks_up("check_reverse_client_hostname_a_access", |e, _, a| {
        server_access::check(e, Class::ReverseClient, Servers::Own, a)
    }),
    looks_up("check_reverse_client_hostname_mx_access", |e, _, a| {
        server_access::check(e, Class::ReverseClient, Servers::Mail, a)
    }),
    looks_up("check_reverse_client_hostname_ns_access", |e, _, a| {
        server_access::check(e, Class::ReverseClient, Servers::Name, a)
    }),
    missing("permit_naked_ip_address", Takes::Nothing, "it is obsolete in Postfix, too"),
    // HELO.
    asks("reject_invalid_helo_hostname", helo::reject_invalid).also(&["reject_invalid_hostname"]),
    asks("reject_non_fqdn_helo_hostname", helo::reject_non_fqdn).also(&["reject_non_fqdn_hostname"]),
    looks_up("check_helo_access", access::about_helo),
    asks("reject_unknown_helo_hostname", existence::unknown_helo).also(&["reject_unknown_hostname"]),
    asks_list("reject_rhsbl_helo", |e, _, a| dns_list::reject_name(e, Class::Helo, a)),
    looks_up("check_helo_a_access", |e, _, a| server_access::check(e, Class::Helo, Servers::Own, a)),
    looks_up("check_helo_mx_access", |e, _, a| server_access::check(e, Class::Helo, Servers::Mail, a)),
    looks_up("check_helo_ns_access", |e, _, a| server_access::check(e, Class::Helo, Servers::Name, a)),
    // Senders.
    asks("reject_non_fqdn_sender", |e, _, _| Ok(address::non_fqdn(e, e.subject.sender, Class::Sender))),
    asks("reject_unlisted_sender", |e, _, _| address::unlisted(e, e.subject.sender, Class::Sender)),
    looks_up("check_sender_access", access::about_sender).also(&["check_mail_access"]),
    asks("reject_unknown_sender_domain", existence::unknown_sender_domain).also(&["reject_unknown_address"]),
    asks_list("reject_rhsbl_sender", |e, _, a| dns_list::reject_name(e, Class::Sender, a)),
    asks("reject_unverified_sender", |e, _, _| Ok(verification::reject(e, e.subject.sender, Class::Sender)))
        .also(&["reject_unverified_address"]),
    asks("reject_sender_login_mismatch", login::reject_mismatch),
    asks("reject_known_sender_login_mismatch", login::reject_known_mismatch),
    asks("reject_authenticated_sender_login_mismatch", login::reject_authenticated_mismatch),
    asks("reject_unauthenticated_sender_login_mismatch", login::reject_unauthenticated_mismatch),
    looks_up("check_sender_a_access", |e, _, a| server_access::check(e, Class::Sender, Servers::Own, a)),
    looks_up("check_sender_mx_access", |e, _, a| server_access::check(e, Class::Sender, Servers::Mail, a)),
    looks_up("check_sender_ns_access", |e, _, a| server_access::check(e, Class::Sender, Servers::Name, a)),
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
    asks("permit_mx_backup", mx_backup::permit),
    asks("reject_unknown_recipient_domain", existence::unknown_recipient_domain)
        .also(&["reject_unknown_mailhost"]),
    asks_list("reject_rhsbl_recipient", |e, _, a| dns_list::reject_name(e, Class::Recipient, a)),
    asks("reject_unverified_recipient", |e, _, _| {
        Ok(verification::reject(e, e.subject.recipient, Class::Recipient))
    }),
    looks_up("check_recipient_a_access", |e, _, a| {
        server_access::check(e, Class::Recipient, Servers::Own, a)
    }),
    looks_up("check_recipient_mx_access", |e, _, a| {
        server_access::check(e, Class::Recipient, Servers::Mail, a)
    }),
    looks_up("check_recipient_ns_access", |e, _, a| {
        server_access::check(e, Class::Recipient, Servers::Name, a)
    }),
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
