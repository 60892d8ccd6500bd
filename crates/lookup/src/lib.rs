//! Lookup tables: the [`Table`] trait, the types of tables, lists of tables, and the searches that are made in them.
//!
//! Contract: a table is named by `type:name` as in `main.cf`, answers a key with a value, and may be asked from many
//! threads at once. A table that lives in a file picks up a changed file by itself, within 10 milliseconds and without a
//! reload. Whatever a file holds, looking into it never panics: a damaged table is an error that names the file.

mod absorbed;
pub mod address_search;
mod braces;
mod cache;
pub mod canonical;
pub mod cdb;
mod check;
pub mod destination;
pub mod domain;
pub mod expand;
mod extension;
mod fold;
mod from_config;
mod generic;
pub mod interfaces;
mod local_domains;
mod mapping;
mod maps;
mod match_list;
mod network;
pub mod recipient_check;
pub mod resolve;
pub mod rewrite;
pub mod source;
mod strangers;
mod table;
mod types;
mod warning;
mod watch;

pub use absorbed::Absorbed;
pub use address_search::{AddressSearch, Found};
pub use braces::split_list;
pub use cache::Cache;
pub use check::{Findings, check, without_parameter};
pub use destination::{Class, Destination};
pub use extension::Delimiters;
pub use fold::fold;
pub use generic::Generic;
pub use local_domains::LocalDomains;
pub use maps::Maps;
pub use match_list::MatchList;
pub use network::{Network, NetworkError};
pub use recipient_check::RecipientCheck;
pub use resolve::{Resolver, Route};
pub use rewrite::{RewriteContext, Rewriter};
pub use strangers::trusted_strangers;
pub use table::{LookupError, OpenError, Options, Table, Visitor};
pub use types::{index_file, open, open_or_wait, open_with, types};
pub use warning::report_warnings_to;
