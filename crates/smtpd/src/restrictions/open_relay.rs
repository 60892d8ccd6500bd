//! Lists that refuse strangers only behind what lets everyone through: `mynetworks` may hold the whole internet.

use std::fmt::Write as _;

use config::Config;

use super::parse::{List, Rule};

/// What a list does with a client that is nobody special, in its own order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Keeps him from sending anywhere.
    Refuses,
    /// Lets him through, by this verb.
    Permits(&'static str),
    /// Neither.
    Open,
}

/// How strangers get to send anywhere, if they do. `early` are the lists that judge a client before it names a recipient;
/// `late` those that judge recipients, one of which has something that guards.
pub(super) fn way_of_strangers(config: &Config, early: &[&List], late: &[(&str, &List)]) -> Option<String> {
    let networks = lookup::trusted_strangers(config).ok().flatten();
    let end = |list: &List| end_of(list, networks.is_some());
    if early.iter().any(|list| end(list) == End::Refuses) {
        return None;
    }
    let mut by = None;
    for (name, list) in late {
        match end(list) {
            End::Refuses => return None,
            End::Permits(verb) if list.guards_relaying() => by = by.or(Some((*name, verb))),
            End::Permits(_) | End::Open => {}
        }
    }
    let (name, verb) = by?;
    let mut text = match networks.filter(|_| verb == PERMIT_MYNETWORKS) {
        Some(item) => format!("mynetworks: {item} holds hosts all over the internet, and {name} has {verb}"),
        None => format!("{name}: {verb} stands before all that refuses strangers"),
    };
    let _ = write!(text, ": anybody can send mail anywhere through this host; ");
    text.push_str(match verb {
        PERMIT_MYNETWORKS => "list only your own networks, such as 127.0.0.0/8 [::1]/128",
        _ => "put reject_unauth_destination before it",
    });
    Some(text)
}

const PERMIT: &str = "permit";
const PERMIT_MYNETWORKS: &str = "permit_mynetworks";

fn end_of(list: &List, trusts_strangers: bool) -> End {
    let mut ends = list.0.iter().map(|rule| end_of_rule(rule, trusts_strangers));
    ends.find(|end| *end != End::Open).unwrap_or(End::Open)
}

fn end_of_rule(rule: &Rule, trusts_strangers: bool) -> End {
    match rule {
        Rule::Verb { verb, .. } => match verb.name {
            PERMIT => End::Permits(PERMIT),
            PERMIT_MYNETWORKS if trusts_strangers => End::Permits(PERMIT_MYNETWORKS),
            _ if verb.guards_relaying => End::Refuses,
            _ => End::Open,
        },
        Rule::Class(list) => end_of(list, trusts_strangers),
        // Only what it refuses has no effect.
        Rule::Warn(rule) => match end_of_rule(rule, trusts_strangers) {
            End::Refuses => End::Open,
            end => end,
        },
        Rule::Unknown => End::Refuses,
    }
}
