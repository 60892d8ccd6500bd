//! The configuration: ONE table of parameters, and `main.cf` and `master.cf` read, expanded, checked and edited.
//!
//! Contract: a [`Config`] is one immutable generation. Everything an operator can get wrong is found when it is loaded and
//! told with file, line, what is wrong and what would be right; after that [`Config::get`] cannot fail. The grammar is
//! Postfix's. This crate reads files and asks the host for its name and addresses; it opens no table and no socket.

mod check;
mod config;
mod diagnostic;
pub mod edit;
mod expand;
mod host;
mod lines;
mod listeners;
mod load;
mod main_cf;
pub mod manual;
mod master_cf;
mod near;
mod pace;
mod parameter;
pub mod templates;
mod transport;
mod value;

pub use config::{Config, Snapshot};
pub use diagnostic::{Diagnostic, Severity, cause, resolver_cause, without_numbers};
pub use expand::ExpandError;
pub use master_cf::{PROGRAMS, Presence, ServiceEntry, ServiceKind, Wakeup, port_number};
pub use near::nearest;
pub use pace::{Feedback, Rate};
pub use parameter::{Kind, Param, Parameter, Words, find, param, parameters};
pub use transport::{SUFFIXES as TRANSPORT_SUFFIXES, default_of as transport_default};
pub use value::{Value, split_list};
