//! What `postroad check` can find out about next hops before mail waits for them.

use std::ops::ControlFlow;

use config::{Param, ServiceKind, param, split_list};
use lookup::Table;
use smtp_proto::client::Protocol;

use crate::destination::{Destination, Fault};
use crate::settings::Own;

/// Parameters whose value is `transport` or `transport:nexthop`.
const ROUTES: [Param<String>; 8] = [
    param::LOCAL_TRANSPORT,
    param::VIRTUAL_TRANSPORT,
    param::RELAY_TRANSPORT,
    param::DEFAULT_TRANSPORT,
    param::MAILBOX_TRANSPORT,
    param::FALLBACK_TRANSPORT,
    param::BEST_MX_TRANSPORT,
    param::CONTENT_FILTER,
];

/// Those whose next hop `relayhost` is, where they name none.
const RELAYED: [Param<String>; 2] = [param::DEFAULT_TRANSPORT, param::RELAY_TRANSPORT];

/// Tables of such values.
const ROUTE_TABLES: [Param<Vec<String>>; 2] =
    [param::TRANSPORT_MAPS, param::SENDER_DEPENDENT_DEFAULT_TRANSPORT_MAPS];

/// How many entries of a table are looked at: a start does not wait for a table of a million.
const MAX_ENTRIES: usize = 100_000;

/// The next hops of this program that are none; each text begins with the parameter.
pub(crate) fn next_hops(own: &Own<'_>) -> Vec<String> {
    let text = |name: &str| own.config.text(name).unwrap_or_default();
    let in_value = |name: &str, nexthop: &str| {
        fault_in(own, nexthop).map(|fault| format!("{name} = {}: {fault}", text(name)))
    };
    let in_route = |name: &str| in_value(name, own_nexthop(own, &text(name))?);
    let mut found: Vec<String> = ROUTES.iter().filter_map(|route| in_route(route.name())).collect();
    let fallback = own.name(param::SMTP_FALLBACK_RELAY);
    found.extend(in_value(&fallback, &text(&fallback)));
    for list in ROUTE_TABLES {
        found.extend(in_tables(own, list.name(), |value| own_nexthop(own, value)));
    }
    if RELAYED.iter().any(|route| is_own(own, &own.config.get(*route))) {
        let relayhost = param::RELAYHOST.name();
        found.extend(in_value(relayhost, &text(relayhost)));
        let of_senders = param::SENDER_DEPENDENT_RELAYHOST_MAPS.name();
        let is_host = |value: &&str| !value.eq_ignore_ascii_case("DUNNO");
        found.extend(in_tables(own, of_senders, |value| Some(value).filter(is_host)));
    }
    found
}

/// What is wrong with a next hop, and what helps.
fn fault_in(own: &Own<'_>, nexthop: &str) -> Option<String> {
    let places = Destination::list(nexthop, own.protocol == Protocol::Lmtp);
    let Fault { what, remedy } = places.into_iter().find_map(Result::err)?;
    Some(format!("{what}, and mail for it waits; {remedy}"))
}

/// The next hop of `transport:nexthop`, where the transport is a service of this program.
fn own_nexthop<'v>(own: &Own<'_>, value: &'v str) -> Option<&'v str> {
    let (_, nexthop) = value.split_once(':')?;
    is_own(own, value).then_some(nexthop)
}

/// Whether the transport of a value is a service of this program. One that is not named is the usual one.
fn is_own(own: &Own<'_>, value: &str) -> bool {
    let usual = own.config.get(param::DEFAULT_TRANSPORT);
    let transport = |value: &str| value.split(':').next().unwrap_or_default().to_owned();
    let name = Some(transport(value)).filter(|name| !name.is_empty()).unwrap_or_else(|| transport(&usual));
    let mut services = own.config.services().iter().filter(|entry| entry.kind != ServiceKind::Inet);
    services.any(|entry| entry.name == name && entry.command == own.prefix())
}

/// The first fault in each of a parameter's tables. A table that does not open is told of elsewhere.
fn in_tables(own: &Own<'_>, parameter: &str, nexthop: impl Fn(&str) -> Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for spec in split_list(&own.config.text(parameter).unwrap_or_default()) {
        let Ok(table) = lookup::open(&spec) else { continue };
        let fault = |value: &str| fault_in(own, nexthop(value)?);
        // One value for all keys is no entry.
        let in_static = table.get("").ok().flatten().filter(|_| spec.starts_with("static:"));
        let told = match in_static {
            Some(value) => fault(&value),
            None => in_entries(&*table, fault),
        };
        found.extend(told.map(|told| format!("{parameter}: table {spec}: {told}")));
    }
    found
}

fn in_entries(table: &dyn Table, fault: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (mut found, mut count) = (None, 0);
    let listed = table.visit_entries(&mut |key, value| {
        count += 1;
        let told = std::str::from_utf8(value).ok().and_then(&fault);
        found = told.map(|told| format!("for {}: {told}", String::from_utf8_lossy(key)));
        if found.is_some() || count == MAX_ENTRIES {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    // What cannot be read to its end is told by who needs it.
    listed.ok().and(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn told(main_cf: &str, protocol: Protocol) -> Vec<String> {
        let main_cf = format!("myhostname = mail.example.com\n{main_cf}").into_bytes();
        let master_cf = "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nlmtp unix - - n - - lmtp\n\
                         error unix - - n - - error\n";
        let snapshot = config::Snapshot { main_cf, master_cf: master_cf.into() };
        let config = config::Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0;
        next_hops(&Own { config: &config, protocol })
    }

    #[test]
    fn a_next_hop_that_is_none_is_told_with_its_parameter() {
        for (line, expected) in [
            (
                "relayhost = [mx.example.com:587",
                "relayhost = [mx.example.com:587: the bracket of “[mx.example.com:587” is not closed, and mail for it \
                 waits; write [mx.example.com]:587",
            ),
            (
                "default_transport = relay:mx:99999",
                "default_transport = relay:mx:99999: there is no port “99999”, as in “mx:99999”, and mail for it waits; \
                 write a number from 1 to 65535 or a name from /etc/services",
            ),
            (
                "smtp_fallback_relay = a.example, [b.example",
                "smtp_fallback_relay = a.example, [b.example: the bracket of “[b.example” is not closed, and mail for \
                 it waits; write [b.example]",
            ),
            (
                "transport_maps = inline:{ {a.example = error:[no} {b.example = relay:[mx]:x} }",
                "transport_maps: table inline:{ {a.example = error:[no} {b.example = relay:[mx]:x} }: for b.example: \
                 there is no port “x”, as in “[mx]:x”, and mail for it waits; write a number from 1 to 65535 or a name \
                 from /etc/services",
            ),
            (
                "sender_dependent_relayhost_maps = static:[mx",
                "sender_dependent_relayhost_maps: table static:[mx: the bracket of “[mx” is not closed, and mail for it \
                 waits; write [mx]",
            ),
            (
                "transport_maps = static::[mx",
                "transport_maps: table static::[mx: the bracket of “[mx” is not closed, and mail for it waits; write [mx]",
            ),
        ] {
            assert_eq!(told(line, Protocol::Smtp), [expected]);
            assert_eq!(told(line, Protocol::Lmtp), [""; 0], "{line}");
        }
        let lmtp = "mailbox_transport = lmtp:[::1";
        assert_eq!(told(lmtp, Protocol::Smtp), [""; 0]);
        assert_eq!(told(lmtp, Protocol::Lmtp).len(), 1);
    }

    #[test]
    fn what_postfix_takes_is_not_complained_of() {
        for line in [
            "",
            "relayhost = mx.example.com",
            "relayhost = [mx.example.com]:submission",
            "relayhost = [2001:db8::1]:587, [IPv6:2001:db8::1], 192.0.2.1:25 mx.example.com:",
            "relayhost = $mydomain",
            "default_transport = error:[mail is turned off",
            "default_transport = error:off\nrelay_transport = error:off\nrelayhost = [not asked",
            "mailbox_transport = lmtp:unix:private/dovecot",
            "virtual_transport = lmtp:inet:[::1]:24",
            "sender_dependent_relayhost_maps = inline:{ {a@b = DUNNO} {c@d = [mx]:smtps} }",
            "transport_maps = inline:{ {a = smtp:} {b = :} {c = smtp} {d = lmtp:unix:/x} {e = relay:[f]} }",
            "content_filter = relay:[127.0.0.1]:10025",
            "transport_maps = regexp:/nowhere, static:{smtp:[a]:25}",
        ] {
            for protocol in [Protocol::Smtp, Protocol::Lmtp] {
                assert_eq!(told(line, protocol), [""; 0], "{line}");
            }
        }
    }
}
