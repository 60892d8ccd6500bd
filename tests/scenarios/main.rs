//! Scenarios: the real programs, real clients, whole messages. What a test waits for is an event, never a time.
//!
//! Each test has a mail system of its own in a scratch folder, so that all can run at once.

// Clippy knows tests by their attribute; what they share has none.
#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stdout)]

mod access;
mod auth;
mod auth_tls;
mod clients;
mod crash;
mod damage;
mod delivery;
mod dns_restrictions;
mod doctor;
mod dying_peers;
mod early;
mod faults;
mod front_door;
mod handover;
mod hostile;
mod import;
mod intruders;
mod limits;
mod network;
mod orphans;
mod outcomes;
mod postfix;
mod power_cut;
mod queue;
mod relay_cache;
mod relay_login;
mod relay_mx;
mod relay_peers;
mod relay_rules;
mod relay_stages;
mod relay_wire;
mod reload;
mod reports;
mod rights;
mod sandbox;
mod schedule;
mod screened_out;
mod screening;
mod site;
mod smtp_client;
mod soak;
mod submissions;
mod tls;
mod transports;
mod verification;
