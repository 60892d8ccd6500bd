//! Targets for fuzzing: a function for each parser that faces a peer, a file or an operator.
//!
//! A target takes any bytes and fails by panicking, not only where the parser does but where an oracle says that what came of
//! the bytes cannot be: another result when they come in other pieces, a value that is not the same after it was written and
//! read, an output beyond its bound, two parsers that disagree. `tests/smoke.rs` runs each over its seeds in `corpus/NAME` and
//! some thousand changes of them; `cargo xtask fuzz` lets libFuzzer look for more.

pub mod configuration;
pub mod local;
pub mod messages;
pub mod mutation;
pub mod peers;
pub mod pieces;
pub mod smtp;
pub mod storage;
pub mod tables;

/// A parser, and what is asked of it.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of the target and of the folder of its seeds.
    pub name: &'static str,
    /// Takes any bytes, and panics where an oracle is not satisfied.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// All of them, by name.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $module::$name }),*];
    };
}

targets![
    tables::access,
    messages::address,
    storage::bans,
    smtp::bdat,
    messages::cleanup,
    configuration::bounce_template,
    smtp::content,
    peers::dane,
    local::destinations,
    peers::dns_text,
    peers::dovecot,
    storage::frames,
    messages::handed,
    messages::header,
    messages::header_addresses,
    configuration::main_cf,
    configuration::master_cf,
    tables::match_list,
    messages::mime,
    storage::passwords,
    tables::patterns,
    smtp::path,
    peers::policy_service,
    storage::postfix_queue_file,
    peers::proxy_header,
    storage::queue_file,
    messages::report,
    peers::sasl_client,
    peers::sasl_server,
    peers::screen,
    messages::seven_bits,
    smtp::smtp_client,
    smtp::smtp_server,
    messages::submission,
    tables::table_index,
    tables::table_source,
    local::templates,
    peers::xclient,
    peers::xtext,
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
